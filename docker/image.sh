#!/usr/bin/env bash
# Makes the image around a program that was built before, and tries it as a container that may do
# nothing: not root, no capabilities, a root file system that cannot be written.
#
#   docker/image.sh [PROGRAM]     by default target/dist/submit-job, or target/debug/submit-job
#
# Starts an engine where none answers (as root), and makes a base of Debian's packages where the
# real one cannot be pulled.
set -euo pipefail
cd "$(dirname "$0")/.."
. docker/engine.sh

TARGET=${CARGO_TARGET_DIR:-$PWD/target}
PROGRAM=${1:-$TARGET/dist/submit-job}
[[ -x $PROGRAM || $# -gt 0 ]] || PROGRAM=$TARGET/debug/submit-job
[[ -x $PROGRAM ]] || fail "$PROGRAM is not there; cargo build makes it"
BASE=gcr.io/distroless/cc-debian12:nonroot
IMAGE=tarmac:test
NAME=tarmac-image-$$

clean_up() {
  docker rm -f "$NAME" >/dev/null 2>&1 || true
  docker volume rm "$NAME" >/dev/null 2>&1 || true
  stop_engine
}
trap clean_up EXIT

start_engine "$TARGET/docker"
need_base "$BASE" "$TARGET/docker/cc-debian12.tar" libc6 libgcc-s1 libssl3 ca-certificates

strip -o docker/program/submit-job "$PROGRAM"
docker build -q -f docker/Dockerfile --build-arg PROGRAM=given \
  --build-arg REVISION="$(git rev-parse HEAD 2>/dev/null || echo unknown)" -t "$IMAGE" . >/dev/null
rm docker/program/submit-job

size() { docker image inspect -f '{{.Size}}' "$1"; }
added=$((($(size "$IMAGE") - $(size "$BASE")) / 1000000))
say "the image adds $added MB to its base, of which the program is all but some kilobytes"
[[ $(docker image inspect -f '{{.Config.User}}' "$IMAGE") == 65532:65532 ]] || fail "it runs as root"

container() {
  docker run --name "$NAME" --read-only --cap-drop ALL --security-opt no-new-privileges \
    --memory 3g --pids-limit 512 -v "$NAME:/data" "$@"
}

say "what is in the image is the program:"
docker run --rm --network none "$IMAGE" --version

say "the demo, until it has answered, without a network"
container --rm --network none "$IMAGE" demo --once
docker volume rm "$NAME" >/dev/null

say "the demo, as a service"
container -d -p 127.0.0.1::5000 "$IMAGE" >/dev/null
ADDRESS=http://$(docker port "$NAME" 5000/tcp | head -n 1)
started=$SECONDS

# Tries a command until it succeeds; fails after some minutes, with what the container said last.
wait_for() {
  local what=$1
  shift
  until "$@"; do
    ((SECONDS - started < 300)) || { docker logs --tail 20 "$NAME" >&2; fail "$what: not within 300 s"; }
    sleep 1
  done
  say "$what after $((SECONDS - started)) s"
}

is_healthy() { [[ $(docker inspect -f '{{.State.Health.Status}}' "$NAME") == healthy ]]; }
ask=$ADDRESS/flights/delays/predict/classify_realtime
flight='DepDelay=15&Carrier=AA&FlightDate=2013-12-25&Origin=JFK&Dest=LAX&FlightNum=1'
is_asked() { id=$(curl -sf "$ask" -d "$flight" | grep -o '[0-9a-f-]\{36\}' | head -n 1); }
is_answered() { [[ $(curl -sf "$ask/response/$id") == *Prediction* ]]; }
wait_for "healthy at $ADDRESS" is_healthy
wait_for "a question is taken" is_asked
wait_for "it is answered" is_answered
docker stats --no-stream --format 'memory: {{.MemUsage}}' "$NAME" >&2

docker stop -t 40 "$NAME" >/dev/null
code=$(docker inspect -f '{{.State.ExitCode}}' "$NAME")
[[ $code == 0 ]] || fail "told to end, it ended with $code"
say "told to end, it ended with 0; what it wrote is in its volume alone"
