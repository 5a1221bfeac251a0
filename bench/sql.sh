#!/usr/bin/env bash
# What people ask of flights, in SQL: Tarmac and DuckDB, the same Parquet files.
#
#   bench/sql.sh [ROWS]            rows, default 5800000
#
#   THREADS=2                      cores
#   RUNS=5                         runs of a statement of which the figures are
#   SUBMIT_JOB=PATH                an executable instead of building one
#   FLIGHTS=FILE                   the source of the resampling
set -euo pipefail
cd "$(dirname "$0")/.."
. bench/common.sh

ROWS=${1:-5800000}
THREADS=${THREADS:-2}

make_venv
make_submit_job
make_pin
ingest_once "$ROWS" "$(make_data "$ROWS")"
"${PIN[@]}" "$PYTHON" bench/sql_peers.py "$SUBMIT_JOB" "$DATA" --threads "$THREADS" --runs "${RUNS:-5}"
