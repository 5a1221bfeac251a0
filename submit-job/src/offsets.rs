//! `submit-job stream offsets`: how far a stream is, and where it reads on.

use anyhow::Result;
use clap::{Args, Subcommand};
use cluster::settings::Setting;
use jobs::stream::offsets::{PartitionOffsets, Target, reset, show};
use jobs::stream::request_log::Verdict;
use store::Store;

use crate::progress::{print, say};
use crate::servers::{GROUP, KafkaArgs, StoreArgs};

/// Arguments of `stream offsets`.
#[derive(Debug, Clone, Args)]
pub struct Offsets {
    /// What to do
    #[command(subcommand)]
    pub action: OffsetsAction,
}

/// What to do with offsets.
#[derive(Debug, Clone, Subcommand)]
pub enum OffsetsAction {
    /// How far the group is in each partition, and whether that is of the log that is there
    Show(Group),
    /// Read on from somewhere else; a stream that runs does so too, and answers stay as they are
    Reset {
        /// Which group.
        #[command(flatten)]
        group: Group,
        /// Where: earliest, latest, an offset, or a time such as 2026-11-27T10:00:00Z
        #[arg(long)]
        to: Target,
        /// Partition [default: all]
        #[arg(long)]
        partition: Option<i32>,
    },
}

/// Whose offsets.
#[derive(Debug, Clone, Args)]
pub struct Group {
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Consumer group
    #[arg(long, env = "TARMAC_GROUP", default_value = GROUP)]
    pub group: String,
}

impl Offsets {
    /// Whose.
    pub fn group(&self) -> &Group {
        match &self.action {
            OffsetsAction::Show(group) | OffsetsAction::Reset { group, .. } => group,
        }
    }
}

/// Does it.
pub async fn run_offsets(store: &Store, args: &Offsets, properties: &[Setting]) -> Result<()> {
    let Group { kafka, group, .. } = args.group();
    let topic = &kafka.names.request_topic;
    match &args.action {
        OffsetsAction::Show(_) => {
            print("PARTITION       NEXT  PUBLISHED      BEGIN        END        LAG  LOG")?;
            for offsets in show(properties, store, group, topic).await? {
                print(&line(&offsets))?;
            }
        }
        OffsetsAction::Reset { to, partition, .. } => {
            for (partition, before, now) in
                reset(properties, store, group, topic, *partition, to).await?
            {
                say(&format!("{topic}/{partition}: from {before} to {now}"));
            }
        }
    }
    Ok(())
}

fn line(offsets: &PartitionOffsets) -> String {
    let PartitionOffsets { partition, stored, found, verdict } = offsets;
    let (begin, end) = (found.begin, found.end);
    let Some(lease) = stored else {
        let lag = end - begin;
        return format!(
            "{partition:>9} {:>10} {:>10} {begin:>10} {end:>10} {lag:>10}  never read",
            "-", "-"
        );
    };
    let lag = (end - lease.next.max(begin)).max(0);
    let log = match verdict {
        Verdict::Same => "the same",
        Verdict::Other(why) => why,
    };
    let (next, published) = (lease.next, lease.published);
    format!("{partition:>9} {next:>10} {published:>10} {begin:>10} {end:>10} {lag:>10}  {log}")
}
