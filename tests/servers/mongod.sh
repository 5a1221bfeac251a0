#!/usr/bin/env bash
# Runs a MongoDB server on 127.0.0.1 in the foreground, until SIGTERM or SIGKILL.
#
#   mongod.sh MONGOD WORK_DIR PORT [replset [TLS_DIR]]
#
# MONGOD is the executable. WORK_DIR keeps the documents. The log is WORK_DIR/mongod.log.
# With `replset` the server belongs to the replica set rs0; the caller sends replSetInitiate.
# With TLS_DIR (ca.pem, cert.pem for 127.0.0.1 and its key.pem) clients come over TLS, as a user:
# the caller initiates the set and makes the first user without one (localhost exception).
# The members of a set take the same TLS_DIR. Anybody may send configureFailPoint, and what a client
# that died has left open in a transaction is undone after 5 s instead of 60. Old documents are
# looked for every second instead of every minute.
# MONGO_CACHE_GB (0.25) and MONGO_OPLOG_MB (64) are what it may take.
# When OWNER_PID is set, the server is killed as soon as that process has gone.
set -euo pipefail

if (($# < 3 || $# > 5)) || [[ ${4:-replset} != replset ]]; then
  sed -n '2,/^set/{/^#/s/^# \?//p}' "$0" >&2
  exit 2
fi
mkdir -p "$2/data"
mongod=$(realpath "$1") work=$(realpath "$2")
options=(--dbpath "$work/data" --bind_ip 127.0.0.1 --port "$3" --nounixsocket
  --logpath "$work/mongod.log" --logappend --wiredTigerCacheSizeGB "${MONGO_CACHE_GB:-0.25}"
  --setParameter diagnosticDataCollectionEnabled=false
  --setParameter enableTestCommands=1
  --setParameter transactionLifetimeLimitSeconds=5
  --setParameter ttlMonitorSleepSecs=1)
if (($# > 3)); then
  options+=(--replSet rs0 --oplogSize "${MONGO_OPLOG_MB:-64}")
fi
# Members of a set with users know each other by a secret, the digest of the key that they share.
# mongod takes no secret that others may read.
if [[ -n ${5:-} ]]; then
  tls=$(realpath "$5")
  (umask 077 && cat "$tls/cert.pem" "$tls/key.pem" >"$work/server.pem" &&
    sha512sum <"$tls/key.pem" | cut -d ' ' -f 1 >"$work/keyfile")
  options+=(--tlsMode requireTLS --tlsCertificateKeyFile "$work/server.pem"
    --tlsCAFile "$tls/ca.pem" --tlsAllowConnectionsWithoutCertificates
    --auth --keyFile "$work/keyfile")
fi

if [[ -n ${OWNER_PID:-} ]]; then
  (while kill -0 "$OWNER_PID" && kill -0 $$; do sleep 1; done; kill -9 $$) </dev/null >/dev/null 2>&1 &
fi
exec "$mongod" "${options[@]}" >>"$work/mongod.out" 2>&1
