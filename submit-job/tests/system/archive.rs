//! Answers as Parquet: each message once, whatever dies and however often it is tried.

use std::path::{Path, PathBuf};

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Int32Type, Int64Type};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use mongodb::bson::Bson;

use crate::setup::{REQUESTS, Stream, World, send_signal, until, uuid};

const BOUNDED: [&str; 3] = ["--trigger", "available-now", "--archive"];

/// Files of the archive of a partition, in order.
fn files(world: &World, partition: i32) -> Vec<PathBuf> {
    let directory = format!("archive/group=tarmac-stream/topic={REQUESTS}/partition={partition}");
    let Ok(entries) = std::fs::read_dir(world.data().join(directory)) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn name(file: &Path) -> &str {
    file.file_name().unwrap().to_str().unwrap()
}

fn batches(file: &Path) -> Vec<RecordBatch> {
    let file = std::fs::File::open(file).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    reader.map(|batch| batch.unwrap()).collect()
}

/// Offset, UUID, status and class of each row.
fn rows(files: &[PathBuf]) -> Vec<(i64, String, String, Option<i32>)> {
    let mut rows = Vec::new();
    for batch in files.iter().flat_map(|file| batches(file)) {
        let column = |name: &str| batch.column_by_name(name).unwrap();
        let (uuids, states) = (column("uuid"), column("status"));
        let (uuids, states) = (uuids.as_string::<i32>(), states.as_string::<i32>());
        let offsets = column("request_offset").as_primitive::<Int64Type>().values();
        let classes = column("prediction").as_primitive::<Int32Type>();
        for (row, class) in classes.iter().enumerate() {
            let (uuid, state) = (uuids.value(row).to_owned(), states.value(row).to_owned());
            rows.push((offsets[row], uuid, state, class));
        }
    }
    rows
}

#[tokio::test]
async fn each_answer_is_archived_once_whatever_dies() {
    let world = World::start().await;
    let models = world.learn_little();
    world.make_topic(1).await;
    world.ask(1..21).await;
    // a letter that cannot be read, although it names a request that has an answer
    let bad = serde_json::json!({ "UUID": uuid(7), "DepDelay": "soon" });
    world.send(bad.to_string().as_bytes()).await;
    // one that was asked before has the same answer
    world.ask(5..6).await;
    let log = world.catch_up(&BOUNDED[2..]);
    let first = files(&world, 0);
    assert_eq!(first.len(), 1, "{log}");
    assert_eq!(name(&first[0]), "0000-00000000000000000000.parquet");

    // nothing came, and it is archived again
    world.catch_up(&BOUNDED[2..]);
    assert_eq!(files(&world, 0), first);

    // one that dies after its answers are stored, and before they are archived
    world.ask(21..41).await;
    let mut dies = world.stream(&BOUNDED);
    assert!(!dies.args(["--crash-at", "stored"]).status().unwrap().success());
    assert_eq!(files(&world, 0), first);
    world.ask(41..51).await;
    world.catch_up(&["--archive", "--expire-after", "1"]);
    let both = files(&world, 0);
    assert_eq!(
        both.iter().map(|file| name(file)).collect::<Vec<_>>()[1..],
        ["0000-00000000000000000022.parquet"]
    );

    let rows = rows(&both);
    let offsets: Vec<i64> = rows.iter().map(|row| row.0).collect();
    let all: Vec<i64> = (0..52).filter(|offset| *offset != 20).collect();
    assert_eq!(offsets, all);
    let answers = world.answers().await;
    for (offset, uuid, state, class) in &rows {
        let answer = &answers[uuid];
        assert_eq!(answer.get_str("status").unwrap(), state, "{offset}");
        let stored = answer.get("Prediction").and_then(Bson::as_i32);
        assert_eq!(stored, *class, "{offset}");
    }
    let expired = rows.iter().filter(|row| row.2 == "expired").count();
    assert_eq!((rows[20].1.clone(), expired), (uuid(5), 10));
    let batch = &batches(&both[0])[0];
    let text = |name: &str| {
        let column = batch.column_by_name(name).unwrap();
        datafusion::arrow::util::display::array_value_to_string(column, 0).unwrap()
    };
    let answer = &answers[&rows[0].1];
    let answered_at = text("answered_at").replace('Z', "");
    assert!(answer.get_str("AnsweredAt").unwrap().starts_with(&answered_at), "{answered_at}");
    assert_eq!((&*text("flight_date"), &*text("model_version")), ("2016-12-25", &*models[0]));
    let shares = answer.get_array("Probabilities").unwrap();
    let shares: Vec<String> =
        shares.iter().map(|share| format!("{:?}", share.as_f64().unwrap())).collect();
    assert_eq!(text("probabilities"), format!("[{}]", shares.join(", ")));
    let changes = answer.get_array("LateContributions").unwrap();
    let changes: Vec<String> = changes.iter().map(|c| c.as_i32().unwrap().to_string()).collect();
    assert_eq!(text("late_contributions"), format!("[{}]", changes.join(", ")));
    assert_eq!(changes.len(), 9, "the features of the original's forest");

    // another log of that name is archived beside the one before
    world.delete_topic(REQUESTS).await;
    world.make_topic(1).await;
    world.ask(61..64).await;
    world.catch_up(&BOUNDED[2..]);
    let three = files(&world, 0);
    assert_eq!((three.len(), name(&three[2])), (3, "0001-00000000000000000000.parquet"));
    let archived: Vec<String> = self::rows(&three[2..]).into_iter().map(|row| row.1).collect();
    assert_eq!(archived, (61..64).map(uuid).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_process_that_was_away_archives_behind_what_another_one_has_archived() {
    let world = World::start().await;
    world.learn_little();
    world.make_topic(4).await;
    let arguments = ["--trigger", "interval:200ms", "--archive", "--archive-every", "1"];
    let archived = async |wave: u32, stream: &Stream| {
        world.ask(wave * 100..(wave + 1) * 100).await;
        let n = (wave as usize + 1) * 100;
        until(&format!("{n} answers in the archive: {}", stream.log()), || {
            let all = (0..4).map(|partition| rows(&files(&world, partition)).len());
            (all.sum::<usize>() >= n).then_some(())
        });
    };
    let first = Stream::start(&world, "first", &arguments);
    archived(0, &first).await;
    send_signal(&first.process.pid(), "STOP");
    let second = Stream::start(&world, "second", &arguments);
    archived(1, &second).await;
    archived(2, &second).await;
    // it knows only where the archive ended when it was stopped
    drop(second);
    send_signal(&first.process.pid(), "CONT");
    archived(3, &first).await;
    archived(4, &first).await;

    let mut uuids = Vec::new();
    for partition in 0..4 {
        let rows = rows(&files(&world, partition));
        let offsets: Vec<i64> = rows.iter().map(|row| row.0).collect();
        assert_eq!(offsets, (0..offsets.len() as i64).collect::<Vec<_>>());
        uuids.extend(rows.into_iter().map(|row| row.1));
    }
    uuids.sort();
    assert_eq!(uuids, (0..500).map(uuid).collect::<Vec<_>>());
}
