//! What a store promises, asked of both: SQLite in a temporary directory, and a real MongoDB
//! server that the test starts.
//!
//! `tests/servers/install.sh` fetches the server; `TARMAC_TEST_SERVERS` says where to, when that
//! is not `target/servers`.

#![expect(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::slice::from_ref;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use mongodb::bson::doc;
use serde_json::{Value, json};
use store::{Document, Lease, Order, Query, Store, WriteError};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Until a server that does not answer is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// More documents than one command holds, and not a multiple of it.
const MANY: usize = 2_345;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "where the servers are is told by whoever tests")]
fn servers() -> PathBuf {
    let told = std::env::var_os("TARMAC_TEST_SERVERS").map(PathBuf::from);
    told.unwrap_or_else(|| repository().join("target/servers"))
}

/// A port below the ephemeral range, so that no outgoing connection takes it meanwhile.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 30_000 + (std::process::id() % 2_000) as u16;
    loop {
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A MongoDB server; it is killed when this is dropped.
struct Server {
    port: u16,
    _process: Child,
    _directory: TempDir,
}

impl Server {
    /// Starts one by itself, or with `replset` as the only member of a replica set.
    async fn start(replset: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mongod = servers().join("mongod");
        assert!(mongod.is_file(), "{}: tests/servers/install.sh puts it there", mongod.display());
        let port = free_port();
        let process = Command::new(repository().join("tests/servers/mongod.sh"))
            .arg(mongod)
            .arg(directory.path())
            .arg(port.to_string())
            .args(replset)
            .env("OWNER_PID", std::process::id().to_string())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { port, _process: process, _directory: directory }
    }

    fn url(&self) -> String {
        format!("mongodb://127.0.0.1:{}", self.port)
    }

    /// Makes it a replica set and waits until it is the primary.
    async fn initiate(&self) {
        let patience = PATIENCE.as_millis();
        let url = self.url();
        let url = format!("{url}/?directConnection=true&serverSelectionTimeoutMS={patience}");
        let admin = mongodb::Client::with_uri_str(url).await.unwrap().database("admin");
        let member = doc! { "_id": 0, "host": format!("127.0.0.1:{}", self.port) };
        let set = doc! { "replSetInitiate": { "_id": "rs0", "members": [member] } };
        // the driver waits until the server answers
        admin.run_command(set).await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        let is_primary = async || {
            let hello = admin.run_command(doc! { "hello": 1 }).await.unwrap();
            hello.get_bool("isWritablePrimary").unwrap()
        };
        while !is_primary().await {
            assert!(Instant::now() < deadline, "it does not become primary");
        }
    }

    /// Connects as soon as the server answers.
    async fn store(&self) -> Store {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Store::mongo(&self.url(), "contract").await {
                Ok(store) => return store,
                Err(error) => assert!(Instant::now() < deadline, "{error:#}"),
            }
        }
    }
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store.sqlite");
    let store = Store::embedded(&file).unwrap();
    check_contract(&store).await;
    assert_eq!(store.describe(), format!("embedded SQLite at {}", file.display()));
    assert_eq!(fenced_documents(&store).await, 0, "all or nothing");
    what_is_old_is_deleted(&store, &Foreign::sqlite(&file)).await;

    // what was written is there for whoever opens the file again
    let again = Store::embedded(&file).unwrap();
    assert_eq!(again.count("many", &everything()).await.unwrap(), MANY as u64);
}

#[tokio::test]
async fn mongodb_keeps_the_contract() {
    let server = Server::start(&[]).await;
    let store = server.store().await;
    check_contract(&store).await;
    let described = format!(
        "MongoDB at 127.0.0.1:{}, database contract, no replica set: answers first, then offsets",
        server.port
    );
    assert_eq!(store.describe(), described);
    let left = fenced_documents(&store).await;
    assert_eq!(left, 1, "without transactions documents go first");
    what_is_old_is_deleted(&store, &Foreign::mongo(&server).await).await;
}

#[tokio::test]
async fn a_replica_set_keeps_the_contract_in_transactions() {
    let server = Server::start(&["replset"]).await;
    server.initiate().await;
    let store = server.store().await;
    check_contract(&store).await;
    let described = format!(
        "MongoDB at 127.0.0.1:{}, database contract, answers and offsets in one transaction",
        server.port
    );
    assert_eq!(store.describe(), described);
    assert_eq!(fenced_documents(&store).await, 0, "all or nothing");
    what_is_old_is_deleted(&store, &Foreign::mongo(&server).await).await;
    // as many as a stream's window may have
    let documents: Vec<Document> =
        (0..MANY).map(|i| Document::new(format!("w{i:06}"), &json!({ "n": i })).unwrap()).collect();
    let lease = store.acquire("offsets", "large").await.unwrap();
    let moved = [Lease { next: MANY as i64, ..lease }];
    assert!(store.commit("window", &documents, "offsets", &moved).await.unwrap().is_empty());
    assert_eq!(store.count("window", &everything()).await.unwrap(), MANY as u64);
}

/// The database as others see it, who know nothing of [`Store`].
enum Foreign {
    Sqlite(rusqlite::Connection),
    Mongo(mongodb::Collection<mongodb::bson::Document>),
}

impl Foreign {
    fn sqlite(file: &Path) -> Self {
        Self::Sqlite(rusqlite::Connection::open(file).unwrap())
    }

    async fn mongo(server: &Server) -> Self {
        let client = mongodb::Client::with_uri_str(server.url()).await.unwrap();
        Self::Mongo(client.database("contract").collection("aged"))
    }

    /// Writes a document of the collection `aged` as an earlier version did, without its time.
    async fn insert(&self, id: &str) {
        match self {
            Self::Sqlite(connection) => {
                let insert = "INSERT INTO aged VALUES (?1, json_object('_id', ?1, 'n', 1))";
                connection.execute(insert, [id]).unwrap();
            }
            Self::Mongo(aged) => drop(aged.insert_one(doc! { "_id": id, "n": 1 }).await.unwrap()),
        }
    }

    /// When it was written, in milliseconds since 1970.
    async fn written_at(&self, id: &str) -> Option<i64> {
        match self {
            Self::Sqlite(connection) => {
                let select = "SELECT document ->> 'WrittenAt' FROM aged WHERE _id = ?";
                connection.query_row(select, [id], |row| row.get(0)).unwrap()
            }
            Self::Mongo(aged) => {
                let document = aged.find_one(doc! { "_id": id }).await.unwrap().unwrap();
                document.get_datetime("WrittenAt").ok().map(|at| at.timestamp_millis())
            }
        }
    }

    /// Lets it have been written an hour earlier.
    async fn make_older(&self, id: &str) {
        const HOUR_MS: i64 = 3_600_000;
        let before = self.written_at(id).await.unwrap() - HOUR_MS;
        match self {
            Self::Sqlite(connection) => {
                let update = "UPDATE aged SET document = json_set(document, '$.WrittenAt', ?2)
                              WHERE _id = ?1";
                connection.execute(update, (id, before)).unwrap();
            }
            Self::Mongo(aged) => {
                let before = mongodb::bson::DateTime::from_millis(before);
                let set = doc! { "$set": { "WrittenAt": before } };
                aged.update_one(doc! { "_id": id }, set).await.unwrap();
            }
        }
    }
}

/// Documents go when nobody has written them for as long as was said, whoever deletes them.
async fn what_is_old_is_deleted(store: &Store, foreign: &Foreign) {
    let minutes = |minutes: u64| Some(Duration::from_secs(minutes * 60));
    // no collection, and no index, is no error
    store.keep_for("aged", None).await.unwrap();
    store.keep_for("aged", minutes(30)).await.unwrap();
    store.keep_for("aged", minutes(90)).await.unwrap();
    let document = |id: &str| json!({"_id": id, "n": 0.1, "list": [1, "a"]});
    let all_ids = ["kept", "again", "once", "claimed", "moved"];
    store.write_once("aged", &[document("kept"), document("once")]).await.unwrap();
    store.upsert("aged", &[document("again")]).await.unwrap();
    for id in ["claimed", "moved"] {
        store.acquire("aged", id).await.unwrap();
    }
    foreign.insert("undated").await;
    for id in all_ids {
        assert!(foreign.written_at(id).await.is_some(), "{id}");
        foreign.make_older(id).await;
    }
    assert_eq!(foreign.written_at("undated").await, None);
    // reading shows what was written, and is no writing; a repetition that changes nothing is none
    assert_eq!(store.get("aged", "kept").await.unwrap(), Some(document("kept")));
    let before = foreign.written_at("once").await;
    store.write_once("aged", &[document("once")]).await.unwrap();
    assert_eq!(foreign.written_at("once").await, before);
    store.upsert("aged", &[document("again")]).await.unwrap();
    store.acquire("aged", "claimed").await.unwrap();
    let lease = Lease::of(&store.get("aged", "moved").await.unwrap().unwrap()).unwrap();
    store.commit("committed", &[], "aged", from_ref(&lease)).await.unwrap();

    store.keep_for("aged", minutes(30)).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut found = all(store, "aged").await;
    while found.len() > 4 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
        found = all(store, "aged").await;
    }
    assert_eq!(ids(&found), ["again", "claimed", "moved", "undated"]);
    assert!(foreign.written_at("undated").await.is_some(), "it is as old as the rule");

    // more than are deleted at once; nothing goes when all is kept for ever
    store.keep_for("aged", None).await.unwrap();
    store.keep_for("aged", None).await.unwrap();
    let many: Vec<Value> = (0..MANY * 5).map(|i| json!({"_id": format!("m{i:06}")})).collect();
    store.write_once("aged", &many).await.unwrap();
    store.keep_for("aged", Some(Duration::ZERO)).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while store.count("aged", &everything()).await.unwrap() > 0 {
        assert!(Instant::now() < deadline, "they are not deleted");
        tokio::time::sleep(Duration::from_millis(50)).await;
        store.keep_for("aged", Some(Duration::ZERO)).await.unwrap();
    }
}

async fn check_contract(store: &Store) {
    the_first_answer_stays(store).await;
    an_upsert_replaces_the_whole_document(store).await;
    documents_come_back_as_they_were(store).await;
    documents_are_found_by_equality(store).await;
    pages_are_in_order_and_leave_nothing_out(store).await;
    ranges_and_orders_are_combined(store).await;
    a_replacement_is_seen_when_it_is_finished(store).await;
    a_replacement_that_another_one_disturbs_fails(store).await;
    answers_are_written_and_read_while_a_collection_is_made(store).await;
    more_documents_than_one_command_holds_are_written(store).await;
    writers_at_the_same_time_agree_on_the_first(store).await;
    offsets_move_with_their_documents(store).await;
    only_the_latest_claim_may_write(store).await;
    an_operator_is_no_value(store).await;
    odd_names_are_refused(store).await;
    a_document_without_an_id_is_refused(store).await;
}

fn encoded(documents: &[Value]) -> Vec<Document> {
    documents.iter().map(|document| Document::try_from(document).unwrap()).collect()
}

async fn offsets_move_with_their_documents(store: &Store) {
    let lease = store.acquire("offsets", "group/topic/0").await.unwrap();
    let first = Lease { id: "group/topic/0".into(), epoch: 1, next: 0, published: 0, log: None };
    assert_eq!(lease, first);
    let documents = [json!({"_id": "a", "n": 1}), json!({"_id": "b", "n": 2})];
    let moved = Lease { next: 2, ..first };
    let leases = from_ref(&moved);
    let kept = store.commit("moved", &encoded(&documents), "offsets", leases).await.unwrap();
    assert_eq!(kept, Vec::<String>::new());
    // whoever does not know whether it was written may write it again
    let kept = store.commit("moved", &encoded(&documents), "offsets", leases).await.unwrap();
    assert_eq!(kept, ["a", "b"]);
    let others = [json!({"_id": "b", "n": "late"}), json!({"_id": "c", "n": 3})];
    let log = Some(json!({"last": {"offset": 3, "digest": "a"}, "brokers": "it's \"here\""}));
    let further = Lease { next: 4, published: 2, log, ..moved };
    let kept = store.commit("moved", &encoded(&others), "offsets", from_ref(&further)).await;
    let kept = kept.unwrap();
    assert_eq!(kept, ["b"]);
    assert_eq!(store.get("moved", "b").await.unwrap(), Some(documents[1].clone()));
    let seen = store.get("offsets", "group/topic/0").await.unwrap().unwrap();
    assert_eq!(Lease::of(&seen).unwrap(), further);
    let again = store.acquire("offsets", "group/topic/0").await.unwrap();
    assert_eq!(again, Lease { epoch: 2, ..further });
    // nothing to write is no reason to move nothing
    let noted = Lease { published: 4, ..again };
    assert!(store.commit("moved", &[], "offsets", from_ref(&noted)).await.unwrap().is_empty());
    let last = store.acquire("offsets", "group/topic/0").await.unwrap();
    assert_eq!(last, Lease { epoch: 3, ..noted });

    let ids: Vec<String> = ["b", "nowhere", "a"].map(str::to_owned).to_vec();
    let mut found = store.get_all("moved", &ids).await.unwrap();
    found.sort_by_key(|document| document["_id"].to_string());
    assert_eq!(found, documents);
    assert!(store.get_all("moved", &[]).await.unwrap().is_empty());
}

async fn only_the_latest_claim_may_write(store: &Store) {
    let zombie = store.acquire("offsets", "fenced/0").await.unwrap();
    let other = store.acquire("offsets", "fenced/1").await.unwrap();
    let owner = store.acquire("offsets", "fenced/0").await.unwrap();
    let leases = [Lease { next: 7, ..other.clone() }, Lease { next: 9, ..zombie }];
    let error = store.commit("fenced", &encoded(&[json!({"_id": "z"})]), "offsets", &leases).await;
    let Err(WriteError::Fenced(id)) = error else { panic!("{error:?}") };
    assert!(id.contains("fenced/0"), "{id}");
    let kept = store.commit("owned", &[], "offsets", from_ref(&owner)).await.unwrap();
    assert!(kept.is_empty());
    assert_eq!(store.acquire("offsets", "fenced/0").await.unwrap().next, owner.next);
    let error = store.commit("fenced", &[], "offsets", &[]).await.unwrap_err();
    assert_eq!(error.to_string(), "there is no lease to commit by");
    let nobody = Lease { id: "never acquired".into(), epoch: 1, next: 1, published: 0, log: None };
    let error = store.commit("fenced", &[], "offsets", &[nobody]).await.unwrap_err();
    assert_eq!(error.to_string(), "another process has acquired never acquired");
}

/// Documents that [`only_the_latest_claim_may_write`] has left behind.
async fn fenced_documents(store: &Store) -> u64 {
    store.count("fenced", &everything()).await.unwrap()
}

fn everything() -> Query {
    Query { limit: 10_000, ..Query::default() }
}

/// All documents of a collection, by `_id`.
async fn all(store: &Store, collection: &str) -> Vec<Value> {
    store.find(collection, &everything()).await.unwrap()
}

fn ids(documents: &[Value]) -> Vec<&str> {
    documents.iter().map(|document| document["_id"].as_str().unwrap()).collect()
}

async fn the_first_answer_stays(store: &Store) {
    let n_documents = store.count("once", &everything()).await.unwrap();
    assert_eq!(n_documents, 0, "a collection that is not there is empty");
    assert_eq!(store.get("once", "a").await.unwrap(), None);
    store.write_once("once", &[]).await.unwrap();
    store.write_once("once", &[json!({"_id": "a", "n": 1})]).await.unwrap();
    let repetition = [json!({"_id": "a", "n": 2, "more": true}), json!({"_id": "b", "n": 3})];
    store.write_once("once", &repetition).await.unwrap();
    assert_eq!(store.get("once", "a").await.unwrap(), Some(json!({"_id": "a", "n": 1})));
    assert_eq!(store.get("once", "b").await.unwrap(), Some(json!({"_id": "b", "n": 3})));
    assert_eq!(store.count("once", &everything()).await.unwrap(), 2);

    let twice_in_one = [json!({"_id": "c", "n": 4}), json!({"_id": "c", "n": 5})];
    store.write_once("once", &twice_in_one).await.unwrap();
    assert_eq!(store.get("once", "c").await.unwrap().unwrap()["n"], json!(4));
}

async fn an_upsert_replaces_the_whole_document(store: &Store) {
    store.upsert("entities", &[json!({"_id": "AA", "Name": "x", "old": 1})]).await.unwrap();
    let newer = [json!({"_id": "AA", "Name": "American"}), json!({"_id": "UA", "Name": "United"})];
    store.upsert("entities", &newer).await.unwrap();
    assert_eq!(all(store, "entities").await, newer);
}

async fn documents_come_back_as_they_were(store: &Store) {
    let document = json!({
        "_id": "0d7a4bd0-6d7e-4f2e-9a53-2f4f3f5e0a01",
        "text": "Zürich \"quoted\" 'single' \\ \u{1F6EB} \n", "empty": "", "null": null,
        "whole": 7, "negative": -15, "large": 9_007_199_254_740_993_i64, "number": 0.1,
        "whole_number": 2139.0, "tiny": 5e-324, "yes": true,
        "list": [0.25, 0.5, 0.125, 0.125], "none": [], "nested": {"a": {"b": [1, {"c": null}]}},
    });
    store.write_once("whole", from_ref(&document)).await.unwrap();
    let id = document["_id"].as_str().unwrap();
    assert_eq!(store.get("whole", id).await.unwrap(), Some(document));
}

async fn documents_are_found_by_equality(store: &Store) {
    let documents = [
        json!({"_id": "a", "Origin": "ATL", "n": 1, "ok": true}),
        json!({"_id": "b", "Origin": "ATL", "n": 2, "ok": false}),
        json!({"_id": "c", "Origin": "JFK", "n": 1, "ok": true}),
        json!({"_id": "d", "Origin": "' OR 1=1 --", "n": 1.5, "ok": true}),
    ];
    store.upsert("found", &documents).await.unwrap();
    for (equal, want) in [
        (vec![("Origin", json!("ATL"))], vec!["a", "b"]),
        (vec![("Origin", json!("ATL")), ("n", json!(1))], vec!["a"]),
        (vec![("n", json!(1.5))], vec!["d"]),
        (vec![("ok", json!(true))], vec!["a", "c", "d"]),
        (vec![("_id", json!("c"))], vec!["c"]),
        (vec![("Origin", json!("' OR 1=1 --"))], vec!["d"]),
        (vec![("Origin", json!("atl"))], vec![]),
        (vec![("nowhere", json!("ATL"))], vec![]),
        (vec![], vec!["a", "b", "c", "d"]),
    ] {
        let equal = equal.into_iter().map(|(field, value)| (field.to_owned(), value)).collect();
        let query = Query { equal, limit: 10, ..Query::default() };
        assert_eq!(ids(&store.find("found", &query).await.unwrap()), want, "{query:?}");
    }
}

async fn pages_are_in_order_and_leave_nothing_out(store: &Store) {
    let documents: Vec<Value> = (0..10)
        .map(|i| json!({"_id": format!("{i}"), "delay": (i * 7) % 10 - 5, "same": "x"}))
        .collect();
    store.upsert("pages", &documents).await.unwrap();
    let page = async |sort: Option<&str>, skip, limit| {
        let sort = sort.map(|field| (field.to_owned(), Order::Ascending)).into_iter().collect();
        let query = Query { sort, skip, limit, ..Query::default() };
        store.find("pages", &query).await.unwrap()
    };
    let sorted = page(Some("delay"), 0, 100).await;
    let delays: Vec<i64> = sorted.iter().map(|d| d["delay"].as_i64().unwrap()).collect();
    assert_eq!(delays, (-5..5).collect::<Vec<_>>());
    // ties go by _id, and so do pages without an order
    for sort in [Some("same"), None] {
        let mut pages = Vec::new();
        for skip in [0, 4, 8, 12] {
            pages.extend(page(sort, skip, 4).await);
        }
        assert_eq!(pages, documents, "{sort:?}");
    }
}

async fn ranges_and_orders_are_combined(store: &Store) {
    let documents = [
        json!({"_id": "a", "maker": "AIRBUS", "year": 1999, "n": 2}),
        json!({"_id": "b", "maker": "AIRBUS INDUSTRIE", "year": 2004, "n": 1}),
        json!({"_id": "c", "maker": "BOEING", "year": 2004, "n": 2}),
        json!({"_id": "d", "n": 3}),
    ];
    store.upsert("ranges", &documents).await.unwrap();
    let between = |field: &str, min: Value, max: Value| (field.to_owned(), min, max);
    let by = |fields: &[(&str, Order)]| {
        fields.iter().map(|(field, order)| ((*field).to_owned(), *order)).collect::<Vec<_>>()
    };
    use Order::{Ascending, Descending};
    for (ranges, sort, want) in [
        (vec![between("year", json!(1999), json!(2000))], by(&[]), vec!["a"]),
        (vec![between("maker", json!("AIRB"), json!("AIRB\u{10ffff}"))], by(&[]), vec!["a", "b"]),
        (
            vec![between("n", json!(1), json!(2)), between("n", json!(2), json!(3))],
            by(&[]),
            vec!["a", "c"],
        ),
        (vec![], by(&[("n", Descending), ("year", Ascending)]), vec!["d", "a", "c", "b"]),
        (vec![], by(&[("year", Descending)]), vec!["b", "c", "a", "d"]),
        (vec![], by(&[("year", Ascending), ("_id", Descending)]), vec!["d", "a", "c", "b"]),
        (
            vec![between("n", json!(2), json!(9)), between("year", json!(0), json!(9999))],
            by(&[("maker", Descending)]),
            vec!["c", "a"],
        ),
    ] {
        let query = Query { between: ranges, sort, ..everything() };
        assert_eq!(ids(&store.find("ranges", &query).await.unwrap()), want, "{query:?}");
        let counted = store.count("ranges", &query).await.unwrap();
        assert_eq!(counted, want.len() as u64, "{query:?}");
        let none = Query { limit: 0, ..query.clone() };
        assert_eq!(store.find("ranges", &none).await.unwrap(), Vec::<Value>::new());
        let counted = store.count("ranges", &Query { limit: 1, ..query.clone() }).await.unwrap();
        assert_eq!(counted, 1, "no further than the limit");
        assert_eq!(store.count("ranges", &Query { limit: 0, ..query }).await.unwrap(), 0);
    }
}

async fn a_replacement_is_seen_when_it_is_finished(store: &Store) {
    let document = |id: usize| json!({"_id": format!("{id:06}"), "carrier": "UA", "n": id % 7});
    let old: Vec<Value> = (0..10).map(document).collect();
    let new: Vec<Value> = (5..MANY).map(document).collect();
    let indexes: [&[&str]; 2] = [&["n", "carrier"], &["carrier"]];
    store.upsert("replaced", &old).await.unwrap();
    for _ in 0..2 {
        let before = all(store, "replaced").await;
        // one that was given up leaves nothing behind
        let mut given_up = store.replace("replaced").await.unwrap();
        given_up.add(&[json!({"_id": "given up"})]).await.unwrap();
        drop(given_up);
        let mut replacement = store.replace("replaced").await.unwrap();
        replacement.add(&new[..MANY / 2]).await.unwrap();
        replacement.add(&new[MANY / 2..]).await.unwrap();
        // the first of two stays
        replacement.add(&[json!({"_id": "000007", "n": "again"})]).await.unwrap();
        assert_eq!(all(store, "replaced").await, before);
        let n_documents = replacement.finish(&indexes, &[]).await.unwrap();
        assert_eq!(n_documents, new.len() as u64);
        assert_eq!(all(store, "replaced").await, new);
    }
    let equal = vec![("n".to_owned(), json!(3)), ("carrier".to_owned(), json!("UA"))];
    let found = store.count("replaced", &Query { equal, ..everything() }).await.unwrap();
    assert_eq!(found, new.iter().filter(|d| d["n"] == 3).count() as u64);
    store.replace("replaced").await.unwrap().finish(&[], &[]).await.unwrap();
    assert_eq!(all(store, "replaced").await, Vec::<Value>::new());

    // what a query describes goes, more than a command takes, and nothing else
    let many: Vec<Value> = (0..2_500).map(|i| json!({"_id": format!("{i:06}"), "n": i})).collect();
    store.upsert("deleted", &many).await.unwrap();
    let query = |min: i64, id: &str| {
        let of_ids = ("_id".to_owned(), json!(""), json!(id));
        let between = vec![("n".to_owned(), json!(min), json!(2_299)), of_ids];
        Query { between, limit: 1, ..Query::default() }
    };
    for (want, n_stay) in [(2_199, 301), (0, 301)] {
        assert_eq!(store.delete("deleted", &query(101, "9")).await.unwrap(), want);
        assert_eq!(all(store, "deleted").await.len(), n_stay);
    }
    assert_eq!(store.delete("deleted", &query(0, "000009")).await.unwrap(), 10);
    assert_eq!(store.delete("never_made", &query(0, "9")).await.unwrap(), 0);

    // what must be unique stays so
    let pair = |id: &str, dest: &str| json!({"_id": id, "Origin": "EWR", "Dest": dest});
    let mut replacement = store.replace("unique").await.unwrap();
    replacement.add(&[pair("1", "JFK"), pair("2", "LGA")]).await.unwrap();
    replacement.finish(&[], &["Origin", "Dest"]).await.unwrap();
    store.upsert("unique", &[pair("3", "JFK")]).await.unwrap_err();
    store.upsert("unique", &[pair("3", "IAH")]).await.unwrap();
    let mut replacement = store.replace("unique").await.unwrap();
    replacement.add(&[pair("1", "JFK"), pair("2", "JFK")]).await.unwrap();
    replacement.finish(&[], &["Origin", "Dest"]).await.unwrap_err();
    assert_eq!(ids(&all(store, "unique").await), ["1", "2", "3"]);
}

async fn answers_are_written_and_read_while_a_collection_is_made(store: &Store) {
    let documents: Vec<Value> =
        (0..MANY * 4).map(|i| json!({"_id": format!("{i:06}"), "n": i})).collect();
    let making = async {
        let mut replacement = store.replace("made").await.unwrap();
        for chunk in documents.chunks(100) {
            replacement.add(chunk).await.unwrap();
        }
        replacement.finish(&[&["n"], &["n", "_id"]], &[]).await.unwrap()
    };
    let answering = async {
        for i in 0..200 {
            let id = format!("meanwhile {i}");
            store.write_once("meanwhile", &[json!({"_id": id})]).await.unwrap();
            assert!(store.get("meanwhile", &id).await.unwrap().is_some());
        }
    };
    let (n_made, ()) = tokio::join!(making, answering);
    assert_eq!(n_made, documents.len() as u64);
}

async fn a_replacement_that_another_one_disturbs_fails(store: &Store) {
    store.upsert("disturbed", &[json!({"_id": "old"})]).await.unwrap();
    let mut first = store.replace("disturbed").await.unwrap();
    first.add(&[json!({"_id": "a"}), json!({"_id": "b"})]).await.unwrap();
    let mut second = store.replace("disturbed").await.unwrap();
    second.add(&[json!({"_id": "c"})]).await.unwrap();
    let error = first.finish(&[], &[]).await.unwrap_err().to_string();
    assert!(error.starts_with("another program is replacing disturbed too"), "{error}");
    assert_eq!(ids(&all(store, "disturbed").await), ["old"]);
    second.finish(&[], &[]).await.unwrap();
    assert_eq!(ids(&all(store, "disturbed").await), ["c"]);
}

async fn more_documents_than_one_command_holds_are_written(store: &Store) {
    let documents: Vec<Value> =
        (0..MANY).map(|i| json!({"_id": format!("{i:06}"), "n": i})).collect();
    store.write_once("many", &documents[..MANY / 2]).await.unwrap();
    store.write_once("many", &documents).await.unwrap();
    assert_eq!(store.count("many", &everything()).await.unwrap(), MANY as u64);
    assert_eq!(all(store, "many").await, documents);
    store.upsert("many", &documents).await.unwrap();
    assert_eq!(store.count("many", &everything()).await.unwrap(), MANY as u64);
}

async fn writers_at_the_same_time_agree_on_the_first(store: &Store) {
    let writers = (0..8).map(|writer| {
        let store = store.clone();
        let documents: Vec<Value> =
            (0..200).map(|i| json!({"_id": format!("{i:03}"), "writer": writer})).collect();
        tokio::spawn(async move { store.write_once("raced", &documents).await })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap().unwrap();
    }
    let after = all(store, "raced").await;
    assert_eq!(after.len(), 200);
    let late = [json!({"_id": "000", "writer": "late"})];
    store.write_once("raced", &late).await.unwrap();
    assert_eq!(all(store, "raced").await, after);
}

async fn an_operator_is_no_value(store: &Store) {
    for value in [json!({"$ne": ""}), json!({"$gt": null}), json!([]), json!({})] {
        let between = vec![("_id".to_owned(), json!("a"), value.clone())];
        store.count("found", &Query { between, ..everything() }).await.unwrap_err();
        let equal = vec![("_id".to_owned(), value)];
        let query = Query { equal, limit: 10, ..Query::default() };
        let error = store.find("found", &query).await.unwrap_err().to_string();
        assert_eq!(error, "_id must be a plain value");
    }
    // as a text it is only a text
    assert_eq!(store.get("found", "{\"$ne\":\"\"}").await.unwrap(), None);
}

async fn odd_names_are_refused(store: &Store) {
    let document = [json!({"_id": "a"})];
    for name in ["", "a b", "a\"b", "a;DROP TABLE once", "$where", "a.b", "a'b", "é", "a\0b"] {
        let want = format!("{name:?} is not a name of a collection or field");
        let check = |done: Result<(), anyhow::Error>| {
            assert_eq!(done.unwrap_err().to_string(), want);
        };
        check(store.write_once(name, &document).await.map_err(Into::into));
        check(store.upsert(name, &document).await.map_err(Into::into));
        check(store.count(name, &everything()).await.map(drop));
        check(store.get(name, "a").await.map(drop));
        let equal = vec![(name.to_owned(), json!(1))];
        check(store.find("found", &Query { equal, ..Query::default() }).await.map(drop));
        let between = vec![(name.to_owned(), json!(1), json!(2))];
        check(store.count("found", &Query { between, ..Query::default() }).await.map(drop));
        let sort = vec![(name.to_owned(), Order::Ascending)];
        check(store.find("found", &Query { sort, ..Query::default() }).await.map(drop));
        check(store.replace(name).await.map(drop));
    }
}

async fn a_document_without_an_id_is_refused(store: &Store) {
    for document in [json!({"n": 1}), json!({"_id": 7}), json!({"_id": ""}), json!([]), json!(1)] {
        let good = json!({"_id": "good"});
        for documents in [[document.clone(), good.clone()], [good.clone(), document.clone()]] {
            let error = store.write_once("unnamed", &documents).await.unwrap_err().to_string();
            assert!(error.starts_with("a document needs a string _id: "), "{error}");
            store.upsert("unnamed", &documents).await.unwrap_err();
        }
    }
    let n_documents = store.count("unnamed", &everything()).await.unwrap();
    assert_eq!(n_documents, 0, "nothing of a refused write is there");
}

#[tokio::test]
async fn an_error_of_the_server_is_told_without_its_reply() {
    let server = Server::start(&[]).await;
    let store = server.store().await;
    let fail = doc! {
        "configureFailPoint": "failCommand",
        "mode": "alwaysOn",
        "data": { "failCommands": ["find", "hello", "update"], "errorCode": 2 },
    };
    let admin = mongodb::Client::with_uri_str(server.url()).await.unwrap().database("admin");
    admin.run_command(fail).await.unwrap();
    let document = [json!({"_id": "a"})];
    let errors = [
        store.find("things", &everything()).await.unwrap_err(),
        store.look().await.unwrap_err(),
        store.write_once("things", &document).await.unwrap_err().into(),
    ];
    for error in errors {
        // the driver shows a reply as it came: hundreds of bytes in hexadecimal
        let told = format!("{error:#}");
        assert!(told.contains(&format!("MongoDB at 127.0.0.1:{}", server.port)), "{told}");
        assert!(!told.contains("server response") && told.len() < 250, "{told}");
        // whether it passes is known, but of a look, which is repeated in any case
        let is_permanent = matches!(WriteError::from(error), WriteError::Permanent(_));
        assert_eq!(is_permanent, !told.starts_with("MongoDB at"), "{told}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_the_password() {
    let port = free_port();
    let url = format!("mongodb://someone:hunter2@127.0.0.1:{port}/?authSource=admin");
    let error = format!("{:#}", Store::mongo(&url, "contract").await.unwrap_err());
    assert!(error.starts_with(&format!("no MongoDB answers at 127.0.0.1:{port}")), "{error}");
    assert!(!error.contains("hunter2") && !error.contains("someone"), "{error}");
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_without_the_password() {
    for url in ["postgres://someone:hunter2@host", "mongodb://someone:hunter2@:x:y", "hunter2"] {
        let error = format!("{:?}", Store::mongo(url, "contract").await.unwrap_err());
        assert!(error.starts_with("the MongoDB URL is not valid"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("no/such/directory/store.sqlite");
    let error = format!("{:#}", Store::embedded(&file).unwrap_err());
    assert!(error.starts_with(&format!("cannot open {}", file.display())), "{error}");
    let text = directory.path().join("text.sqlite");
    std::fs::write(&text, "not a database, but long enough to look at".repeat(100)).unwrap();
    let error = format!("{:#}", Store::embedded(&text).unwrap_err());
    assert!(error.contains("text.sqlite"), "{error}");
}
