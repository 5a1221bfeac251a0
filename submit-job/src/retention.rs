//! How long what is written stays: in the store, which forgets by itself, and under the data root,
//! where `submit-job gc` deletes.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use events::{
    ANSWERS, ARRIVAL_REJECTIONS, ARRIVALS, PREDICTION_RESULTS, PREDICTION_TASKS, REJECTIONS,
    REPLAYED_DEAD_LETTERS, STREAM_OFFSETS, STREAM_STATUS,
};
use jobs::gc::{self, Ages};
use jobs::lake::Lake;
use jobs::models::registry;
use store::Store;

use crate::progress::{print, say};

/// How often the rules are set, and a store that does not delete by itself is swept.
const APPLY_EVERY: Duration = Duration::from_secs(3600);

/// Seconds of a day.
const DAY: u64 = 24 * 3600;

/// An age, or none: what has none stays for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Age(Option<Duration>);

impl FromStr for Age {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "forever" {
            return Ok(Self(None));
        }
        let age = humantime::parse_duration(text);
        Ok(Self(Some(age.context("an age is like 90d or 12h, or it is forever")?)))
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            // its months are of 30.44 days
            Some(age) if age.as_secs() % DAY == 0 => write!(f, "{}d", age.as_secs() / DAY),
            Some(age) => write!(f, "{}", humantime::format_duration(age)),
            None => f.write_str("forever"),
        }
    }
}

/// How long documents of a stream stay in the store. All streams of a store should say the same.
#[derive(Debug, Clone, Args)]
pub struct KeepArgs {
    /// How long answers stay in the store, and arrivals, such as 90d, or forever. It must be longer
    /// than the topic keeps requests: one that is read again after its answer is gone is answered
    /// again
    #[arg(
        long,
        value_name = "AGE",
        env = "TARMAC_KEEP_ANSWERS",
        default_value_t = Self::default().keep_answers
    )]
    pub keep_answers: Age,
    /// How long it stays in the store why a request was rejected
    #[arg(
        long,
        value_name = "AGE",
        env = "TARMAC_KEEP_REJECTIONS",
        default_value_t = Self::default().keep_rejections
    )]
    pub keep_rejections: Age,
    /// How long requests of the nightly batch stay in the store, and their answers
    #[arg(
        long,
        value_name = "AGE",
        env = "TARMAC_KEEP_TASKS",
        default_value_t = Self::default().keep_tasks
    )]
    pub keep_tasks: Age,
    /// How long offsets stay in the store after the last stream of their group has ended
    #[arg(
        long,
        value_name = "AGE",
        env = "TARMAC_KEEP_OFFSETS",
        default_value_t = Self::default().keep_offsets
    )]
    pub keep_offsets: Age,
}

impl Default for KeepArgs {
    fn default() -> Self {
        let [month, quarter] = [30, 90].map(|days| Age(Some(Duration::from_secs(days * DAY))));
        Self {
            keep_answers: quarter,
            keep_rejections: month,
            keep_tasks: quarter,
            keep_offsets: month,
        }
    }
}

impl KeepArgs {
    fn ages(&self) -> [(&'static str, Age); 9] {
        [
            (ANSWERS, self.keep_answers),
            (REPLAYED_DEAD_LETTERS, self.keep_answers),
            (ARRIVALS, self.keep_answers),
            (REJECTIONS, self.keep_rejections),
            (ARRIVAL_REJECTIONS, self.keep_rejections),
            (PREDICTION_TASKS, self.keep_tasks),
            (PREDICTION_RESULTS, self.keep_tasks),
            (STREAM_OFFSETS, self.keep_offsets),
            (STREAM_STATUS, self.keep_offsets),
        ]
    }

    /// Warns when requests outlive their answers.
    pub fn check(&self, topic: &str, requests_kept: Option<Duration>) {
        if let (Age(Some(answers)), Some(requests)) = (self.keep_answers, requests_kept)
            && requests > answers
        {
            let requests = if requests == Duration::MAX { None } else { Some(requests) };
            tracing::warn!(
                topic,
                requests = %Age(requests),
                answers = %self.keep_answers,
                "requests are kept longer than their answers: one that is read again may be \
                 answered again; raise --keep-answers, or lower retention.ms of the topic"
            );
        }
    }

    /// Has the store forget, from time to time, as long as it is polled. Nothing depends on it.
    pub async fn apply(&self, store: &Store) -> Infallible {
        loop {
            for (collection, Age(age)) in self.ages() {
                if let Err(error) = store.keep_for(collection, age).await {
                    let error = format!("{error:#}");
                    tracing::warn!(collection, error, "old documents are not deleted");
                }
            }
            tokio::time::sleep(APPLY_EVERY).await;
        }
    }
}

/// Arguments of `gc`.
#[derive(Debug, Args)]
pub struct Gc {
    /// Only say what would be deleted
    #[arg(long)]
    pub dry_run: bool,
    /// How long records of jobs that have ended stay, with the rows that they refused and what they
    /// left when they died
    #[arg(long, value_name = "AGE", env = "TARMAC_KEEP_JOBS", default_value = "90d")]
    pub keep_jobs: Age,
    /// How long models stay that were not champion among the last 50, and that no record names
    #[arg(long, value_name = "AGE", env = "TARMAC_KEEP_MODELS", default_value = "90d")]
    pub keep_models: Age,
    /// How long predictions of `score` stay
    #[arg(long, value_name = "AGE", env = "TARMAC_KEEP_PREDICTIONS", default_value = "forever")]
    pub keep_predictions: Age,
    /// Model that stays, such as the challenger of a stream; may be repeated
    #[arg(long, value_name = "MODEL")]
    pub keep: Vec<String>,
}

/// Deletes what has outlived its use under the data root, or says what that is.
pub async fn run_gc(lake: &Lake, args: &Gc, now: DateTime<Utc>) -> Result<()> {
    let mut keep = Vec::new();
    for start in &args.keep {
        keep.push(registry::find(lake, start).await?);
    }
    let ages = Ages {
        jobs: args.keep_jobs.0,
        models: args.keep_models.0,
        predictions: args.keep_predictions.0,
    };
    let (mut n, mut n_bytes) = (0, 0);
    for garbage in gc::find(lake, &ages, &keep, now).await? {
        if !args.dry_run && !gc::delete(lake, &garbage).await? {
            say(&format!("{} stays: it has become champion", garbage.what));
            continue;
        }
        n += 1;
        n_bytes += garbage.n_bytes();
        let written = garbage.written().map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true));
        let written = written.unwrap_or_default();
        print(&format!("{written}  {:>12} bytes  {}", garbage.n_bytes(), garbage.what))?;
    }
    let done = if args.dry_run { "would be deleted" } else { "deleted" };
    say(&format!("{done}: {n}, {n_bytes} bytes; {}", lake.root()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_read_and_shown_as_people_write_it() {
        for text in ["90d", "12h", "forever"] {
            let age: Age = text.parse().unwrap();
            assert_eq!(age.to_string(), text);
        }
        for text in ["", "90", "never", "-1d", "1000000000000000000000d"] {
            let error = format!("{:#}", text.parse::<Age>().unwrap_err());
            assert!(error.starts_with("an age is like 90d or 12h, or it is forever"), "{error}");
        }
    }
}
