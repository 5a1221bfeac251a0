#!/usr/bin/env bash
# Asks a running web server everything that its OpenAPI document allows, and much that it does not:
# no answer may be a server's fault, have a status that the document does not name, or be of another
# type than it says.
#
#   bench/schemathesis.sh http://127.0.0.1:5000 [OPTION OF SCHEMATHESIS...]
#
# Event streams stay open until an answer comes, so they are left out. The server must allow one
# client as much: submit-job web --requests-per-second 1000000
set -euo pipefail
cd "$(dirname "$0")/.."

venv=target/schemathesis
if [[ ! -x $venv/bin/schemathesis ]]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet schemathesis==4.32.5
fi
"$venv/bin/schemathesis" run "$1/openapi.json" \
  --checks not_a_server_error,status_code_conformance,content_type_conformance,unsupported_method \
  --exclude-path '/flights/delays/predict/classify_realtime/response/{id}/events' \
  --max-examples 50 --request-timeout 8 "${@:2}"
