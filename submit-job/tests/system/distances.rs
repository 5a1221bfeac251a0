//! Distances from a file to the data root, the store and a stream that runs.

use mongodb::bson::{Bson, Document, doc};
use serde_json::json;

use crate::setup::{Process, World, request, run, submit_job};

const FLIGHTS: [&str; 4] = ["ingest", "--rejects-max", "0.5", "data/fixtures/bts_new.csv"];
const FILE: [&str; 9] = [
    r#"{"Origin":"EWR","Dest":"JFK","Distance":21.0}"#,
    r#"{"Origin":"EWR","Dest":"EWR","Distance":1.0}"#,
    "{",
    r#"{"Origin":"EWR","Dest":"LGA"}"#,
    r#"{"Origin":"EWR","Dest":"$ne","Distance":5}"#,
    r#"{"ORIGIN":"dfw","dest":"mem","Distance":{"$numberDouble":"432.5"}}"#,
    r#"{"Origin":"EWR","Dest":"JFK","Distance":22}"#,
    r#"["EWR","IAH",1400]"#,
    r#"{"Origin":"EWR","Dest":"IAH","Distance":"far"}"#,
];

#[tokio::test]
async fn imported_distances_reach_the_store_and_a_running_stream() {
    let world = World::start().await;
    world.learn_little();
    let import = |arguments: &[&str]| {
        let mut job = submit_job(&world.data());
        job.args(["import-distances", "--mongo", &world.mongo_url]);
        let output = job.args(arguments).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let published = |filter: Document| world.documents_of("origin_dest_distances", filter);
    let (code, said) = import(&[]);
    assert!(code == 0 && said.contains("distances are in"), "{said}");
    let flown = published(doc! { "Origin": "DFW", "Dest": "MEM" }).await;
    assert_eq!(flown[0].get_f64("Distance").unwrap(), 432.0);

    let _stream = Process::start(&mut world.stream(&["--trigger", "interval:300ms"]));
    // airports between which nobody flew, by somebody who does not know how far it is
    let ask = async |number| {
        let mut asked = request(number, "UA", "EWR", "JFK", 20.0);
        asked["Distance"] = json!(null);
        world.send(asked.to_string().as_bytes()).await;
        world.answer(number).await
    };
    assert_eq!(ask(1).await.get("Distance"), Some(&Bson::Null));

    let file = world.data().join("distances.jsonl");
    std::fs::write(&file, FILE.join("\r\n")).unwrap();
    let (code, said) = import(&[file.to_str().unwrap()]);
    assert_eq!(code, 1, "{said}");
    for want in [
        "2 distances imported, 0 updated, 0 as they were, 7 failed",
        "line 2: origin and dest are both EWR",
        "line 3: not JSON: EOF while parsing",
        "line 4: there is no distance",
        "line 5: dest is no code of an airport: $ne",
        "line 7: an earlier line says 21 miles",
        "line 8: not a JSON object",
        "line 9: distance is no number of miles above 0 and up to 12451: far",
        "7 lines were not imported",
    ] {
        assert!(said.contains(want), "{want:?} is not in {said}");
    }
    let found = published(doc! { "Origin": "DFW", "Dest": "MEM" }).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].get_f64("Distance").unwrap(), 432.5, "it takes precedence");
    let same = doc! { "Origin": "DFW", "Dest": "MEM", "Distance": 1.0 };
    let collection = world.collection("origin_dest_distances").await;
    let error = collection.insert_one(same).await.unwrap_err().to_string();
    assert!(error.contains("duplicate key"), "{error}");

    // a micro-batch every 0.3 s, a look every 10 s
    let mut miles = None;
    for number in 2..200 {
        miles = ask(number).await.get_f64("Distance").ok();
        if miles.is_some() {
            break;
        }
    }
    assert_eq!(miles, Some(21.0), "the stream does not take them");

    // an ingestion does not forget them
    run(submit_job(&world.data()).args(FLIGHTS));
    let ask = "SELECT distance_miles FROM distances WHERE dest IN ('JFK', 'MEM') ORDER BY dest";
    let rows = run(submit_job(&world.data()).args(["sql", "-c", ask]));
    assert!(rows.contains("21.0") && rows.contains("432.5"), "{rows}");
    // what is unchanged is said to be
    let (_, said) = import(&[file.to_str().unwrap()]);
    assert!(said.contains("0 distances imported, 0 updated, 2 as they were, 7 failed"), "{said}");
    // what was imported can be forgotten
    std::fs::write(&file, r#"{"Origin":"EWR","Dest":"JFK","Distance":"20"}"#).unwrap();
    let (code, said) = import(&[file.to_str().unwrap(), "--replace"]);
    assert!(code == 0 && said.contains("1 distances imported, 0 updated"), "{said}");
    let rows = run(submit_job(&world.data()).args(["sql", "-c", ask]));
    assert!(rows.contains("20.0") && rows.contains("432.0"), "{rows}");
    // and a file without any changes nothing
    std::fs::write(&file, "[]\n").unwrap();
    let (code, said) = import(&[file.to_str().unwrap()]);
    assert!(code == 1 && said.contains("there is no distance in it: line 1: "), "{said}");
}
