//! What the clients of others send: every codec, batches that are damaged, messages that are too large
//! for the topic they must go to, odd spellings, headers.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use mongodb::bson::doc;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::setup::{
    DEAD_LETTERS, DEADLINE, REJECTED, REQUESTS, Stream, World, get, request, run, submit_job,
    until, uuid,
};

const CODECS: [&str; 4] = ["gzip", "snappy", "lz4", "zstd"];

#[tokio::test]
async fn requests_are_read_in_every_codec_of_kafka() {
    let world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    let line = |number| request(number, "UA", "EWR", "IAH", 5.0).to_string();
    for (i, codec) in CODECS.into_iter().enumerate() {
        let first = 100 * i as u32;
        let lines: Vec<String> = (first..first + 40).map(line).collect();
        world.produce(REQUESTS, &["--compression-codec", codec], &lines);
    }
    world.catch_up(&[]);
    assert_eq!(world.answers().await.len(), 160);
    // and when the broker compresses them
    for (i, codec) in CODECS.into_iter().enumerate() {
        let topic = format!("compressed-{codec}");
        world.make_topic_with(&topic, 1, &[("compression.type", codec)]).await;
        world.produce(&topic, &[], &[line(1000 + i as u32)]);
        world.catch_up(&["--request-topic", &topic]);
        world.answer(1000 + i as u32).await;
    }
}

/// Overwrites some bytes of a batch in the broker's files, behind its back.
fn damage(directory: &Path, mark: &[u8]) {
    let segment = directory.join(format!("kafka/data/{REQUESTS}-0/00000000000000000000.log"));
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(mark.len()).rposition(|window| window == mark).unwrap();
    bytes[at + 3..at + 40].fill(0xee);
    fs::write(&segment, bytes).unwrap();
}

#[tokio::test]
async fn a_batch_that_cannot_be_read_is_named_and_makes_the_stream_unready() {
    let world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    world.ask(0..5).await;
    world.catch_up(&[]);
    let lines = [request(9, "UA", "EWR", "IAH", 5.0).to_string()];
    world.produce(REQUESTS, &["--compression-codec", "gzip"], &lines);
    // what gzip begins with
    damage(world.directory.path(), &[0x1f, 0x8b, 0x08]);

    let stream = Stream::start(&world, "s", &["--trigger", "interval:200ms"]);
    let unready = until("it is not ready", || {
        stream.meter("assigned").filter(|n| *n == 1.0)?;
        Some(get(stream.port, "/readyz")).filter(|reply| reply.contains("cannot be read at offset"))
    });
    let place = format!("{REQUESTS}/0 cannot be read at offset 5");
    assert!(unready.starts_with("HTTP/1.1 503") && unready.contains(&place), "{unready}");
    let mut hasty = world.stream(&["--trigger", "interval:200ms", "--group", "hasty"]);
    let hasty = hasty.args(["--give-up-after", "2"]).output().unwrap();
    let said = String::from_utf8_lossy(&hasty.stderr);
    assert!(!hasty.status.success() && said.contains(&place), "{said}");
    let log = stream.log();
    assert_eq!(log.matches("a batch cannot be read").count(), 1, "{log}");
    // an operator skips it
    let mut reset = submit_job(&world.data());
    reset.args(["stream", "offsets", "reset", "--to", "6"]);
    run(reset.args(["--kafka", &world.brokers, "--mongo", &world.mongo_url]));
    world.ask(10..11).await;
    until("it is fenced, or reads on", || {
        let fenced = stream.meter("fenced_total").filter(|n| *n > 0.0);
        fenced.or_else(|| get(stream.port, "/readyz").ends_with("ready\n").then_some(0.0))
    });
    world.answer(10).await;
    until("it is ready", || get(stream.port, "/readyz").ends_with("\r\n\r\nready\n").then_some(()));
    stream.process.end_cleanly("the stream");
}

#[tokio::test]
async fn what_does_not_fit_is_kept_as_a_stub_and_the_stream_goes_on() {
    let world = World::start().await;
    world.learn_little();
    world.make_topic_with(REQUESTS, 1, &[("max.message.bytes", "3000000")]).await;
    world.make_topic_with(DEAD_LETTERS, 1, &[("max.message.bytes", "100000")]).await;
    let padded = |number: u32, n_bytes: usize| {
        let mut message = request(number, "UA", "EWR", "IAH", 5.0);
        message["Padding"] = "x".repeat(n_bytes).into();
        message.to_string().into_bytes()
    };
    world.send(&padded(1, 200_000)).await;
    world.send(&padded(2, 70_000)).await;
    // many that fit each, and not together
    for number in 10..30 {
        world.send(&padded(number, 66_000)).await;
    }
    // reasons that parsers would make as long as the message: 140 times 64 KiB
    for number in 100..240 {
        let mut message = request(number, "UA", "EWR", "IAH", 5.0);
        message["DepDelay"] = "y".repeat(64_000).into();
        world.send(message.to_string().as_bytes()).await;
    }
    world.ask(3..4).await;
    world.catch_up(&[]);
    assert_eq!(world.answers().await.into_keys().collect::<Vec<_>>(), [uuid(3)]);
    let letters = world.read_all(DEAD_LETTERS);
    assert_eq!(letters.len(), 162);
    let stubs: Vec<_> =
        letters.iter().filter(|(_, h)| h.iter().any(|(k, _)| k == "tarmac.stub.bytes")).collect();
    let [(stub, _)] = &stubs[..] else { panic!("{} stubs", stubs.len()) };
    let stub: serde_json::Value = serde_json::from_slice(stub).unwrap();
    assert_eq!((&stub["Offset"], &stub["Topic"]), (&0.into(), &REQUESTS.into()));
    assert!(
        stub["Bytes"].as_u64().unwrap() > 200_000 && stub["Sha256"].as_str().unwrap().len() == 64
    );
    let rejected = world.documents_of(REJECTED, doc! {}).await;
    assert_eq!(rejected.len(), 162, "each sender is told");
    assert!(rejected.iter().all(|d| d.get_str("Reason").unwrap().len() <= 1024));

    let mut replay = submit_job(&world.data());
    let replay = replay.args(["dlq", "replay", "--kafka", &world.brokers]).output().unwrap();
    let said = String::from_utf8_lossy(&replay.stderr);
    assert!(replay.status.success() && said.contains("sent 161 letters"), "{said}");
    assert!(said.contains("1 are stubs"), "{said}");
}

#[tokio::test]
async fn the_sender_is_told_whatever_is_wrong_and_plain_meanings_are_read() {
    let world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    let text = |number: u32| request(number, "UA", "EWR", "IAH", 5.0).to_string();
    let registered = [&[0, 0, 0, 0, 9], text(6).as_bytes()].concat();
    let mut not_utf_8 = text(3).into_bytes();
    let at = not_utf_8.windows(4).position(|window| window == b"1519").unwrap();
    not_utf_8[at] = 0xff;
    let rejected: [(u32, Vec<u8>, &str); 8] = [
        (1, text(1).replace("5.0", "NaN").into_bytes(), "DepDelay"),
        (2, text(2).replace("5.0", "Infinity").into_bytes(), "DepDelay"),
        (3, not_utf_8, "not UTF-8"),
        (4, text(4).replace('}', ",}").into_bytes(), "trailing comma"),
        (5, text(5).replace("UA", &"U".repeat(2000)).into_bytes(), "exceeds the limit of 1500"),
        (6, registered, "schema registry (schema 9)"),
        (7, serde_json::to_vec(&text(7)).unwrap(), "encoded twice"),
        (8, text(8).replace("5.0", "\"5\"").into_bytes(), "DepDelay"),
    ];
    for (_, message, _) in &rejected {
        world.send(message).await;
    }
    let plain = uuid(20);
    let spellings = [
        text(20).replace(&plain, &plain.to_uppercase()),
        text(20).replace(&plain, &format!("{{{plain}}}")),
        text(20).replace(&plain, &format!("urn:uuid:{plain}")),
        format!("\u{feff}{}", text(21)),
        text(22).replace("\"1519\"", "1519"),
        text(23).replace("\"2016-12-20T10:00:00.000Z\"", "1482228000000"),
    ];
    for message in &spellings {
        world.send(message.as_bytes()).await;
    }
    world.catch_up(&["--message-bytes-max", "1500"]);
    for (number, _, reason) in &rejected {
        let told = world.documents_of(REJECTED, doc! { "_id": uuid(*number) }).await;
        let [told] = &told[..] else { panic!("{number}: {reason}") };
        assert!(told.get_str("Reason").unwrap().contains(reason), "{told}");
    }
    let answers = world.answers().await;
    assert_eq!(answers.keys().collect::<Vec<_>>(), [&plain, &uuid(21), &uuid(22), &uuid(23)]);
    assert_eq!(answers[&uuid(22)].get_str("FlightNum").unwrap(), "1519");
    assert_eq!(answers[&uuid(23)].get_str("Timestamp").unwrap(), "1482228000000");
}

#[tokio::test]
async fn headers_are_kept_with_a_dead_letter_and_sent_again() {
    let world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let pairs: [(&str, Option<&[u8]>); 4] = [
        ("traceparent", Some(trace.as_bytes())),
        ("binary", Some(&[0xff, 0])),
        ("none", None),
        ("__connect.errors.topic", Some(b"from before")),
    ];
    let headers = || {
        pairs.into_iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value })
        })
    };
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", &world.brokers).create().unwrap();
    let message = request(1, "UA", "EWR", "IAH", 5.0).to_string();
    let record = FutureRecord::to(REQUESTS).key("k").payload(&message).headers(headers());
    producer.send(record, DEADLINE).await.unwrap();
    world.catch_up(&["--message-bytes-max", "100"]);
    let mut replay = submit_job(&world.data());
    run(replay.args(["dlq", "replay", "--kafka", &world.brokers]));
    world.catch_up(&[]);
    world.answer(1).await;
    let requests = world.read_all(REQUESTS);
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0], requests[1], "with the headers that it came with, and no others");
    assert_eq!(requests[0].1[0], ("traceparent".to_owned(), trace.to_owned()));
    // its letter has them too, and ours after them
    let (_, letter) = &world.read_all(DEAD_LETTERS)[0];
    assert_eq!(letter[..4], requests[0].1[..]);
    assert_eq!(letter[4], ("__connect.errors.topic".to_owned(), REQUESTS.to_owned()));

    let mut unknown = submit_job(&world.data());
    unknown.args(["dlq", "list", "--kafka", &world.brokers, "--request-topic", "nowhere"]);
    let unknown = unknown.output().unwrap();
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert!(!unknown.status.success() && said.contains("there is no topic nowhere.dlq"), "{said}");
}

/// Sends one message over Kafka's own protocol: a client may name a header in any bytes, and the
/// clients that tests use do not.
fn produce_with_header(world: &World, name: &[u8], value: &[u8]) {
    let varint = |n: usize| -> Vec<u8> {
        // zigzag, then seven bits a byte
        let (mut rest, mut bytes) = (2 * n, Vec::new());
        while rest >= 0x80 {
            bytes.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        bytes.push(rest as u8);
        bytes
    };
    let sized = |bytes: &[u8]| [&(bytes.len() as i32).to_be_bytes(), bytes].concat();
    let text = |text: &str| [&(text.len() as i16).to_be_bytes(), text.as_bytes()].concat();
    // attributes, time and offset as they are; a key of length -1 is none
    let record = [
        &[0, 0, 0, 1][..],
        &varint(value.len()),
        value,
        &varint(2),
        &varint(name.len()),
        name,
        &varint(3),
        b"odd",
        &varint(5),
        b"plain",
        &varint(3),
        b"one",
    ]
    .concat();
    let time = 1_600_000_000_000_i64.to_be_bytes();
    let batch = [
        // attributes, offset of the last record, its time and that of the first
        &[0_u8; 6][..],
        &time,
        &time,
        // no producer that is idempotent: id, epoch and sequence are -1; one record
        &[0xff; 14],
        &1_i32.to_be_bytes(),
        &varint(record.len()),
        &record,
    ]
    .concat();
    let batch = [&crc32c(&batch).to_be_bytes()[..], &batch].concat();
    // epoch of the leader, magic byte 2
    let batch = [&[0xff, 0xff, 0xff, 0xff, 2][..], &batch].concat();
    let batch = [&[0; 8][..], &sized(&batch)].concat();
    let request = [
        // Produce, version 3, correlation 1, client
        &[0, 0, 0, 3, 0, 0, 0, 1][..],
        &text("test"),
        // no transaction, acknowledged by all, 10 s
        &[0xff, 0xff, 0xff, 0xff],
        &10_000_i32.to_be_bytes(),
        // one topic of one partition, 0
        &1_i32.to_be_bytes(),
        &text(REQUESTS),
        &1_i32.to_be_bytes(),
        &0_i32.to_be_bytes(),
        &sized(&batch),
    ]
    .concat();
    let mut broker = TcpStream::connect(&world.brokers).unwrap();
    broker.set_read_timeout(Some(DEADLINE)).unwrap();
    broker.write_all(&sized(&request)).unwrap();
    let mut size = [0; 4];
    broker.read_exact(&mut size).unwrap();
    let mut reply = vec![0; u32::from_be_bytes(size) as usize];
    broker.read_exact(&mut reply).unwrap();
    // correlation, one topic and its name, one partition and its number, then the error
    let error = &reply[4 + 4 + 2 + REQUESTS.len() + 4 + 4..][..2];
    assert_eq!(error, [0, 0], "the broker refuses it: {reply:?}");
}

/// Castagnoli's.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
        })
    })
}

#[tokio::test]
async fn a_header_whose_name_is_no_text_stops_nothing() {
    let world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    let good = request(1, "UA", "EWR", "IAH", 5.0).to_string();
    produce_with_header(&world, b"\xff\xfe", good.as_bytes());
    produce_with_header(&world, b"\xff", b"nonsense");
    world.ask(2..3).await;
    let log = world.catch_up(&[]);
    assert_eq!(world.answers().await.len(), 2);
    assert!(log.contains("a header whose name is not UTF-8 is left out"), "{log}");
    let list = |what: &str| {
        let mut list = submit_job(&world.data());
        run(list.args(["dlq", what, "--kafka", &world.brokers]))
    };
    assert!(list("list").contains("0/1"), "its letter is written");
    assert!(list("show").contains("  plain: one"), "with the headers that can be");
}
