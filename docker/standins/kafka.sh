#!/usr/bin/env bash
# Starts a broker as the official image does: KAFKA_LOG_DIRS is log.dirs, and so on.
set -euo pipefail
properties=/opt/kafka/config/server.properties
while IFS='=' read -r name value; do
  case $name in
    KAFKA_HEAP_OPTS | KAFKA_OPTS | KAFKA_JVM_PERFORMANCE_OPTS) ;;
    KAFKA_*)
      name=${name#KAFKA_}
      name=${name//_/.}
      echo "${name,,}=$value"
      ;;
  esac
done < <(env) >"$properties"
data=${KAFKA_LOG_DIRS:-/var/lib/kafka/data}
# shellcheck disable=SC2086
run() { command java -XX:+UseSerialGC ${KAFKA_HEAP_OPTS:-} -cp '/opt/kafka/libs/*' "$@"; }
[[ -e $data/meta.properties ]] ||
  run kafka.tools.StorageTool format -t "$CLUSTER_ID" -c "$properties"
# shellcheck disable=SC2086
exec java -XX:+UseSerialGC ${KAFKA_HEAP_OPTS:-} -cp '/opt/kafka/libs/*' \
  -Dorg.slf4j.simpleLogger.defaultLogLevel=warn kafka.Kafka "$properties"
