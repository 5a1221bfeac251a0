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
for preset in "" _default; do
    line="predict_delay$preset ns_per_row"
    found=$(sed -nE "s/^$line ([0-9.]+), ([0-9]+) trees of ([0-9]+) leaves$/\1 \2 \3/p" "$LOG" | tail -1)
    read -r ns trees leaves <<<"$found" || true
    if [ -n "$ns" ]; then
        echo "{\"peer\": \"tarmac$preset\", \"ns_per_row\": $ns, \"trees\": $trees, \"leaves\": $leaves}"
    else
        echo "{\"peer\": \"tarmac$preset\", \"error\": \"no line $line\"}"
    fi
done >>"$RESULTS"

echo "peers" >&2
"$PYTHON" bench/score_peers.py --data "$FILE" --rows "$ROWS" 2>>"$LOG" >>"$RESULTS" || echo "a peer failed, see $LOG" >&2

echo
"$PYTHON" bench/compare.py score "$RESULTS"
