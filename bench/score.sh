#!/usr/bin/env bash
# Nanoseconds a row and core of prediction: Tarmac's bench, then the peers.
#
#   bench/score.sh [ROWS]        rows asked, default 1000000
#
#   DATA=FILE                    flights the forests are fitted on
#                                (default: a file of 1000000 made by make_flights.py)
#   SCORE="..."                  a command instead of `cargo bench --profile dev --workspace --bench kernels`
#   FLIGHTS=FILE                 the source of the resampling
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

ROWS=${1:-1000000}
make_venv
FILE=${DATA:-$(make_data 1000000)}
RESULTS=$OUT/score.jsonl
LOG=$OUT/score.log
rm -f "$RESULTS"

echo "tarmac" >&2
${SCORE:-cargo bench --profile dev --workspace --bench kernels} | tee "$LOG" >&2
ns=$(sed -nE 's/^.*predict_delay ns_per_row[ :=]*([0-9.]+).*$/\1/p' "$LOG" | tail -1)
if [ -n "$ns" ]; then
    echo "{\"peer\": \"tarmac\", \"ns_per_row\": $ns}" >>"$RESULTS"
else
    echo '{"peer": "tarmac", "error": "no line predict_delay ns_per_row"}' >>"$RESULTS"
fi

echo "peers" >&2
"$PYTHON" bench/score_peers.py --data "$FILE" --rows "$ROWS" 2>>"$LOG" >>"$RESULTS" || echo "a peer failed, see $LOG" >&2

echo
"$PYTHON" bench/compare.py score "$RESULTS"
