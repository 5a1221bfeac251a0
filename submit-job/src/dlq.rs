//! `submit-job dlq`: the messages that could not be read, as a table, whole, and sent again.

use anyhow::Result;
use chrono::{DateTime, SecondsFormat};
use clap::{Args, Subcommand};
use cluster::settings::Setting;
use jobs::lake::Lake;
use jobs::stream::dead_letters::{Letter, Replayed, replay, scan};
use jobs::stream::sink::headers;

use crate::config::Environment;
use crate::progress::{print, say};
use crate::servers::{KafkaArgs, StoreArgs};

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
    /// Send them to the topic that they came from, each once; what can be read now is answered
    Replay {
        /// Which letters.
        #[command(flatten)]
        which: Which,
        /// Where it is remembered what was sent.
        #[command(flatten)]
        store: StoreArgs,
        /// Send what was sent before too
        #[arg(long)]
        again: bool,
    },
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
        &self.which().kafka
    }

    fn which(&self) -> &Which {
        match &self.action {
            Action::List(which) | Action::Show(which) | Action::Replay { which, .. } => which,
        }
    }
}

/// Does it.
pub async fn run_dlq(
    lake: &Lake,
    args: &Dlq,
    properties: &[Setting],
    around: &Environment,
) -> Result<()> {
    let which = args.which();
    let topics = which.kafka.topics()?;
    let store = match &args.action {
        Action::Replay { store, .. } => Some(store.open(lake, around).await?),
        _ => None,
    };
    if let Action::List(_) = &args.action {
        print("LETTER       WRITTEN                   FROM         BYTES  REASON")?;
    }
    let (mut n_letters, mut sum) = (0, Replayed::default());
    scan(properties, &topics, which.condition.as_deref(), async |letters: Vec<Letter>| {
        n_letters += letters.len();
        match (&args.action, &store) {
            (Action::List(_), _) => letters.iter().try_for_each(|letter| print(&line(letter)))?,
            (Action::Replay { again, .. }, Some(store)) => {
                let replayed = replay(properties, &topics, store, &letters, *again).await?;
                sum.n_sent += replayed.n_sent;
                sum.n_known += replayed.n_known;
                sum.n_stubs += replayed.n_stubs;
            }
            _ => letters.iter().try_for_each(|letter| print(&whole(letter)))?,
        }
        Ok(())
    })
    .await?;
    if store.is_none() {
        say(&format!("{n_letters} letters in {}", topics.dead_letters));
        return Ok(());
    }
    say(&format!("sent {} letters to {}", sum.n_sent, topics.requests));
    if sum.n_known > 0 {
        say(&format!("{} had been sent before; --again sends them again", sum.n_known));
    }
    if sum.n_stubs > 0 {
        say(&format!(
            "{} are stubs, of messages that were too large to be kept: they cannot be sent",
            sum.n_stubs
        ));
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
    let header = |(key, value): &(String, Option<Vec<u8>>)| format!("  {key}: {}", text(value));
    lines.extend(letter.headers.iter().map(header));
    lines.push(format!("  key: {}", text(&letter.key)));
    lines.push(format!("  value: {}", text(&letter.value)));
    lines.join("\n")
}
