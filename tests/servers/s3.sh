#!/usr/bin/env bash
# Runs an S3 server on 127.0.0.1 in the foreground, until SIGTERM or SIGKILL. It keeps nothing.
#
#   s3.sh PACKAGES_DIR PORT
set -euo pipefail
if (($# != 2)); then
  sed -n '2,/^set/{/^#/s/^# \?//p}' "$0" >&2
  exit 2
fi
export PYTHONPATH=$1
exec python3 -m moto.server -H 127.0.0.1 -p "$2"
