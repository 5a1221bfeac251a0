#!/usr/bin/env bash
# Tries what make.sh made as those do who install it: checksums; the wheel in a fresh environment, up to
# the demo's first answer; the archive; the Debian package in a system of its own.
#
#   release/test.sh [DIRECTORY]     by default target/release-files
#
# Needs Python 3 with pip; for the package root and mmdebstrap, or it is only looked into.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'release/test.sh: %s\n' "$1" >&2; exit 1; }
say() { printf 'release/test.sh: %s\n' "$1" >&2; }

OUT=$(realpath "${1:-${CARGO_TARGET_DIR:-$PWD/target}/release-files}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

(cd "$OUT" && sha256sum --check --quiet SHA256SUMS) || fail "the checksums are of other files"

python3 -m venv "$work/venv"
started=$SECONDS
"$work/venv/bin/pip" --disable-pip-version-check install -q --no-index "$OUT"/*.whl
(cd "$work" && env -i HOME="$work" PATH=/usr/bin:/bin "$work/venv/bin/submit-job" demo --once --listen 127.0.0.1:0) >"$work/demo" 2>&1 ||
  { cat "$work/demo"; fail "the demo of the wheel does not answer"; }
grep -q 'answered in' "$work/demo" || fail "the demo says nothing of an answer"
took=$((SECONDS - started))
say "from the wheel to the first answer: $took s"

tar -xzf "$OUT"/tarmac-*.tar.gz -C "$work"
program=$(echo "$work"/tarmac-*/submit-job)
[[ $("$program" --version) == "submit-job "* ]] || fail "the program of the archive does not start"
# what it needs of the system is the C library and nothing else
needed=$(objdump -p "$program" | awk '$1 == "NEEDED" && $2 !~ /^(lib(c|m|gcc_s|pthread|dl|rt)\.so|ld-linux)/ { print $2 }')
[[ -z $needed ]] || fail "the program needs $needed"
glibc=$(objdump -T "$program" | grep -o 'GLIBC_2\.[0-9]*' | sort -uV | tail -n 1)
[[ $(printf '%s\n' "$glibc" GLIBC_2.36 | sort -V | tail -n 1) == GLIBC_2.36 ]] ||
  fail "the program needs $glibc, and README.md says 2.36"
say "the program: $(($(stat -c %s "$program") / 1000000)) MB, for $glibc"
python3 - "$OUT"/*.cdx.json <<'PY'
import json, sys
said = json.load(open(sys.argv[1]))
names = {part["name"] for part in said["components"]}
assert {"datafusion", "rdkafka", "mongodb", "openssl-src"} <= names, sorted(names)[:10]
print(f"release/test.sh: the list of parts has {len(names)} names", file=sys.stderr)
PY

dpkg-deb --info "$OUT"/*.deb >/dev/null
if [[ $(id -u) == 0 ]] && command -v mmdebstrap >/dev/null; then
  cat >"$work/try" <<'TRY'
apt-get install -y -qq /tmp/*.deb >/dev/null
submit-job --version
systemd-analyze verify tarmac-web.service tarmac-stream.service
test "$(stat -c %U /var/lib/tarmac)" = tarmac
submit-job config show --config /etc/tarmac/tarmac.toml >/dev/null
man submit-job-train >/dev/null
apt-get purge -y -qq tarmac >/dev/null
test ! -e /usr/bin/submit-job
test ! -e /etc/tarmac/tarmac.toml
TRY
  # shellcheck disable=SC2016
  mmdebstrap --quiet --variant=apt --include=ca-certificates,systemd,man-db \
    --customize-hook="copy-in $work/try $(echo "$OUT"/*.deb) /tmp" \
    --customize-hook='chroot "$1" sh -e /tmp/try' bookworm /dev/null
  say "the package is installed, its units are right, and nothing is left of it"
fi
((took < 60)) || fail "a minute is too long for a first answer"
