#!/usr/bin/env bash
# Runs a single Kafka broker (KRaft) on 127.0.0.1 in the foreground, until SIGTERM or SIGKILL.
#
#   kafka.sh LIBS_DIR WORK_DIR PORT [CONTROLLER_PORT [TLS_DIR]]
#
# WORK_DIR keeps the records: start again on the same directory, on any ports, to find them.
# The log is WORK_DIR/kafka.log. CONTROLLER_PORT is PORT+1 when not given or empty.
# With TLS_DIR (ca.pem, cert.pem for 127.0.0.1 and its key.pem) clients come over TLS, as the user
# `tarmac` with the password `a secret word`, by SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN. The SCRAM
# user is made with the data: give TLS_DIR from the first start on.
# ADVERTISED is the host and port that clients are told, when it is not where the broker listens.
# When OWNER_PID is set, the broker is killed as soon as that process has gone.
set -euo pipefail

if (($# < 3 || $# > 5)); then
  sed -n '2,/^set/{/^#/s/^# \?//p}' "$0" >&2
  exit 2
fi
mkdir -p "$2"
libs=$(realpath "$1") work=$(realpath "$2") port=$3 controller=${4:-$(($3 + 1))}
ls "$libs"/kafka_2.13-*.jar >/dev/null || exit 2
protocol=PLAINTEXT user=tarmac password='a secret word'
if [[ -n ${5:-} ]]; then
  protocol=SASL_SSL tls=$(realpath "$5")
fi

# One broker, one replica of everything. Records of any age are kept (the flights are from years
# back), and a broker that was killed may return quickly (session timeout).
cat >"$work/server.properties" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
listeners=$protocol://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=$protocol://${ADVERTISED:-127.0.0.1:$port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=$protocol
listener.security.protocol.map=$protocol:$protocol,CONTROLLER:PLAINTEXT
log.dirs=$work/data
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.retention.ms=-1
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=2
background.threads=2
log.cleaner.dedupe.buffer.size=8388608
EOF

# The broker calls itself (for transactions) on the same listener: as the user, by PLAIN, the only
# mechanism that needs nothing from the data.
scram=()
if [[ $protocol == SASL_SSL ]]; then
  (umask 077 && cat "$tls/key.pem" "$tls/cert.pem" >"$work/keystore.pem")
  jaas=org.apache.kafka.common.security
  cat >>"$work/server.properties" <<EOF
ssl.keystore.type=PEM
ssl.keystore.location=$work/keystore.pem
ssl.truststore.type=PEM
ssl.truststore.location=$tls/ca.pem
sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config=$jaas.plain.PlainLoginModule required username="$user" password="$password" user_$user="$password";
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=$jaas.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=$jaas.scram.ScramLoginModule required;
EOF
  for mechanism in SCRAM-SHA-512 SCRAM-SHA-256; do
    scram+=(--add-scram "$mechanism=[name=$user,password=$password]")
  done
fi

mkdir -p "$work/tmp"
java=(java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:-UsePerfData
  -Djava.net.preferIPv4Stack=true -Djava.io.tmpdir="$work/tmp"
  -Dorg.slf4j.simpleLogger.defaultLogLevel=warn
  -Dorg.slf4j.simpleLogger.showDateTime=true
  "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS"
  -cp "$libs/*")
# Classes loaded beforehand, made by install.sh: halves the start. Java ignores an unfit archive.
if [[ -e $libs/../kafka.jsa ]]; then
  java+=(-XX:SharedArchiveFile="$libs/../kafka.jsa")
fi

# Formatted aside, then renamed: a start that is interrupted leaves nothing half-made behind.
if [[ ! -e $work/data/meta.properties ]]; then
  rm -rf "$work/data" "$work/data.new"
  sed "s|^log.dirs=.*|log.dirs=$work/data.new|" "$work/server.properties" >"$work/format.properties"
  "${java[@]}" -Xmx128m kafka.tools.StorageTool format \
    -t dGFybWFjLXRlc3Qta2Fmaw -c "$work/format.properties" "${scram[@]}" >>"$work/kafka.log" 2>&1 ||
    { tail -n 20 "$work/kafka.log" >&2; exit 1; }
  mv "$work/data.new" "$work/data"
fi

if [[ -n ${OWNER_PID:-} ]]; then
  (while kill -0 "$OWNER_PID" && kill -0 $$; do sleep 1; done; kill -9 $$) </dev/null >/dev/null 2>&1 &
fi
exec "${java[@]}" -Xms128m -Xmx512m kafka.Kafka "$work/server.properties" >>"$work/kafka.log" 2>&1
