#!/usr/bin/env bash
# Grows the original's forest with Tarmac and with its peers on the same Parquet.
#
#   bench/train.sh [ROWS]        default 5800000
#
#   PEERS=spark,lightgbm,sklearn   which peers (empty: none)
#   THREADS=2                      cores and threads for each
#   SUBMIT_JOB=PATH                an executable instead of building one
#   TRAIN_ARGS="..."               more arguments of `submit-job train`
#   FLIGHTS=FILE                   the source of the resampling
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

ROWS=${1:-5800000}
PEERS=${PEERS-spark,lightgbm,sklearn}
THREADS=${THREADS:-2}

make_venv
FILE=$(make_data "$ROWS")

make_submit_job
make_pin

DATA=$OUT/root-$ROWS
RESULTS=$OUT/train-$ROWS.jsonl
LOG=$OUT/train-$ROWS.log
rm -rf "$DATA" "$RESULTS" "$OUT/ingest-$ROWS.jsonl"
: >"$LOG"

echo "ingest (not part of the comparison)" >&2
"${PIN[@]}" "$PYTHON" bench/measure.py --name ingest --out "$OUT/ingest-$ROWS.jsonl" -- \
    "$SUBMIT_JOB" --data "$DATA" ingest "$FILE" >&2

# A peer that fails is a line of the table, not the end of the run.
echo "tarmac" >&2
# shellcheck disable=SC2086
"${PIN[@]}" "$PYTHON" bench/measure.py --name tarmac --out "$RESULTS" -- \
    "$SUBMIT_JOB" --data "$DATA" train --json --preset original ${TRAIN_ARGS:-} >>"$LOG" || echo "tarmac failed, see $LOG" >&2
for peer in ${PEERS//,/ }; do
    echo "$peer" >&2
    "${PIN[@]}" "$PYTHON" bench/train_peers.py --data "$FILE" --peers "$peer" --threads "$THREADS" \
        2>>"$LOG" >>"$RESULTS" || echo "$peer failed, see $LOG" >&2
done

echo
echo "$ROWS rows, $THREADS threads"
"$PYTHON" bench/compare.py train "$RESULTS"
