#!/usr/bin/env bash
# Makes what people install who have no compiler, for x86-64 Linux with glibc: a wheel, an archive, a
# Debian package, the list of what is in the program (CycloneDX), and checksums.
#
#   release/make.sh [DIRECTORY]     by default target/release-files
#
# Needs Rust and Python 3 with pip; takes most of an hour on two cores the first time.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'release/make.sh: %s\n' "$1" >&2; exit 1; }

TARGET=$(realpath -m "${CARGO_TARGET_DIR:-target}")
OUT=$(realpath -m "${1:-$TARGET/release-files}")
[[ ! -e $OUT || -e $OUT/SHA256SUMS ]] || fail "$OUT is there, and holds no release"
export CARGO_TARGET_DIR=$TARGET
[[ $(uname -sm) == "Linux x86_64" ]] || fail "this is for x86-64 Linux"
[[ -z $(git status --porcelain) ]] || fail "there are changes that are not committed"
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
NAME=tarmac-$VERSION-x86_64-unknown-linux-gnu
# the time of all files; not exported, or all of C is compiled again for each commit
COMMITTED=$(git log -1 --format=%ct)

tools=$TARGET/tools/release
if [[ $(cat "$tools/from" 2>/dev/null) != $(sha256sum <release/tools.txt) ]]; then
  rm -rf "$tools"
  python3 -m venv "$tools"
  "$tools/bin/pip" --disable-pip-version-check install -q -r release/tools.txt
  sha256sum <release/tools.txt >"$tools/from"
fi
# does nothing where they are there
cargo install --quiet --locked --root "$TARGET/tools" cargo-deb@3.8.0 cargo-cyclonedx@0.5.9
export PATH=$tools/bin:$TARGET/tools/bin:$PATH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
made=$work/made
mkdir "$made"
# functions that are the same once they are compiled are linked once, unless their address is taken
(cd release && maturin build --out "$made" -- -C link-arg=-Wl,--icf=safe)
PROGRAM=$TARGET/dist/submit-job

mkdir -p "$work/$NAME/completions"
cp "$PROGRAM" README.md LICENSE CHANGELOG.md docs/tarmac.toml "$work/$NAME/"
"$PROGRAM" man "$work/$NAME/man"
for shell in bash zsh fish; do
  "$PROGRAM" completions "$shell" >"$work/$NAME/completions/submit-job.$shell"
done
tar --create --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --mtime="@$COMMITTED" \
  --directory "$work" "$NAME" | gzip --no-name --best >"$made/$NAME.tar.gz"

# where Cargo.toml of the program says that the rest of the package is
rm -rf release/build
cp -r "$work/$NAME" release/build
gzip --no-name --best release/build/man/*
cargo deb --quiet --no-build --no-strip --profile dist -p submit-job --output "$made"

cargo cyclonedx --quiet --manifest-path submit-job/Cargo.toml --features vendored-openssl --all \
  --format json --target x86_64-unknown-linux-gnu --override-filename "$NAME.cdx"
mv "submit-job/$NAME.cdx.json" "$made/"
find . -name "$NAME.cdx.json" -not -path './target/*' -delete

(cd "$made" && sha256sum -- * >SHA256SUMS)
rm -rf "$OUT"
mv "$made" "$OUT"
ls -l "$OUT" >&2
