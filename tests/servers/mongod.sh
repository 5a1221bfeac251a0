#!/usr/bin/env bash
# Runs a MongoDB server on 127.0.0.1 in the foreground, until SIGTERM or SIGKILL.
#
#   mongod.sh MONGOD WORK_DIR PORT [replset]
#
# MONGOD is the executable. WORK_DIR keeps the documents. The log is WORK_DIR/mongod.log.
# With `replset` the server belongs to the replica set rs0; the caller sends replSetInitiate.
# When OWNER_PID is set, the server is killed as soon as that process has gone.
set -euo pipefail

if (($# < 3 || $# > 4)) || [[ ${4:-replset} != replset ]]; then
  sed -n '2,/^set/{/^#/s/^# \?//p}' "$0" >&2
  exit 2
fi
mkdir -p "$2/data"
mongod=$(realpath "$1") work=$(realpath "$2")
options=(--dbpath "$work/data" --bind_ip 127.0.0.1 --port "$3" --nounixsocket
  --logpath "$work/mongod.log" --logappend --wiredTigerCacheSizeGB 0.25
  --setParameter diagnosticDataCollectionEnabled=false)
if (($# == 4)); then
  options+=(--replSet rs0 --oplogSize 64)
fi

if [[ -n ${OWNER_PID:-} ]]; then
  (while kill -0 "$OWNER_PID" && kill -0 $$; do sleep 1; done; kill -9 $$) </dev/null >/dev/null 2>&1 &
fi
exec "$mongod" "${options[@]}" >>"$work/mongod.out" 2>&1
