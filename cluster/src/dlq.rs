//! `submit-job dlq`: the messages that could not be read, as a table, whole, and sent again.

use anyhow::Result;
use chrono::{DateTime, SecondsFormat};
use clap::{Args, Subcommand};
use jobs::dead_letters::{Letter, replay, scan};
use jobs::sink::headers;

use crate::progress::{print, say};
use crate::servers::KafkaArgs;
use crate::session::Setting;

/// Characters of a reason in the list.
const REASON_SHOWN: usize = 80;

/// Arguments of `dlq`.
#[derive(Debug, Args)]
pub struct Dlq {
    /// What to do
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// One line a letter
    List(Which),
    /// Letters whole: headers, key and value
    Show(Which),
    /// Send them to the topic that they came from; what can be read now is answered
    Replay(Which),
}

/// Which letters.
#[derive(Debug, Args)]
pub struct Which {
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Condition in SQL over dlq_partition, dlq_offset, written_at, source_topic,
    /// source_partition, source_offset, job, reason, bytes and value
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,
}

impl Dlq {
    /// Where the topic is.
    pub fn kafka(&self) -> &KafkaArgs {
        let (Action::List(which) | Action::Show(which) | Action::Replay(which)) = &self.action;
        &which.kafka
    }
}

/// Does it.
pub async fn run_dlq(args: &Dlq, properties: &[Setting]) -> Result<()> {
    let (Action::List(which) | Action::Show(which) | Action::Replay(which)) = &args.action;
    let topics = which.kafka.topics();
    let mut n_letters = 0;
    if let Action::List(_) = &args.action {
        print("LETTER       WRITTEN                   FROM         BYTES  REASON");
    }
    scan(properties, &topics, which.condition.as_deref(), async |letters: Vec<Letter>| {
        n_letters += letters.len();
        match &args.action {
            Action::List(_) => letters.iter().for_each(|letter| print(&line(letter))),
            Action::Show(_) => letters.iter().for_each(|letter| print(&whole(letter))),
            Action::Replay(_) => replay(properties, &topics, &letters).await?,
        }
        Ok(())
    })
    .await?;
    match &args.action {
        Action::Replay(_) => say(&format!("sent {n_letters} letters to {}", topics.requests)),
        _ => say(&format!("{n_letters} letters in {}", topics.dead_letters)),
    }
    Ok(())
}

fn line(letter: &Letter) -> String {
    let header = |name| letter.header(name).unwrap_or("-");
    let place = format!("{}/{}", letter.partition, letter.offset);
    let from = format!("{}/{}", header(headers::PARTITION), header(headers::OFFSET));
    let reason: String = header(headers::REASON).chars().take(REASON_SHOWN).collect();
    let n_bytes = letter.value.as_ref().map_or(0, Vec::len);
    format!("{place:12} {:25} {from:12} {n_bytes:>5}  {reason}", written(letter))
}

fn written(letter: &Letter) -> String {
    let time = letter.created_ms.and_then(DateTime::from_timestamp_millis);
    time.map_or("-".into(), |time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

fn whole(letter: &Letter) -> String {
    let text = |bytes: &Option<Vec<u8>>| match bytes {
        Some(bytes) => bytes.escape_ascii().to_string(),
        None => "(none)".to_owned(),
    };
    let mut lines = vec![format!("{}/{}", letter.partition, letter.offset)];
    lines.push(format!("  written: {}", written(letter)));
    lines.extend(letter.headers.iter().map(|(key, value)| format!("  {key}: {value}")));
    lines.push(format!("  key: {}", text(&letter.key)));
    lines.push(format!("  value: {}", text(&letter.value)));
    lines.join("\n")
}
