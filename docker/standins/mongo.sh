#!/usr/bin/env bash
# Starts mongod as the official image does: what begins with a hyphen are its arguments.
set -euo pipefail
[[ ${1:-} == -* ]] && set -- mongod "$@"
exec "$@"
