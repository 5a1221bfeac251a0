//! What pages are made of is made when it has changed.

use jobs::publish::{Published, publish};
use serde_json::json;
use store::Store;

use crate::setup::{fixture, ingest_all, local_lake, session};

#[tokio::test]
async fn a_collection_is_made_again_when_flights_or_documents_have_changed() {
    let (directory, lake) = local_lake();
    ingest_all(&lake, &[fixture("bts_new.csv")], "first").await;
    let store = Store::embedded(&directory.path().join("store.sqlite")).unwrap();
    let publish = async |again: bool| -> Vec<Published> {
        publish(&session(2), &lake, &store, again, &|_| {}).await.unwrap()
    };
    let new = |published: &[Published]| -> Vec<&str> {
        published.iter().filter(|p| p.is_new).map(|p| p.collection).collect()
    };
    let first = publish(false).await;
    assert_eq!(new(&first).len(), first.len());
    let flights = first.iter().find(|p| p.collection == events::ON_TIME_PERFORMANCE).unwrap();
    assert_eq!(flights.n_documents, 10);
    // cards of models are few, and say when they were made champion
    let second = publish(false).await;
    assert_eq!(new(&second), [events::MODELS]);
    let numbers = |published: &[Published]| -> Vec<u64> {
        published.iter().map(|published| published.n_documents).collect()
    };
    assert_eq!(numbers(&second), numbers(&first));
    store.upsert(events::AIRPORTS, &[json!({ "_id": "somebody else's" })]).await.unwrap();
    assert_eq!(new(&publish(false).await), [events::AIRPORTS, events::MODELS]);
    assert!(store.get(events::AIRPORTS, "somebody else's").await.unwrap().is_none());
    assert_eq!(new(&publish(true).await).len(), first.len());
    // one that was being made when its process ended
    let begun = json!({ "_id": events::ROUTES, "MadeFrom": "", "Documents": 0 });
    store.upsert(events::PUBLICATIONS, &[begun]).await.unwrap();
    assert_eq!(new(&publish(false).await), [events::ROUTES, events::MODELS]);
    ingest_all(&lake, &[fixture("bts_new.csv")], "second").await;
    assert_eq!(new(&publish(false).await).len(), first.len(), "the files are others");
}
