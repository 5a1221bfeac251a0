//! A broker that wants TLS and a SCRAM or PLAIN password, and a MongoDB that wants TLS and a user:
//! reached by configuration, with the secrets in the environment or a file, and in no log.

use std::path::Path;
use std::process::Command;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::servers::{Kafka, MongoSet, tls_options};
use crate::setup::{DEADLINE, REQUESTS, request, run, submit_job, uuid};
use crate::tls::make_certificates;

/// As `tests/servers/kafka.sh` has it.
const PASSWORD: &str = "a secret word";

/// `submit-job stream`, for what is there, with the secrets where they belong.
fn stream(data: &Path, kafka: &Kafka, mechanism: &str, tls: &Path) -> Command {
    let mut stream = submit_job(data);
    stream
        .args(["stream", "--kafka", &kafka.address(), "--trigger", "available-now"])
        .args(["--kafka-conf", "security.protocol=SASL_SSL", "--group", mechanism])
        .args(["--kafka-conf", &format!("sasl.mechanism={mechanism}")])
        .args(["--kafka-conf", &format!("ssl.ca.location={}", tls.join("ca.pem").display())])
        .args(["--kafka-conf", "sasl.username=tarmac"])
        .args([Path::new("--mongo-file"), &data.join("mongo.url")])
        .env("TARMAC_KAFKA_CONF_SASL_PASSWORD", PASSWORD);
    stream
}

/// Without the user, without TLS, or with a wrong name: it is said why, and no secret with it.
fn nobody_else_is_let_in(data: &Path, kafka: &Kafka, tls: &Path) {
    for (wrong, says) in [
        (&["--mongo-file", "no-user.url"][..], "does not let us in"),
        (&["--mongo-file", "no-tls.url"], "no MongoDB answers at"),
        (&["--kafka-conf", "sasl.username=somebody"], "no Kafka broker answers"),
        (&["--kafka-conf", "security.protocol=PLAINTEXT"], "no Kafka broker answers"),
        (&["--kafka-conf", "sasl.password=x"], "TARMAC_KAFKA_CONF_SASL_PASSWORD"),
        (&["--kafka-conf", "enable.idempotence=false"], "enable.idempotence cannot be set"),
    ] {
        let mut command = stream(data, kafka, "PLAIN", tls);
        if let ["--mongo-file", file] = wrong {
            let line: Vec<_> = command.get_args().map(|arg| arg.to_owned()).collect();
            command = submit_job(data);
            command.args(&line[2..line.len() - 1]).arg(data.join(file));
            command.env("TARMAC_KAFKA_CONF_SASL_PASSWORD", PASSWORD);
        } else {
            command.args(wrong);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(says), "{wrong:?}: {said}");
        assert!(!said.contains("secret word") && !said.contains("secret%20word"), "{said}");
    }
}

#[tokio::test]
async fn servers_with_tls_and_users_are_reached_and_no_secret_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let tls = directory.path().join("tls");
    let data = directory.path().join("data");
    std::fs::create_dir_all(&tls).unwrap();
    std::fs::create_dir_all(&data).unwrap();
    make_certificates(&tls);
    let kafka = Kafka::start(&directory.path().join("kafka"), Some(&tls));
    let mongo = MongoSet::start(&directory.path().join("mongo"), 1, Some(&tls));
    mongo.initiate().await;
    let user = doc! { "createUser": "tarmac", "pwd": PASSWORD, "roles": ["readWriteAnyDatabase"] };
    mongo.admin(0).await.run_command(user).await.unwrap();
    let open = format!("{}{}", mongo.url(), tls_options(&tls));
    let login = "mongodb://tarmac:a%20secret%20word@";
    let url = format!("{}&authSource=admin", open.replace("mongodb://", login));
    std::fs::write(data.join("mongo.url"), format!("{url}\n")).unwrap();
    let ca = tls.join("ca.pem").display().to_string();
    let properties = [
        ("security.protocol", "SASL_SSL"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", "tarmac"),
        ("sasl.password", PASSWORD),
        ("ssl.ca.location", &ca),
    ];
    kafka.wait(&properties);

    run(submit_job(&data).args(["ingest", "--rejects-max", "0.5", "data/fixtures/bts_new.csv"]));
    run(submit_job(&data).args(["train", "--json", "--trees", "3"]));
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.address());
    properties.iter().for_each(|(name, value)| _ = config.set(*name, *value));
    let answers = Client::with_uri_str(&url).await.unwrap().database("agile_data_science");
    let answers = answers.collection::<Document>("flight_delay_classification_response");
    for (number, mechanism) in (0..).zip(["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"]) {
        // the first run makes the topics
        let mut first = stream(&data, &kafka, mechanism, &tls);
        let first = first.env("RUST_LOG", "debug").output().unwrap();
        let said = String::from_utf8_lossy(&first.stderr);
        assert!(first.status.success(), "{said}");
        assert!(!said.contains("secret word") && !said.contains("secret%20word"), "{said}");
        let producer: FutureProducer = config.create().unwrap();
        let value = request(number, "UA", "EWR", "IAH", 5.0).to_string();
        let record = FutureRecord::<(), _>::to(REQUESTS).payload(&value);
        producer.send(record, DEADLINE).await.unwrap();
        run(&mut stream(&data, &kafka, mechanism, &tls));
        let answer = answers.find_one(doc! { "_id": uuid(number) }).await.unwrap();
        assert!(answer.is_some(), "{mechanism}");
    }

    std::fs::write(data.join("no-user.url"), open).unwrap();
    std::fs::write(data.join("no-tls.url"), mongo.url()).unwrap();
    nobody_else_is_let_in(&data, &kafka, &tls);
    let mut help = submit_job(&data);
    let help = run(help.args(["stream", "--help"]).env("TARMAC_MONGO", &url));
    assert!(!help.contains("secret%20word"), "{help}");
}
