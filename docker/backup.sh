#!/usr/bin/env bash
# Saves what cannot be made again of the stack that runs, or puts it back.
#
#   docker/backup.sh save DIRECTORY       into a directory that is made: database, models, distances
#   docker/backup.sh restore DIRECTORY    in the place of what is there
#
# The database is saved as it is at one moment, for which writing waits some seconds: answers, and how
# far the stream is, belong together. It is put back into a MongoDB of the same release. What is not
# saved: flights, which come from their source, and requests that wait in Kafka.
set -euo pipefail
cd "$(dirname "$0")"
if (($# != 2)) || [[ $1 != save && $1 != restore ]]; then
  sed -n '2,/^set/{/^#/s/^# \?//p}' "$0" >&2
  exit 2
fi
mkdir -p "$2"
STACK_BACKUP=$(cd "$2" && pwd)
export STACK_BACKUP

compose() { docker compose -f compose.yaml "$@"; }

# One command of mongosh.
mongo() { compose exec -T mongodb mongosh --quiet --norc --eval "$1" >/dev/null; }

# rclone between the data root and the backup; of each place below the root. What is there no more on
# one side must not be on the other: a second set of distances is no addition to the first.
mirror() {
  local place
  for place in models distances; do
    compose run --rm -T --no-deps backup sync "${1//PLACE/$place}" "${2//PLACE/$place}"
  done
}

case $(compose config --format json | grep -o '"TARMAC_DATA": "[^"]*"' | head -n 1 | cut -d '"' -f 4) in
  s3://*) root=s3:flights/tarmac ;;
  *) root=/data/root ;;
esac

if [[ $1 == save ]]; then
  mirror "$root/PLACE" "/backup/PLACE"
  trap 'mongo "db.fsyncUnlock()" || true' EXIT
  mongo 'db.fsyncLock()'
  # of directories nothing is kept: temporary files come and go in them
  compose exec -T mongodb bash -c "cd /data/db && find . -type f ! -name mongod.lock \
    ! -path './diagnostic.data/*' -print0 | tar --null --files-from=- -cz" >"$STACK_BACKUP/mongodb.tar.gz.new"
  mongo 'db.fsyncUnlock()'
  trap - EXIT
  mv "$STACK_BACKUP/mongodb.tar.gz.new" "$STACK_BACKUP/mongodb.tar.gz"
else
  [[ -s $STACK_BACKUP/mongodb.tar.gz ]] || { echo "$2 has no mongodb.tar.gz" >&2; exit 1; }
  compose stop web stream mongodb
  compose run --rm -T --no-deps --entrypoint bash mongodb \
    -c 'find /data/db -mindepth 1 -delete && tar -C /data/db -xz' <"$STACK_BACKUP/mongodb.tar.gz"
  mirror "/backup/PLACE" "$root/PLACE"
  compose up -d --no-deps --wait mongodb stream web
fi
