#!/usr/bin/env bash
# CSV to Parquet by month: Tarmac's ingestion, DuckDB, Polars, on the same file.
#
#   bench/ingest.sh [ROWS]         rows, default 5800000
#
#   LAYOUTS="nyc bts"              columns: those of the shipped flights, or the 109 of BTS, quoted
#   RUNS=3                         times that each is run; the table shows the quickest
#   THREADS=2                      cores
#   SUBMIT_JOB=PATH                an executable instead of building one; a release build, to compare
#   FLIGHTS=FILE                   the source of the resampling
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

ROWS=${1:-5800000}
RUNS=${RUNS:-3}
THREADS=${THREADS:-2}

make_venv
make_submit_job
make_pin
PARQUET=$(make_data "$ROWS")
LOG=$OUT/csv.log
: >"$LOG"

for layout in ${LAYOUTS:-nyc bts}; do
    FILE=$OUT/flights-$ROWS-$layout.csv
    [ -f "$FILE" ] || "$PYTHON" bench/csv_peers.py make "$layout" "$PARQUET" "$FILE"
    RESULTS=$OUT/csv-$ROWS-$layout.jsonl
    rm -f "$RESULTS"
    for ((round = 1; round <= RUNS; round++)); do
        echo "$layout, round $round of $RUNS" >&2
        # The first must not be the one that reads from the disk.
        cat "$FILE" >/dev/null
        rm -rf "$OUT/csv-root" "$OUT/csv-duckdb" "$OUT/csv-polars"
        measure tarmac -- "$SUBMIT_JOB" --data "$OUT/csv-root" --master "local[$THREADS]" \
            ingest "$FILE" >>"$LOG" 2>&1 || failed tarmac
        for peer in duckdb polars; do
            measure "$peer" -- "$PYTHON" bench/csv_peers.py "$peer" "$layout" "$FILE" \
                "$OUT/csv-$peer" --threads "$THREADS" >>"$LOG" 2>&1 || echo "$peer failed, see $LOG" >&2
        done
    done
    echo
    echo "$layout: $ROWS rows, $(stat -c %s "$FILE") bytes, $THREADS cores, the quickest of $RUNS runs"
    "$PYTHON" bench/csv_peers.py table "$RESULTS" "$OUT/csv-root/flights" "$OUT"/csv-{duckdb,polars}
done
