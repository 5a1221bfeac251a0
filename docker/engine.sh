# shellcheck shell=bash
# Sourced by the scripts of this directory: an engine to talk to, and base images.

# The client of the engine's package: another one on the PATH may know no BuildKit.
docker() { command "${DOCKER:-docker}" "$@"; }

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "$*"
  exit 1
}

# Starts an engine of its own in DIRECTORY where none answers; stop_engine ends it.
start_engine() {
  local directory=$1
  [[ -x /usr/bin/docker ]] && DOCKER=/usr/bin/docker
  export DOCKER_BUILDKIT=1
  docker info >/dev/null 2>&1 && return
  command -v dockerd >/dev/null || fail "there is no Docker engine: apt-get install docker.io"
  [[ $(id -u) == 0 ]] || fail "no Docker engine answers, and only root can start one"
  mkdir -p "$directory"
  say "starting a Docker engine in $directory"
  export DOCKER_HOST=unix://$directory/engine.sock
  dockerd --host "$DOCKER_HOST" --data-root "$directory/data" --exec-root "$directory/run" \
    --pidfile "$directory/pid" --default-ulimit nofile=20000:20000 >"$directory/log" 2>&1 &
  ENGINE=$!
  local waited
  for ((waited = 0; waited < 300; waited++)); do
    docker info >/dev/null 2>&1 && return
    kill -0 "$ENGINE" 2>/dev/null || break
    sleep 0.2
  done
  tail -n 5 "$directory/log" >&2
  fail "the Docker engine does not start; see $directory/log"
}

stop_engine() {
  [[ -z ${ENGINE:-} ]] || { kill "$ENGINE" && wait "$ENGINE"; } 2>/dev/null || true
}

# Has a base image that holds at least PACKAGES of Debian: the real one where it can be pulled, or
# else a stand-in under its name.
need_base() {
  local image=$1 file=$2
  shift 2
  docker image inspect "$image" >/dev/null 2>&1 && return
  timeout 60 "${DOCKER:-docker}" pull -q "$image" >/dev/null 2>&1 && return
  # nobody else's engine has images that only look like others
  [[ -n ${ENGINE:-} ]] || fail "$image cannot be pulled: docker pull $image says why"
  command -v mmdebstrap >/dev/null || fail "$image cannot be pulled: apt-get install mmdebstrap"
  say "$image cannot be pulled; a stand-in is made of Debian's packages"
  [[ -s $file ]] || mmdebstrap -q --variant=minbase --include="$(IFS=,; echo "$*")" bookworm "$file"
  docker import "$file" "$image" >/dev/null
}
