#!/usr/bin/env bash
# The one test command: installs the servers that tests talk to, then builds and runs all tests.
#
#   ./test.sh [arguments for cargo test]
#   ./test.sh fast [arguments for cargo test]     what needs no more than `cargo run`
#
# Needs Rust, a C and C++ compiler with make, OpenSSL's headers, Java 17, Maven, Python 3 with pip,
# and Node.js; Chromium is installed where that is possible (see tests/servers/install.sh).
set -euo pipefail
cd "$(dirname "$0")"

if [[ ${1-} == fast ]]; then
  shift
  # the brokers of these tests are librdkafka's own, and their store is SQLite
  exec cargo test --workspace --lib --bins --test decode --test it --test serve --test tidy "$@"
fi

export TARMAC_TEST_SERVERS="$PWD/target/servers"
tests/servers/install.sh "$TARMAC_TEST_SERVERS"

# two at a time: the end-to-end tests start servers of their own
cargo test --workspace "$@" -- --test-threads=2
