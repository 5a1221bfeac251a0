#!/usr/bin/env bash
# Keeps killing jobs, broker and database under a stream of requests, and holds every answer against
# what was sent (submit-job/tests/system/torture.rs). The tests do a short run of it; this is a long one.
#
#   bench/torture.sh [NAME=NUMBER...]     faults=220 requests=100000 rate=200 jobs=2 mongods=3 seed=…
set -euo pipefail
cd "$(dirname "$0")/.."

tests/servers/install.sh target/servers >&2
TARMAC_TORTURE="faults=220 requests=100000 rate=200 $*" cargo test --workspace --test system -- \
  --nocapture every_request_is_answered_once_whatever_dies
