//! Who becomes the champion, as a person and a schedule see it.

use serde_json::Value;

use crate::setup::{run, submit_job, trained};

#[test]
fn a_worse_model_is_kept_and_whoever_wants_it_can_have_it() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    run(submit_job(data).args(["ingest", "data/nycflights13/flights.parquet"]));
    let train = |flags: &[&str]| {
        trained(&mut submit_job(data), &[&["--preset", "original"], flags].concat())
    };
    let models = |arguments: &[&str]| run(submit_job(data).arg("models").args(arguments));
    let champion = || {
        let shown: Value = serde_json::from_str(&models(&["show"])).unwrap();
        (shown["model"].clone(), shown["decisions"][0].as_str().unwrap().to_owned())
    };

    let first = train(&["--trees", "5"]);
    assert_eq!(
        (&first["promoted"], &first["decision"]),
        (&true.into(), &"champion: there was none".into())
    );
    let worse = train(&["--trees", "5", "--depth", "1"]);
    let decision = worse["decision"].as_str().unwrap();
    assert!(
        decision.starts_with("not champion: it may be worse by 0.005: log loss "),
        "{decision}"
    );
    assert!(decision.contains(" of 73 days that neither was trained on"), "{decision}");
    assert_eq!(worse["promoted"], false);
    assert_eq!(champion().0, first["model"]);

    let version = worse["model"].as_str().unwrap();
    let said = models(&["promote", &version[..10], "--if-better"]);
    assert_eq!(said.trim(), format!("{version}: {decision}"));
    assert_eq!(champion().0, first["model"]);
    models(&["promote", &version[..10]]);
    assert_eq!(champion(), (worse["model"].clone(), "champion, because that was asked for".into()));

    // what is better comes back by the same gate, and --no-promote leaves it out
    let said = models(&["promote", first["model"].as_str().unwrap(), "--if-better"]);
    assert!(said.contains(": champion: no worse than the one before: log loss "), "{said}");
    let third = train(&["--trees", "6", "--no-promote"]);
    assert_eq!(third["promoted"], false);
    assert_eq!(champion().0, first["model"]);
    let forced = train(&["--trees", "5", "--depth", "1", "--seed", "2", "--force"]);
    let (model, mark) = champion();
    assert_eq!(model, forced["model"]);
    assert!(mark.starts_with("champion, because that was asked for: log loss "), "{mark}");

    // what is not known or cannot be compared is said
    let unknown =
        submit_job(data).args(["models", "promote", "zzzz", "--if-better"]).output().unwrap();
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert!(!unknown.status.success() && said.contains("there is no model zzzz under"), "{said}");
}
