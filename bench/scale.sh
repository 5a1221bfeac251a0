#!/usr/bin/env bash
# Trains in process on files of several sizes: what a row costs, and how the memory grows.
#
#   bench/scale.sh [ROWS...]       default: shipped 1000000 5800000 23000000
#                                  (shipped is the file of the repository)
#
#   RUNS=3                         times that each size is run; the table shows the quickest
#   THREADS=2                      cores
#   CODES_MEMORY=256               MiB for the indices in one more run of the last size
#   SUBMIT_JOB=PATH                an executable instead of building one
#   FLIGHTS=FILE                   the source of the resampling
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

[ $# -gt 0 ] || set -- shipped 1000000 5800000 23000000
RUNS=${RUNS:-3}
THREADS=${THREADS:-2}
CODES_MEMORY=${CODES_MEMORY:-256}

make_venv
make_submit_job
make_pin

for rows in "$@"; do
    if [ "$rows" = shipped ]; then
        ingest_once shipped "${FLIGHTS:-data/nycflights13/flights.parquet}"
    else
        ingest_once "$rows" "$(make_data "$rows")"
    fi
done

RESULTS=$OUT/scale.jsonl
LOG=$OUT/scale.log
rm -f "$RESULTS"
: >"$LOG"

for ((round = 1; round <= RUNS; round++)); do
    echo "round $round of $RUNS" >&2
    for rows in "$@"; do
        echo "$rows" >&2
        DATA=$OUT/root-$rows
        train "$rows" -- --master "local[$THREADS]" >>"$LOG" 2>&1 || failed "$rows"
    done
    echo "$rows, $CODES_MEMORY MiB for indices" >&2
    train "$rows, $CODES_MEMORY MiB for indices" -- \
        --master "local[$THREADS]" --codes-memory "$CODES_MEMORY" >>"$LOG" 2>&1 || failed "$rows"
done

echo
echo "in process, $THREADS cores, the quickest of $RUNS runs"
"$PYTHON" bench/cluster.py scale "$RESULTS"
