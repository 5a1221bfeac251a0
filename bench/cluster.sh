#!/usr/bin/env bash
# Trains in process and on clusters of this machine, and compares what it costs.
#
#   bench/cluster.sh [ROWS]        default 5800000
#
#   RUNS=3                         times that each way is run; the table shows the quickest
#   THREADS=2                      cores, whichever way
#   PORT=28050                     first port to try for the clusters
#   SUBMIT_JOB=PATH                an executable instead of building one
#   FLIGHTS=FILE                   the source of the resampling
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

ROWS=${1:-5800000}
RUNS=${RUNS:-3}
THREADS=${THREADS:-2}
PORT=${PORT:-28050}

make_venv
FILE=$(make_data "$ROWS")
make_submit_job
make_pin
ingest_once "$ROWS" "$FILE"

RESULTS=$OUT/cluster-$ROWS.jsonl
LOG=$OUT/cluster-$ROWS.log
rm -f "$RESULTS"
: >"$LOG"

# What one query costs beside its rows: statements without any, many of them and one, in files.
# A level of a tree is a query of two stages: rows are counted in each partition, then merged.
STATEMENTS=101
# shellcheck disable=SC2034  # read by its name
one_stage='SELECT 1;'
# shellcheck disable=SC2034
two_stages='SELECT MAX(x) FROM (SELECT random() AS x UNION ALL SELECT random());'
for stages in one_stage two_stages; do
    echo "${!stages}" >"$OUT/$stages-1.sql"
    for ((i = 0; i < STATEMENTS; i++)); do echo "${!stages}"; done >"$OUT/$stages-$STATEMENTS.sql"
done

# time_queries WAY MASTER
time_queries() {
    local stages n
    for stages in one_stage two_stages; do
        for n in 1 "$STATEMENTS"; do
            measure "$stages $n $1" -- \
                "$SUBMIT_JOB" --data "$DATA" --master "$2" sql -f "$OUT/$stages-$n.sql" >/dev/null
        done
    done
}

CLUSTER=
# Starts $1 executors with $2 cores each; sets CLUSTER, its process, and MASTER, its address.
start_cluster() {
    local address=$OUT/cluster.address
    rm -f "$address"
    "${PIN[@]}" env TARMAC_WORK="$OUT/cluster-work" \
        "$SUBMIT_JOB" cluster --executors "$1" --cores "$2" --port "$PORT" >"$address" 2>>"$LOG" &
    CLUSTER=$!
    until MASTER=$(grep -m 1 '^df://' "$address" 2>/dev/null); do
        kill -0 "$CLUSTER" 2>/dev/null || failed "the cluster"
        sleep 0.1
    done
}

stop_cluster() {
    if [ -n "$CLUSTER" ]; then
        kill -TERM "$CLUSTER" 2>/dev/null || true
        wait "$CLUSTER" || echo "the cluster has ended with $?, see $LOG" >&2
        CLUSTER=
        rm -rf "$OUT/cluster-work"
    fi
}
trap stop_cluster EXIT

# on_cluster EXECUTORS CORES
on_cluster() {
    local way="cluster $1 x $2"
    echo "$way" >&2
    start_cluster "$1" "$2"
    # Connections, and what is made at the first query.
    "$SUBMIT_JOB" --data "$DATA" --master "$MASTER" sql -c 'SELECT COUNT(*) FROM flights' \
        >>"$LOG" 2>&1 || failed "$way"
    train "$way" --cluster "$CLUSTER" -- --master "$MASTER" >>"$LOG" 2>&1 || failed "$way"
    time_queries "$way" "$MASTER"
    measure "idle $way" --cluster "$CLUSTER" -- sleep 5
    stop_cluster
}

# Rounds, and not one way after the other, so that a busy minute does not hit only one of them.
for ((round = 1; round <= RUNS; round++)); do
    echo "round $round of $RUNS" >&2
    echo "in process" >&2
    train "in process" -- --master "local[$THREADS]" >>"$LOG" 2>&1 || failed "in process"
    time_queries "in process" "local[$THREADS]"
    echo "in process, indices on disk" >&2
    train "in process, indices on disk" -- --master "local[$THREADS]" --codes-memory 0 \
        >>"$LOG" 2>&1 || failed "in process, indices on disk"
    on_cluster 1 "$THREADS"
    on_cluster "$THREADS" 1
done

echo
echo "$ROWS rows, $THREADS cores, the quickest of $RUNS runs"
"$PYTHON" bench/cluster.py ways "$RESULTS"
