#!/usr/bin/env bash
# Saves what cannot be made again into a bucket, under the day: gcp/backup.sh BUCKET
set -euo pipefail
bucket=$1
work=$(mktemp -d /var/tmp/tarmac-backup.XXXXXX)
trap 'rm -rf "$work"' EXIT
"$(dirname "$0")/../backup.sh" save "$work"
gcloud storage cp --recursive --no-user-output-enabled "$work"/* "gs://$bucket/$(date -u +%Y-%m-%d)/"
