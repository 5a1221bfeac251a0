//! The source against a broker with faults that a real one shows only at times: librdkafka's mock
//! cluster can be told to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{pending, ready};
use jobs::stream::limits::Limits;
use jobs::stream::metrics::Metrics;
use jobs::stream::micro_batch::Message;
use jobs::stream::source::{Assignment, Event, Settings, Source};
use jobs::stream::trigger::Trigger;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{TopicPartitionList, TopicPartitionListElem};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, util::Timeout};

const TOPIC: &str = "requests";
const PARTITIONS: i32 = 2;
const MOVING: [RDKafkaRespErr; 2] = [
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
];
const LIMITS: Limits = Limits {
    batch_rows: 100,
    batch_bytes: 1024 * 1024,
    queue_rows: 1_000,
    queue_bytes: 1024 * 1024,
};
/// Until something that does not happen is given up.
const PATIENCE: Duration = Duration::from_secs(60);

type Broker = MockCluster<'static, DefaultProducerContext>;

/// A broker with `n` messages in each partition of the topic.
async fn broker(n: usize) -> Broker {
    let broker = MockCluster::new(1).unwrap();
    broker.create_topic(TOPIC, PARTITIONS, 1).unwrap();
    fill(&broker, n).await;
    broker
}

async fn fill(broker: &Broker, n: usize) {
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", broker.bootstrap_servers()).create().unwrap();
    let sends = (0..n).flat_map(|i| (0..PARTITIONS).map(move |partition| (i, partition)));
    let sends = sends.map(|(i, partition)| {
        let producer = producer.clone();
        async move {
            let value = i.to_string();
            let record = FutureRecord::<(), _>::to(TOPIC).payload(&value).partition(partition);
            producer.send(record, Timeout::Never).await.unwrap();
        }
    });
    futures::future::join_all(sends).await;
}

async fn open(broker: &Broker, trigger: Trigger, limits: Limits) -> (Source, Arc<Metrics>) {
    let brokers = broker.bootstrap_servers();
    // the mock decides again only after it has missed a member for so long
    let properties = [
        ("bootstrap.servers".to_owned(), brokers),
        ("session.timeout.ms".to_owned(), "3000".to_owned()),
        ("heartbeat.interval.ms".to_owned(), "500".to_owned()),
    ];
    let metrics = Arc::new(Metrics::new().unwrap());
    let settings = Settings {
        properties: properties.into(),
        topic: TOPIC.into(),
        group: "group".into(),
        trigger,
        limits,
        give_up_after: None,
    };
    (Source::open(settings, Arc::clone(&metrics)).await.unwrap(), metrics)
}

async fn next(source: &mut Source) -> Event {
    tokio::time::timeout(PATIENCE, source.next(pending())).await.unwrap().unwrap()
}

async fn assigned(source: &mut Source) -> Assignment {
    loop {
        match next(source).await {
            Event::Assigned(assignment) => return assignment,
            Event::Idle | Event::Revoked => {}
            other => panic!("{other:?}"),
        }
    }
}

fn from(offset: i64) -> BTreeMap<i32, i64> {
    (0..PARTITIONS).map(|partition| (partition, offset)).collect()
}

/// What the group has been told.
fn committed(broker: &Broker) -> BTreeMap<i32, i64> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap_servers()).set("group.id", "group");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_range(TOPIC, 0, PARTITIONS - 1);
    let committed = consumer.committed_offsets(list, PATIENCE).unwrap();
    let offset = |e: &TopicPartitionListElem| e.offset().to_raw().unwrap();
    committed.elements().iter().map(|e| (e.partition(), offset(e))).collect()
}

fn start(source: &mut Source, assignment: &Assignment, offset: i64) {
    let offsets = assignment.partitions.iter().map(|partition| (*partition, offset));
    source.start(assignment, &offsets.collect()).unwrap();
}

/// The next micro-batch of what is assigned by then: a busy machine rebalances more than once.
async fn batch_from(source: &mut Source, offset: i64) -> Vec<Message> {
    loop {
        match next(source).await {
            Event::Assigned(assignment) => start(source, &assignment, offset),
            Event::MicroBatch(batch) => return batch.messages,
            Event::Idle | Event::Revoked => {}
            Event::Stalled => panic!("it stands still"),
        }
    }
}

/// Starts whatever is ours, until it is paused because nothing takes what was read.
async fn until_paused(source: &mut Source, metrics: &Metrics) {
    let is_paused = async {
        while metrics.paused.get() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let starting = async {
        loop {
            source.lost().await;
            let assignment = assigned(source).await;
            start(source, &assignment, 0);
        }
    };
    let paused = async {
        tokio::select! { () = is_paused => {}, () = starting => {} }
    };
    tokio::time::timeout(PATIENCE, paused).await.expect("it is paused");
}

/// A source whose queue is full: it has been read for a while, and nobody takes anything.
async fn paused() -> (Broker, Source, Arc<Metrics>) {
    let broker = broker(2_000).await;
    let limits = Limits { queue_rows: 100, ..LIMITS };
    let (mut source, metrics) = open(&broker, Trigger::Arrival, limits).await;
    until_paused(&mut source, &metrics).await;
    (broker, source, metrics)
}

/// Waits until two members have a partition each; what the first has.
async fn share(first: &mut Source, second: &mut Source) -> Assignment {
    let (mut ours, mut theirs) = (assigned(first).await, Vec::new());
    loop {
        let mut both = [ours.partitions.clone(), theirs.clone()].concat();
        both.sort_unstable();
        if ours.partitions.len() == 1 && both == [0, 1] {
            return ours;
        }
        tokio::select! {
            again = assigned(first) => ours = again,
            again = assigned(second) => theirs = again.partitions,
        }
    }
}

/// All messages from this offset to the end, in micro-batches.
async fn read_all(source: &mut Source, offset: i64) -> Vec<Vec<Message>> {
    let mut batches = Vec::new();
    loop {
        match next(source).await {
            Event::Assigned(assignment) => {
                assert_eq!(assignment.partitions.len(), PARTITIONS as usize);
                batches.clear();
                start(source, &assignment, offset);
            }
            Event::MicroBatch(batch) => {
                batches.push(batch.messages);
                if batch.is_last {
                    return batches;
                }
            }
            Event::Idle | Event::Revoked => {}
            Event::Stalled => panic!("it stands still"),
        }
    }
}

#[tokio::test]
async fn a_bounded_source_reads_what_is_there_from_where_it_is_told() {
    let broker = broker(3).await;
    let (mut source, metrics) = open(&broker, Trigger::AvailableNow, LIMITS).await;
    let mut messages = read_all(&mut source, 1).await.concat();
    messages.sort_by_key(|message| (message.partition, message.offset));
    let places: Vec<(i32, i64)> = messages.iter().map(|m| (m.partition, m.offset)).collect();
    assert_eq!(places, [(0, 1), (0, 2), (1, 1), (1, 2)]);
    assert_eq!(messages[0].value.as_deref(), Some(&b"1"[..]));
    assert!(messages[0].created_ms.is_some());
    assert_eq!(metrics.assigned.get(), i64::from(PARTITIONS));
    source.close_group().await.unwrap();
    // nothing is left
    let (mut source, _) = open(&broker, Trigger::AvailableNow, LIMITS).await;
    assert_eq!(read_all(&mut source, 3).await.concat(), []);
}

#[tokio::test]
async fn a_revocation_is_told_before_what_is_assigned_next() {
    let broker = broker(3).await;
    let (mut first, _) = open(&broker, Trigger::AvailableNow, LIMITS).await;
    assigned(&mut first).await;
    let (_second, _) = open(&broker, Trigger::AvailableNow, LIMITS).await;
    // what was read of the partitions may be in work, and is others' now
    loop {
        match next(&mut first).await {
            Event::Revoked => break,
            Event::Idle | Event::MicroBatch(_) => {}
            other => panic!("{other:?} without a word"),
        }
    }
}

#[tokio::test]
async fn a_coordinator_that_is_still_starting_is_waited_for() {
    let broker = broker(3).await;
    broker.request_errors(RDKafkaApiKey::JoinGroup, &MOVING);
    let (mut source, _) = open(&broker, Trigger::AvailableNow, LIMITS).await;
    assert_eq!(read_all(&mut source, 0).await.concat().len(), 6);
    // the group takes our offsets in the end, of each micro-batch
    broker.request_errors(RDKafkaApiKey::OffsetCommit, &MOVING);
    for done in [1, 2, 3] {
        source.done(&from(done)).unwrap();
        let started = std::time::Instant::now();
        while committed(&broker) != from(done) {
            assert!(started.elapsed() < PATIENCE, "{:?}", committed(&broker));
            if let Event::Assigned(again) = next(&mut source).await {
                start(&mut source, &again, done);
                source.done(&from(done)).unwrap();
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    source.close_group().await.unwrap();
}

#[tokio::test]
async fn a_micro_batch_ends_when_it_is_full_of_rows_or_bytes() {
    let broker = broker(30).await;
    let few_rows = Limits { batch_rows: 7, ..LIMITS };
    let few_bytes = Limits { batch_bytes: 7, ..LIMITS };
    for limits in [few_rows, few_bytes] {
        let (mut source, _) = open(&broker, Trigger::AvailableNow, limits).await;
        let batches = read_all(&mut source, 0).await;
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 60);
        for batch in &batches {
            let n_bytes: usize = batch[1..].iter().map(Message::n_bytes).sum();
            assert!(batch.len() <= limits.batch_rows && n_bytes <= limits.batch_bytes);
        }
        source.close_group().await.unwrap();
    }
}

#[tokio::test]
async fn a_full_queue_pauses_the_partitions_and_nothing_is_lost() {
    let (_broker, mut source, metrics) = paused().await;
    let mut read = BTreeMap::from([(0, 0), (1, 0)]);
    while read.values().sum::<i64>() < 4_000 {
        // what one poll brings may exceed the limit, no more
        assert!(metrics.queue_rows.get() <= 101, "{}", metrics.queue_rows.get());
        match next(&mut source).await {
            Event::Assigned(again) => source.start(&again, &read).unwrap(),
            Event::MicroBatch(batch) => {
                for message in batch.messages {
                    let expected = read.get_mut(&message.partition).unwrap();
                    assert_eq!(message.offset, *expected, "in order, without a gap");
                    *expected += 1;
                }
            }
            Event::Idle | Event::Revoked => {}
            Event::Stalled => panic!("it stands still"),
        }
    }
    assert!(metrics.to_text().unwrap().contains("tarmac_stream_paused"));
}

#[tokio::test]
async fn a_source_that_is_behind_ends_when_it_is_told_to() {
    let (_broker, mut source, _) = paused().await;
    assert!(source.has_next());
    let Event::MicroBatch(batch) = source.next(ready(())).await.unwrap() else {
        panic!("no micro-batch")
    };
    assert_eq!((batch.is_last, batch.messages.is_empty()), (true, false));
}

#[tokio::test]
async fn a_partition_that_was_paused_when_the_group_decided_is_read_again() {
    let (broker, mut first, metrics) = paused().await;
    // the same partitions, told again
    first.assign_again().unwrap();
    assert_eq!(batch_from(&mut first, 0).await[0].offset, 0);
    until_paused(&mut first, &metrics).await;
    // and one of them after another member came
    let lost = first.lost();
    let (mut second, _) = open(&broker, Trigger::Arrival, LIMITS).await;
    tokio::time::timeout(PATIENCE, lost).await.unwrap();
    let kept = share(&mut first, &mut second).await;
    start(&mut first, &kept, 0);
    while batch_from(&mut first, 0).await.iter().all(|message| message.offset < 1_999) {}
}

#[tokio::test]
async fn a_group_that_decides_again_takes_what_was_read_away() {
    let broker = broker(50).await;
    let (mut first, _) = open(&broker, Trigger::Arrival, LIMITS).await;
    let assignment = assigned(&mut first).await;
    start(&mut first, &assignment, 0);
    batch_from(&mut first, 0).await;
    let lost = first.lost();
    let (mut second, _) = open(&broker, Trigger::Arrival, LIMITS).await;
    tokio::time::timeout(PATIENCE, lost).await.unwrap();
    // what is done for an assignment that is gone is not told to the group
    first.done(&from(50)).unwrap();
    assert_ne!(committed(&broker), from(50));
    let kept = share(&mut first, &mut second).await;
    // an old assignment starts nothing
    first.start(&assignment, &from(0)).unwrap();
    // and one that is still ours can be told again
    first.assign_again().unwrap();
    let again = assigned(&mut first).await;
    assert_eq!(again.partitions, kept.partitions);
    start(&mut first, &again, 49);
    let messages = batch_from(&mut first, 49).await;
    assert_eq!((messages.len(), messages[0].offset), (1, 49));
    drop(second);
}
