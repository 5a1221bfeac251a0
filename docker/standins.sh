# shellcheck shell=bash
# Sourced by test.sh: has the images of compose.yaml, pulled where that is possible and else made
# here under their names. Needs engine.sh.

# need_images SERVERS DIRECTORY: those that compose.yaml names, apart from ours. SERVERS is what
# tests/servers/install.sh filled; what is made is kept in DIRECTORY.
need_images() {
  local servers=$1 directory=$2 image target
  local -A targets=([kafka]=kafka [mongo]=mongo [versitygw]=s3 [prometheus]=prometheus [rclone]=rclone)
  while read -r image; do
    docker image inspect "$image" >/dev/null 2>&1 && continue
    timeout 60 "${DOCKER:-docker}" pull -q "$image" >/dev/null 2>&1 && continue
    [[ -n ${ENGINE:-} ]] || fail "$image cannot be pulled: docker pull $image says why"
    target=$(basename "${image%%:*}")
    [[ -n ${targets[$target]:-} ]] || fail "$image cannot be pulled, and has no stand-in"
    say "$image cannot be pulled; a stand-in is made"
    stand_in_context "$servers" "$directory"
    docker build -q -f docker/standins/Dockerfile --target "${targets[$target]}" -t "$image" \
      "$directory/context" >/dev/null
  done < <(compose --profile '*' config --images | sort -u | grep -v '^tarmac')
}

# What the stand-ins are made of, once.
stand_in_context() {
  local servers=$1 directory=$2
  local context=$directory/context
  need_base base "$directory/base.tar" ca-certificates curl wget bash procps default-jre-headless \
    prometheus rclone libcurl4 liblzma5 libssl3 libstdc++6
  [[ -e $context/ready ]] && return
  mkdir -p "$context/mongosh" "$context/kafka"
  cp -rl "$servers/kafka/libs" "$context/kafka/" 2>/dev/null || cp -r "$servers/kafka/libs" "$context/kafka/"
  cp -L "$servers/mongod" "$context/mongod"
  cp -L "$(command -v node)" "$context/node"
  cp docker/standins/*.sh "$context/"
  npm install --silent --no-audit --no-fund --prefix "$context/mongosh" mongosh@2.5.8 >/dev/null
  command -v go >/dev/null || fail "the S3 server is built with Go: apt-get install golang"
  GOBIN=$(realpath "$context") CGO_ENABLED=0 go install -trimpath -ldflags '-s -w' \
    github.com/versity/versitygw/cmd/versitygw@v1.8.0
  touch "$context/ready"
}
