//! The ends of the stream against a broker with faults that a real one shows only at times:
//! librdkafka's mock cluster can be told to.

use futures::future::pending;
use jobs::kafka::Source;
use jobs::trigger::Trigger;
use jobs::window::Message;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{ClientConfig, util::Timeout};

const TOPIC: &str = "requests";
const MOVING: [RDKafkaRespErr; 2] = [
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
];

/// A broker with `n` messages in the topic.
async fn broker(n: usize) -> MockCluster<'static, DefaultProducerContext> {
    let broker = MockCluster::new(1).unwrap();
    broker.create_topic(TOPIC, 1, 1).unwrap();
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", broker.bootstrap_servers()).create().unwrap();
    for i in 0..n {
        let value = i.to_string();
        let record = FutureRecord::<(), _>::to(TOPIC).payload(&value);
        producer.send(record, Timeout::Never).await.unwrap();
    }
    broker
}

async fn open(broker: &MockCluster<'_, DefaultProducerContext>) -> Source {
    let properties = [("bootstrap.servers".to_owned(), broker.bootstrap_servers())];
    Source::open(&properties, TOPIC, "group", Trigger::AvailableNow, 100).await.unwrap()
}

async fn read_all(source: &mut Source) -> Vec<Message> {
    let mut messages = Vec::new();
    loop {
        let window = source.window(Box::pin(pending())).await.unwrap();
        messages.extend(window.messages);
        if window.is_last {
            return messages;
        }
    }
}

#[tokio::test]
async fn a_coordinator_that_is_still_starting_is_waited_for() {
    let broker = broker(3).await;
    broker.request_errors(RDKafkaApiKey::OffsetFetch, &MOVING);
    let mut source = open(&broker).await;
    let messages = read_all(&mut source).await;
    assert_eq!(messages.len(), 3);
    broker.request_errors(RDKafkaApiKey::OffsetCommit, &MOVING);
    source.commit(&messages).await.unwrap();
    drop(source);
    assert_eq!(read_all(&mut open(&broker).await).await, [], "all was committed");
}
