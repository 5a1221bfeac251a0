//! Offsets that outlive their log, and logs that are not what they were: a topic that is made again, a
//! broker that is new, requests that retention has deleted, partitions that are added, transactions.

use std::ops::Range;

use mongodb::bson::doc;
use rdkafka::admin::{AdminOptions, NewPartitions};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::servers::Kafka;
use crate::setup::{
    ANSWERS, DEAD_LETTERS, DEADLINE, REJECTED, REQUESTS, Stream, World, get, request, run,
    submit_job, until, uuid,
};

/// How often a stream says that it reads another log.
fn n_warnings(log: &str) -> usize {
    log.matches("another log: it is read from its beginning").count()
}

#[tokio::test]
async fn a_topic_that_was_made_again_is_read_from_its_beginning() {
    let world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    world.ask(0..20).await;
    world.send(b"nonsense").await;
    assert_eq!(n_warnings(&world.catch_up(&[])), 0);

    // shorter than what was read, then longer, then empty: the offset alone tells the first only
    for (first, last) in [(100, 105), (200, 260), (300, 300)] {
        world.delete_topic(REQUESTS).await;
        world.make_topic(1).await;
        world.ask(first..last).await;
        world.send(b"nonsense").await;
        let before = world.answers().await;
        let log = world.catch_up(&[]);
        assert_eq!(n_warnings(&log), 1, "{log}");
        let after = world.answers().await;
        assert_eq!(after.len() - before.len(), (last - first) as usize);
        assert!(before.iter().all(|(uuid, document)| after[uuid] == *document));
        assert_eq!(n_warnings(&world.catch_up(&[])), 0, "it is told once");
    }
    assert_eq!(world.read_all(DEAD_LETTERS).len(), 4, "one of each log");

    // while it runs
    let stream = Stream::start(&world, "s", &["--trigger", "interval:200ms"]);
    stream.wait_for("assigned", |n| n == 1.0);
    assert!(get(stream.port, "/metrics").contains("tarmac_build_info{role=\"stream\""));
    world.delete_topic(REQUESTS).await;
    world.make_topic(1).await;
    world.ask(400..420).await;
    for number in 400..420 {
        world.answer(number).await;
    }
    assert_eq!(n_warnings(&stream.log()), 1, "{}", stream.log());
    stream.process.end_cleanly("the stream");
}

#[tokio::test]
async fn what_is_read_again_leaves_no_second_dead_letter() {
    let world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    let mut late = request(50, "UA", "EWR", "IAH", 5.0);
    late["DepDelay"] = "late".into();
    world.ask(0..10).await;
    world.send(b"nonsense").await;
    world.send(late.to_string().as_bytes()).await;
    world.ask(10..20).await;
    world.catch_up(&[]);
    let (answers, letters) = (world.answers().await, world.read_all(DEAD_LETTERS));
    let rejected = world.documents_of(REJECTED, doc! {}).await;
    assert_eq!((answers.len(), letters.len(), rejected.len()), (20, 2, 1));

    // as if the log had lost its end, which is how a log looks whose leader changed uncleanly
    let beyond = doc! { "$set": { "next": 1000_i64, "published": 1000_i64 } };
    let offsets = world.collection("stream_offsets").await;
    offsets.update_one(doc! {}, beyond).await.unwrap();
    // it dies on the way, and its successor goes on
    let died = world.stream(&["--trigger", "available-now", "--max-rows", "5"]);
    let mut died = died;
    assert!(!died.args(["--crash-at", "published"]).status().unwrap().success());
    assert_eq!(n_warnings(&world.catch_up(&["--max-rows", "5"])), 0);
    assert_eq!(world.answers().await, answers);
    assert_eq!(world.read_all(DEAD_LETTERS), letters);
    assert_eq!(world.documents_of(REJECTED, doc! {}).await, rejected);
    // what comes after is new, also when it says the same
    world.send(b"nonsense").await;
    world.catch_up(&[]);
    assert_eq!(world.read_all(DEAD_LETTERS).len(), 3);

    // one whose letter was written by a job that died then has its rejection too
    late["UUID"] = uuid(51).into();
    world.send(late.to_string().as_bytes()).await;
    let beyond = doc! { "$set": { "next": 1000_i64, "published": 1000_i64 } };
    offsets.update_one(doc! {}, beyond).await.unwrap();
    let mut died = world.stream(&["--trigger", "available-now"]);
    assert!(!died.args(["--crash-at", "scored"]).status().unwrap().success());
    assert_eq!(world.read_all(DEAD_LETTERS).len(), 4);
    world.catch_up(&[]);
    assert_eq!(world.read_all(DEAD_LETTERS).len(), 4);
    assert_eq!(world.documents_of(REJECTED, doc! { "_id": uuid(51) }).await.len(), 1);
}

/// Sends requests, each in a transaction of its own: each is followed by a mark.
fn transact(world: &World, topic: &str, numbers: Range<u32>) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &world.brokers)
        .set("transactional.id", "logs")
        .create()
        .unwrap();
    producer.init_transactions(DEADLINE).unwrap();
    for number in numbers {
        let value = request(number, "UA", "EWR", "IAH", 5.0).to_string();
        producer.begin_transaction().unwrap();
        producer.send(BaseRecord::to(topic).key(&uuid(number)).payload(&value)).unwrap();
        producer.commit_transaction(DEADLINE).unwrap();
    }
}

#[tokio::test]
async fn a_topic_that_was_made_again_is_noticed_by_what_never_was_in_the_other() {
    let world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    world.ask(0..10).await;
    world.catch_up(&[]);
    world.delete_topic(REQUESTS).await;
    world.make_topic(1).await;
    // where the last record was, at offset 9, there is a mark, and the log is longer
    transact(&world, REQUESTS, 100..112);
    assert_eq!(n_warnings(&world.catch_up(&[])), 1);
    assert_eq!(world.answers().await.len(), 22);
    // the same log, whose last record is followed by a mark
    assert_eq!(n_warnings(&world.catch_up(&[])), 0);

    // in a topic that is compacted it may have gone
    let topic = ["--request-topic", "compacted"];
    world.make_topic_with("compacted", 1, &[("cleanup.policy", "compact")]).await;
    transact(&world, "compacted", 200..205);
    world.catch_up(&topic);
    let gone = doc! { "$set": { "log.last.offset": 1_i64 } };
    let offsets = world.collection("stream_offsets").await;
    let id = doc! { "_id": "tarmac-stream/compacted/0" };
    assert_eq!(offsets.update_one(id, gone).await.unwrap().modified_count, 1);
    assert_eq!(n_warnings(&world.catch_up(&topic)), 0);
    assert_eq!(world.answers().await.len(), 27);
}

#[tokio::test]
async fn a_topic_is_read_again_although_its_dead_letters_are_gone() {
    let world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    let stream = Stream::start(&world, "stream", &["--trigger", "interval:200ms"]);
    world.ask(0..5).await;
    world.send(b"nonsense").await;
    until("all are dealt with", || (world.read_all(DEAD_LETTERS).len() == 1).then_some(()));
    world.answer(4).await;
    // its letters go with it, and nothing writes to their topic, which would make it again
    world.delete_topic(DEAD_LETTERS).await;
    world.delete_topic(REQUESTS).await;
    world.make_topic(1).await;
    world.ask(100..105).await;
    for number in 100..105 {
        world.answer(number).await;
    }
    stream.process.end_cleanly("the stream");
}

#[tokio::test]
async fn an_operator_may_name_the_cluster_otherwise() {
    let world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    let stream = Stream::start(&world, "stream", &["--trigger", "interval:200ms"]);
    world.ask(0..5).await;
    world.answer(4).await;
    let n_told = || world.read_all(ANSWERS).len();
    until("the topic is told", || (n_told() >= 5).then_some(()));
    let alias = world.brokers.replace("127.0.0.1", "localhost");
    let mut reset = submit_job(&world.data());
    reset.args(["stream", "offsets", "reset", "--to", "earliest", "--kafka", &alias]);
    run(reset.args(["--mongo", &world.mongo_url]));
    until("all are told again", || (n_told() >= 10).then_some(()));
    stream.process.end_cleanly("the stream");
}

#[tokio::test]
async fn a_new_broker_is_read_from_its_beginning_and_two_do_not_share_a_group() {
    let mut world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    world.ask(0..30).await;
    world.catch_up(&[]);

    let other = Kafka::start(&world.directory.path().join("other"), None);
    other.wait(&[]);
    let first = std::mem::replace(&mut world.brokers, other.address());
    world.make_topic(1).await;
    let lines: Vec<String> =
        (100..160).map(|n| request(n, "UA", "EWR", "IAH", 5.0).to_string()).collect();
    world.produce(REQUESTS, &[], &lines);
    let log = world.catch_up(&[]);
    assert_eq!(n_warnings(&log), 1, "{log}");
    assert!(log.contains(&first) && log.contains(&world.brokers), "{log}");
    assert_eq!(world.answers().await.len(), 90);

    // both at once: at least one ends, and says why
    let mut streams = vec![Stream::start(&world, "second", &["--trigger", "interval:200ms"])];
    streams[0].wait_for("assigned", |n| n == 1.0);
    let second = std::mem::replace(&mut world.brokers, first.clone());
    streams.push(Stream::start(&world, "first", &["--trigger", "interval:200ms"]));
    streams[1].wait_for("assigned", |n| n == 1.0);
    let mut number = 200;
    let (which, status) = until("one of them ends", || {
        for brokers in [&first, &second] {
            world.brokers.clone_from(brokers);
            let line = request(number, "UA", "EWR", "IAH", 5.0).to_string();
            world.produce(REQUESTS, &[], &[line]);
            number += 1;
        }
        let mut ended = streams.iter_mut().enumerate();
        ended.find_map(|(i, stream)| Some((i, stream.process.0.try_wait().unwrap()?)))
    });
    let log = streams[which].log();
    let last = log.lines().last().unwrap();
    assert!(!status.success() && last.contains("two clusters use one store"), "{log}");
    assert!(last.contains(&first) && last.contains(&second), "{last}");
}

#[tokio::test]
async fn offsets_of_an_earlier_version_are_adopted_and_what_retention_deleted_is_counted() {
    let world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    world.ask(0..10).await;
    world.catch_up(&[]);
    let offsets = world.collection("stream_offsets").await;
    offsets.update_one(doc! {}, doc! { "$unset": { "log": "" } }).await.unwrap();
    let log = world.catch_up(&[]);
    assert_eq!(n_warnings(&log), 0, "{log}");
    let kept = offsets.find_one(doc! {}).await.unwrap().unwrap();
    let last = kept.get_document("log").unwrap().get_document("last").unwrap();
    assert_eq!(last.get_i64("offset").unwrap(), 9);

    // 10 to 13 are deleted before they are read, and with them what was read last
    world.ask(10..20).await;
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(REQUESTS, 0, Offset::Offset(14)).unwrap();
    world.admin().delete_records(&before, &AdminOptions::new()).await.unwrap();
    let log = world.catch_up(&[]);
    assert_eq!(n_warnings(&log), 0, "no proof of another log: {log}");
    assert!(log.contains("deleted by Kafka before they were read"), "{log}");
    assert!(log.contains("n_deleted=4"), "{log}");
    assert_eq!(world.answers().await.len(), 16);

    let offsets = |arguments: &[&str]| {
        let mut command = submit_job(&world.data());
        command.args(["stream", "offsets"]).args(arguments);
        run(command.args(["--kafka", &world.brokers, "--mongo", &world.mongo_url]))
    };
    let shown = offsets(&["show"]);
    let line: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(line, ["0", "20", "20", "14", "20", "0", "the", "same"], "{shown}");
    offsets(&["reset", "--to", "16"]);
    assert!(offsets(&["show"]).contains(" 16 "));
    // a stream that runs goes on from there, and answers nothing twice
    let n_told = world.read_all(ANSWERS).len();
    let stream = Stream::start(&world, "s", &["--trigger", "interval:200ms"]);
    until("it reads them again", || (world.read_all(ANSWERS).len() == n_told + 4).then_some(()));
    offsets(&["reset", "--to", "earliest", "--partition", "0"]);
    world.ask(20..21).await;
    world.answer(20).await;
    until("it reads all again", || (world.read_all(ANSWERS).len() > n_told + 4 + 6).then_some(()));
    assert_eq!(world.answers().await.len(), 17);
    stream.process.end_cleanly("the stream");
    for wrong in [["reset", "--to", "99"], ["reset", "--to", "soon"]] {
        let mut command = submit_job(&world.data());
        command.args(["stream", "offsets"]).args(wrong);
        command.args(["--kafka", &world.brokers, "--mongo", &world.mongo_url]);
        assert!(!command.output().unwrap().status.success(), "{wrong:?}");
    }
}

#[tokio::test]
async fn new_partitions_are_found_and_the_lag_knows_transactions() {
    let world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    let stream = Stream::start(&world, "s", &["--trigger", "interval:200ms"]);
    stream.wait_for("assigned", |n| n == 1.0);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &world.brokers)
        .set("transactional.id", "the test")
        .create()
        .unwrap();
    let send = |number: u32| {
        let value = request(number, "UA", "EWR", "IAH", 5.0).to_string();
        let record = BaseRecord::<(), _>::to(REQUESTS).payload(&value).partition(0);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(DEADLINE).unwrap();
    };
    producer.init_transactions(DEADLINE).unwrap();
    producer.begin_transaction().unwrap();
    send(1);
    producer.abort_transaction(DEADLINE).unwrap();
    producer.begin_transaction().unwrap();
    send(2);
    producer.commit_transaction(DEADLINE).unwrap();
    world.answer(2).await;
    // the mark of the transaction is no message that waits
    stream.wait_for("lag{partition=\"0\"}", |lag| lag == 0.0);
    producer.begin_transaction().unwrap();
    send(3);
    world.ask(4..6).await;
    stream.wait_for("behind_transactions{partition=\"0\"}", |n| n == 3.0);
    stream.wait_for("lag{partition=\"0\"}", |lag| lag == 0.0);
    assert_eq!(world.answers().await.len(), 1);
    producer.commit_transaction(DEADLINE).unwrap();
    world.answer(5).await;
    stream.wait_for("lag{partition=\"0\"}", |lag| lag == 0.0);
    stream.wait_for("behind_transactions{partition=\"0\"}", |n| n == 0.0);
    assert!(!world.answers().await.contains_key(&uuid(1)), "it was aborted");

    let more = NewPartitions::new(REQUESTS, 2);
    let made = world.admin().create_partitions(&[more], &AdminOptions::new()).await.unwrap();
    assert_eq!(made, [Ok(REQUESTS.to_owned())]);
    let started = std::time::Instant::now();
    stream.wait_for("assigned", |n| n == 2.0);
    println!("new partitions after {:?}", started.elapsed());
    let value = request(9, "UA", "EWR", "IAH", 5.0).to_string();
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &world.brokers).create().unwrap();
    let record = BaseRecord::<(), _>::to(REQUESTS).payload(&value).partition(1);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(DEADLINE).unwrap();
    world.answer(9).await;
    stream.process.end_cleanly("the stream");
}
