#!/usr/bin/env bash
# Runs the whole of compose.yaml, uses it, breaks it, and takes it down: nothing that was accepted
# may be lost.
#
#   docker/test.sh [PROGRAM]      by default target/dist/submit-job, or target/debug/submit-job
#
# Starts an engine where none answers (as root); makes stand-ins of images that cannot be pulled.
# Needs `docker compose` 2.24 or newer, Python 3, and what tests/servers/install.sh installs. What
# it measures goes to standard error. ENGINE_KEPT=1 leaves the stack as it is when a step fails.
set -euo pipefail
cd "$(dirname "$0")/.."
. docker/engine.sh
. docker/standins.sh

TARGET=${CARGO_TARGET_DIR:-$PWD/target}
PROGRAM=${1:-$TARGET/dist/submit-job}
[[ -x $PROGRAM || $# -gt 0 ]] || PROGRAM=$TARGET/debug/submit-job
[[ -x $PROGRAM ]] || fail "$PROGRAM is not there; cargo build makes it"
WORK=$(mktemp -d)
printf 'services:\n  grafana: !reset null\n' >"$WORK/without.yaml"
# nothing of whoever runs this
while read -r variable; do unset "$variable"; done < <(compgen -v STACK_ COMPOSE_)
export COMPOSE_PROJECT_NAME=tarmac-test STACK_IMAGE=tarmac:test STACK_PROGRAM=given
export STACK_PORT=15000 STACK_PROMETHEUS_PORT=19090 STACK_TRIGGER=interval:2s
WEB=http://127.0.0.1:$STACK_PORT
PROMETHEUS=http://127.0.0.1:$STACK_PROMETHEUS_PORT

# Grafana is left out: there is nothing to stand in for it
compose() { docker compose -f docker/compose.yaml -f "$WORK/without.yaml" "$@"; }

clean_up() {
  local code=$?
  for child in ${LOAD:-} ${TRAINING:-}; do kill "$child" 2>/dev/null || true; done
  rm -f docker/program/submit-job
  if ((code != 0)); then
    compose ps -a >&2 || true
    compose logs --tail 15 >&2 || true
    [[ -z ${ENGINE_KEPT:-} ]] || { say "left as it is: DOCKER_HOST=${DOCKER_HOST:-}"; return; }
  fi
  compose down -v --remove-orphans --timeout 5 >/dev/null 2>&1 || true
  docker rmi tarmac:test tarmac:newer >/dev/null 2>&1 || true
  stop_engine
  rm -rf "$WORK"
}
trap clean_up EXIT

# Waits until a command succeeds.
wait_for() {
  local what=$1 started=$SECONDS
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS - started < 300)) || fail "$what: not within 300 s"
    sleep 1
  done
  say "  $what: $((SECONDS - started)) s"
}

# Runs a command of compose; says what it said when it fails.
composed() { compose "$@" >"$WORK/said" 2>&1 || { cat "$WORK/said" >&2; fail "compose $*: failed"; }; }

ask=$WEB/flights/delays/predict/classify_realtime
flight='DepDelay=15&Carrier=AA&FlightDate=2013-12-25&Origin=JFK&Dest=LAX&FlightNum=1'
is_asked() { id=$(curl -sf "$ask" -d "$flight" | grep -o '[0-9a-f-]\{36\}' | head -n 1); }
is_answered() { [[ $(curl -sf "$ask/response/$id") == *Prediction* ]]; }
containers() { compose ps -q "$1"; }
started_at() { docker inspect -f '{{.State.StartedAt}}' "$1"; }
# started again after a time, and well since then
is_back() { [[ $(started_at "$1") != "$2" ]] && is_healthy "$1"; }
is_healthy() { [[ $(docker inspect -f '{{.State.Health.Status}}' "$1") == healthy ]]; }
# what Prometheus says of an expression: the first value
said() { curl -sfG "$PROMETHEUS/api/v1/query" --data-urlencode "query=$1" | grep -o '"value":\[[^]]*' | head -n 1 | grep -o '"[0-9.e+-]*"$' | tr -d '"'; }
says() { [[ $(said "$1") == "$2" ]]; }

count_answers() {
  compose exec -T mongodb mongosh --quiet --norc mongodb://127.0.0.1/agile_data_science \
    --eval 'db.flight_delay_classification_response.countDocuments()'
}

list_models() { compose run --rm -T --no-deps train models list | grep -oE '[0-9a-f]{12,}' | sort -u; }

start_load() {
  python3 docker/load.py ask "$WEB" 20 "$WORK/asked" >"$WORK/load" &
  LOAD=$!
}

# Ends the load, and looks that all it was promised is there, each once.
end_load() {
  kill "$LOAD" || fail "nobody asked any more"
  wait "$LOAD" || fail "the load failed"
  LOAD=
  local n_asked n_answers
  python3 docker/load.py answers "$WEB" "$WORK/asked" >"$WORK/answers" || fail "lost: $(cat "$WORK/answers")"
  say "  $1: $(cat "$WORK/load"), $(cat "$WORK/answers")"
  n_asked=$(sort -u "$WORK/asked" | wc -l)
  ((n_asked >= 100)) || fail "only $n_asked were accepted"
  {
    echo 'const ids = ['
    sort -u "$WORK/asked" | sed 's/.*/"&",/'
    echo ']; const answers = db.getSiblingDB("agile_data_science").flight_delay_classification_response;'
    echo 'print("once: " + ids.filter(id => answers.countDocuments({ UUID: id }) == 1).length)'
  } | compose exec -T mongodb mongosh --quiet --norc >"$WORK/counted"
  n_answers=$(grep -o 'once: [0-9]*' "$WORK/counted" | tail -n 1 | tr -dc 0-9)
  [[ $n_answers == "$n_asked" ]] || fail "$n_asked asked, $n_answers answered once in MongoDB"
  say "  in MongoDB: $n_answers answers to $n_asked requests"
  : >"$WORK/asked"
}

# Ends the main process of a container as a crash would; `docker kill` would keep it from coming back.
crash() {
  local pid
  pid=$(docker inspect -f '{{.State.Pid}}' "$1")
  # the engine may be on another machine
  grep -qs "$1" "/proc/$pid/cgroup" || fail "process $pid is not of container $1"
  kill -9 "$pid"
}

# ------------------------------------------------------------------------------------------ images
start_engine "$TARGET/docker"
docker compose version >/dev/null 2>&1 || fail "docker compose is not there: install the plugin of Docker's packages"
need_base gcr.io/distroless/cc-debian12:nonroot "$TARGET/docker/cc-debian12.tar" \
  libc6 libgcc-s1 libssl3 ca-certificates
strip -o docker/program/submit-job "$PROGRAM"
composed build web
docker build -q -f docker/Dockerfile --build-arg PROGRAM=given --build-arg VERSION=0.1.1 \
  -t tarmac:newer . >/dev/null
rm docker/program/submit-job
need_images "$TARGET/servers" "$TARGET/docker/standins"
say "images, in MB:"
docker images --format '  {{.Repository}}:{{.Tag}} {{.Size}}' | sort >&2

# ---------------------------------------------------------------------------------------- it starts
say "the stack starts"
SECONDS=0
composed up -d --wait
say "  compose up: $SECONDS s"
wait_for "a question is taken" is_asked
wait_for "it is answered" is_answered
say "  from nothing to the first answer: $SECONDS s"
compose ps -a --format '  {{.Service}} {{.Status}}' >&2
for target in stream web scheduler executor prometheus; do
  wait_for "Prometheus reads $target" says "min(up{job=\"$target\"})" 1
done
say "memory:"
docker stats --no-stream --format '  {{.Name}} {{.MemUsage}}' | sort >&2

say "the doctor, on the cluster:"
compose run --rm -T --no-deps train doctor >&2 || fail "something is wrong"

# ------------------------------------------------------------------------------------- it is broken
say "a container of each role dies, as by a crash, with 20 requests a second"
start_load
for service in stream web kafka mongodb s3 scheduler executor prometheus; do
  container=$(containers "$service" | sed -n 1p)
  started=$(started_at "$container")
  crash "$container"
  wait_for "$service is back" is_back "$container" "$started"
done
end_load "while they died"
python3 docker/prometheus/check.py "$PROMETHEUS" >&2 || fail "rules or the dashboard ask for what is not there"
say "a job on the cluster, one of whose executors dies"
compose run --rm -T --no-deps train train --seed 2 --no-promote >"$WORK/trained" 2>&1 &
TRAINING=$!
wait_for "it grows the forest" grep -q 'of .* levels' "$WORK/trained"
crash "$(containers executor | sed -n 1p)"
kill -0 "$TRAINING" || fail "it had ended already"
wait "$TRAINING" || { cat "$WORK/trained" >&2; fail "the job failed"; }
TRAINING=
tail -n 1 "$WORK/trained" >&2

# ---------------------------------------------------------------------------------------- it scales
say "stream and executors to 3"
start_load
export STACK_STREAMS=3 STACK_EXECUTORS=3
composed up -d --no-deps --no-recreate stream executor
wait_for "3 streams have partitions" says 'count(tarmac_stream_assigned > 0)' 3
wait_for "3 executors are well" says 'count(up{job="executor"} == 1)' 3
slots=$(compose run --rm -T --no-deps train doctor | grep -o '[0-9]* tasks at a time')
say "  the cluster has $slots"
[[ $slots == "$((3 * $(nproc))) tasks at a time" ]] || fail "an executor is missing"
end_load "while it grew"

# ---------------------------------------------------------------------------- it becomes a newer one
say "all of ours become a newer image"
start_load
export STACK_IMAGE=tarmac:newer
composed up -d --no-deps --wait scheduler executor stream
composed up -d --no-deps --wait web
for service in scheduler executor stream web; do
  for container in $(containers "$service"); do
    version=$(docker inspect -f '{{index .Config.Labels "org.opencontainers.image.version"}}' "$container")
    [[ $version == 0.1.1 ]] || fail "$service is of $version"
  done
done
end_load "while they were replaced"

# -------------------------------------------------------------------------- it is taken down and up
say "down, and up again with what there was"
composed down --timeout 60
composed up -d --wait
n_answers=$(count_answers)
say "  $n_answers answers are still there"
((n_answers >= 100)) || fail "answers are lost"
is_asked && wait_for "a question is answered" is_answered

# -------------------------------------------------------------------------- all is lost and put back
say "a backup is saved, all is lost, and it is put back"
n_before=$(count_answers)
asked_before=$id
models=$(list_models)
docker/backup.sh save "$WORK/backup" >"$WORK/said" 2>&1 || { cat "$WORK/said" >&2; fail "it cannot be saved"; }
du -sh "$WORK/backup" | sed 's/^/  /' >&2
composed down -v --timeout 10
composed up -d --wait
((n_before > $(count_answers))) || fail "nothing was lost"
docker/backup.sh restore "$WORK/backup" >"$WORK/said" 2>&1 || { cat "$WORK/said" >&2; fail "it cannot be put back"; }
[[ $(count_answers) == "$n_before" ]] || fail "$n_before answers were saved, $(count_answers) are there"
id=$asked_before
is_answered || fail "the page does not know what was answered before"
[[ $(list_models) == "$models" ]] || fail "models were lost"
is_asked && wait_for "a question is answered" is_answered

# ------------------------------------------------------------------------------------------- it ends
composed down -v --timeout 60
for kind in container volume network; do
  filter=(--filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME")
  [[ $kind == container ]] && filter+=(-a)
  left=$(docker "$kind" ls -q "${filter[@]}")
  [[ -z $left ]] || fail "left behind: $kind $left"
done
say "taken down; nothing is left"
