//! What Wikipedia says of airlines, told by a server of ours that answers in its form.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Value, json};
use store::Store;
use tokio::net::TcpListener;

use crate::setup::submit_job;

/// The titles that were asked for, and whether to ask for a pause.
#[derive(Default)]
struct Asked {
    titles: Vec<String>,
    is_busy: bool,
}

type Shared = Arc<Mutex<Asked>>;

fn summary(title: &str, page: &str, logo: &str) -> String {
    json!({
        "type": "standard",
        "title": title,
        "extract": format!("{title} is <b>an airline</b>."),
        "content_urls": { "desktop": { "page": page }, "mobile": { "page": page } },
        "thumbnail": { "source": logo, "width": 320, "height": 60 },
    })
    .to_string()
}

async fn article(State(asked): State<Shared>, Path(title): Path<String>) -> (StatusCode, String) {
    let mut asked = asked.lock().unwrap();
    asked.titles.push(title.clone());
    let logo = "https://upload.wikimedia.org/logo.svg";
    let page = format!("https://en.wikipedia.org/wiki/{title}");
    match title.as_str() {
        _ if asked.is_busy => (StatusCode::TOO_MANY_REQUESTS, String::new()),
        "American_Airlines" => (StatusCode::NOT_FOUND, "{}".into()),
        "Delta_Air_Lines" => (StatusCode::OK, "{\"title\": \"no sum".into()),
        "JetBlue" => (StatusCode::OK, summary("JetBlue", "javascript:alert(1)", logo)),
        "US_Airways" => (StatusCode::OK, "x".repeat(300_000)),
        "Virgin_America" => {
            (StatusCode::OK, summary("Virgin America", &page, "https://elsewhere.example/x.png"))
        }
        _ => (StatusCode::OK, summary("United Airlines", &page, logo)),
    }
}

/// Runs `enrich` against the server; whether it succeeded, and what it said.
async fn enrich(data: &std::path::Path, port: u16, more: &[&str]) -> (bool, String) {
    let mut job = tokio::process::Command::from(submit_job(data));
    let root = format!("http://127.0.0.1:{port}/api/rest_v1/");
    let output = job.args(["enrich", "--wikipedia", &root]).args(more).output().await.unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn airlines_are_told_of_and_whatever_fails_is_left_out() {
    let data = tempfile::tempdir().unwrap();
    let store = Store::embedded(&data.path().join("store.sqlite")).unwrap();
    // ZZ is no airline that has an article
    let airlines = ["AA", "B6", "DL", "UA", "US", "VX", "ZZ"];
    let airlines = airlines.map(|code| json!({ "_id": code, "Name": code }));
    store.upsert(events::AIRLINES, &airlines).await.unwrap();
    let asked = Shared::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().route("/api/rest_v1/page/summary/{title}", get(article));
    tokio::spawn(axum::serve(listener, router.with_state(Arc::clone(&asked))).into_future());

    let (succeeded, said) = enrich(data.path(), port, &[]).await;
    assert!(succeeded, "{said}");
    assert!(said.contains("2 airlines fetched, 0 still fresh, 4 failed"), "{said}");
    for want in [
        "AA: http://127.0.0.1",
        "answers 404",
        "B6: ",
        "names no page that can be shown",
        "DL: ",
        "EOF while parsing",
        "US: ",
        "answers more than 262144 bytes",
    ] {
        assert!(said.contains(want), "{want:?} is not in {said}");
    }
    let profile = async |code| store.get(events::AIRLINE_PROFILES, code).await.unwrap();
    let united = profile("UA").await.unwrap();
    assert_eq!(united["Summary"], "United Airlines is <b>an airline</b>.");
    assert_eq!(united["License"], "CC BY-SA 4.0");
    assert!(united["Source"].as_str().unwrap().ends_with("/page/summary/United_Airlines"));
    assert_eq!(united["Logo"], "https://upload.wikimedia.org/logo.svg");
    assert_eq!(profile("VX").await.unwrap()["Logo"], Value::Null, "no picture from elsewhere");
    assert_eq!(profile("B6").await, None);

    // what is there is not fetched again, unless it must be
    asked.lock().unwrap().titles.clear();
    let (_, said) = enrich(data.path(), port, &[]).await;
    assert!(said.contains("0 airlines fetched, 2 still fresh, 4 failed"), "{said}");
    assert_eq!(asked.lock().unwrap().titles.len(), 4);
    let (_, said) = enrich(data.path(), port, &["--again"]).await;
    assert!(said.contains("2 airlines fetched, 0 still fresh, 4 failed"), "{said}");

    // asked to stop, it stops
    asked.lock().unwrap().is_busy = true;
    asked.lock().unwrap().titles.clear();
    let (succeeded, said) = enrich(data.path(), port, &["--again"]).await;
    assert!(!succeeded && said.contains("Wikipedia asks for a pause"), "{said}");
    assert_eq!(asked.lock().unwrap().titles.len(), 1);
    assert!(profile("UA").await.is_some());
}
