//! `submit-job evaluate --live`: how the answers that were given turned out, and the champion taken
//! back when it does badly.

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Days, NaiveDate, Utc};
use clap::Args;
use cluster::settings::Setting;
use events::{DLQ_SUFFIX, LiveEvaluation, PredictionRequest, REQUEST_TOPIC, RESPONSE_TOPIC};
use jobs::lease::while_reading;
use jobs::live::arrivals::{TakenIn, take_in};
use jobs::live::{self, Bounds, Live, evaluate_live, why_back};
use jobs::models::promotion::roll_back;
use jobs::models::registry;
use serde_json::{Value, json};
use store::Store;

use crate::context::JobContext;
use crate::predict::day;
use crate::progress::{print, say};
use crate::servers::{KafkaClientArgs, StoreArgs};

/// Days that are looked at unless others are named.
const DAYS: u64 = 30;

/// Arguments of `evaluate --live`.
#[derive(Debug, Args)]
pub struct LiveArgs {
    /// Instead, how the answers that were given turned out: against flights that were ingested, and
    /// arrivals that came on a topic of Kafka
    #[arg(long, conflicts_with = "model")]
    pub live: bool,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Kafka brokers, host:port with commas between [default: what came before, and flights]
    #[arg(long, env = "TARMAC_KAFKA")]
    pub kafka: Option<String>,
    /// How they are spoken to.
    #[command(flatten)]
    pub client: KafkaClientArgs,
    /// Topic of arrivals
    #[arg(long, env = "TARMAC_ARRIVAL_TOPIC", default_value = events::ARRIVAL_TOPIC)]
    pub arrival_topic: String,
    /// First day of departure, YYYY-MM-DD [default: 30 days before the last]
    #[arg(long, value_name = "DAY", value_parser = day, requires = "live")]
    pub since: Option<NaiveDate>,
    /// Last day of departure [default: today, UTC]
    #[arg(long, value_name = "DAY", value_parser = day, requires = "live")]
    pub until: Option<NaiveDate>,
    /// Make the champion before the present one the champion again when one of the bounds is
    /// exceeded
    #[arg(long, requires = "live")]
    pub auto_rollback: bool,
    /// Largest log loss of the champion on answers whose outcome is known, of those that it gave as
    /// the champion
    #[arg(long, value_name = "LOSS", value_parser = bound)]
    #[arg(requires = "auto_rollback")]
    pub log_loss_max: Option<f64>,
    /// Largest drift of a feature, those of the calendar aside, in a stream that runs, as
    /// population stability index; above 0.25 flights are others than those of the training
    #[arg(long, value_name = "INDEX", value_parser = bound)]
    #[arg(requires = "auto_rollback")]
    pub drift_max: Option<f64>,
    /// Known answers of the champion below which its log loss says nothing
    #[arg(long, value_name = "N", default_value_t = 500, requires = "auto_rollback")]
    pub answers_min: u64,
}

/// A number above 0.
fn bound(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "not a number above 0".to_owned())
}

impl LiveArgs {
    fn days(&self, now: DateTime<Utc>, recent_from: String) -> Result<live::Days> {
        let until = self.until.unwrap_or_else(|| now.date_naive());
        let since = self.since.or_else(|| until.checked_sub_days(Days::new(DAYS)));
        let since = since.context("--until: there are no days before it")?;
        ensure!(since <= until, "--since {since} is after --until {until}");
        Ok(live::Days { since, until, recent_from })
    }
}

/// Takes arrivals in, evaluates answers, prints the evaluations as JSON, and takes the champion
/// back if that was asked for and must be. `kafka` are properties of librdkafka, if there are
/// arrivals.
pub async fn run_evaluate_live(
    opened: &JobContext,
    args: &LiveArgs,
    store: &Store,
    kafka: Option<Vec<Setting>>,
    now: fn() -> DateTime<Utc>,
) -> Result<Value> {
    let JobContext { ctx, lake, id, shown, .. } = opened;
    // by what it answered before it became the champion, or again, nobody judges it
    let since = registry::champion_since(lake).await?.unwrap_or_default();
    let days = args.days(now(), PredictionRequest::timestamp(since))?;
    let topic = &args.arrival_topic;
    let is_other =
        [REQUEST_TOPIC, RESPONSE_TOPIC].contains(&&**topic) || topic.ends_with(DLQ_SUFFIX);
    ensure!(
        !is_other,
        "--arrival-topic {topic} is a topic of requests or answers, not of arrivals"
    );
    if let Some(properties) = kafka {
        match take_in(&properties, store, topic).await? {
            Some(taken) => tell(topic, &taken),
            None => say(&format!("there is no topic {topic} of arrivals")),
        }
    }
    let show = |progress| shown.show(progress);
    let evaluating = evaluate_live(ctx, lake, store, id, &days, &show);
    let evaluated = while_reading(lake, id, &show, evaluating).await;
    shown.clear();
    let live = evaluated?;
    if live.days.is_empty() {
        let live::Days { since, until, .. } = days;
        say(&format!(
            "there are no answers about flights of {since} to {until}; --since and --until name \
             other days"
        ));
    }
    let all = |all: &[LiveEvaluation], without: &[&str]| {
        let of = |live: &LiveEvaluation| {
            let mut of = serde_json::to_value(live)?;
            if let Some(fields) = of.as_object_mut() {
                fields.retain(|name, _| !without.contains(&name.as_str()));
            }
            anyhow::Ok(of)
        };
        all.iter().map(of).collect::<Result<Vec<_>>>()
    };
    let mut result = json!({
        "since": days.since,
        "until": days.until,
        "models": all(&live.models, &["_id", "Day"])?,
        "days": all(&live.days, &["_id"])?,
        "unasked": live.n_unasked,
        "unread": live.n_unread,
    });
    let judged = match args.auto_rollback {
        true => judge(opened, args, store, &live, now()).await,
        false => Ok(None),
    };
    if let Ok(Some((gone, back))) = &judged {
        result["taken_back"] = gone.as_str().into();
        result["champion"] = back.as_str().into();
    }
    // what is known is told, whatever became of the champion
    print(&serde_json::to_string_pretty(&result)?)?;
    judged.map(|_| result)
}

/// Says what came on the topic.
fn tell(topic: &str, taken: &TakenIn) {
    let TakenIn { n_messages, n_rejects, bad, n_deleted, other_logs } = taken;
    if *n_deleted > 0 {
        say(&format!(
            "{n_deleted} messages on {topic} were deleted by Kafka before they were read"
        ));
    }
    for why in other_logs {
        say(&format!("another log, read from its beginning: {why}"));
    }
    say(&format!("{n_messages} messages came on {topic}"));
    if *n_rejects > 0 {
        say(&format!("{n_rejects} of them are no arrivals:"));
        bad.iter().for_each(|why| say(&format!("  {why}")));
    }
}

/// Takes the champion back if a bound is exceeded; returns both versions, the one that goes first.
async fn judge(
    opened: &JobContext,
    args: &LiveArgs,
    store: &Store,
    live: &Live,
    now: DateTime<Utc>,
) -> Result<Option<(String, String)>> {
    let JobContext { lake, id, .. } = opened;
    let (log_loss, drift) = (args.log_loss_max, args.drift_max);
    let bounds = Bounds { log_loss, drift, answers_min: args.answers_min };
    let champions = registry::champions(lake).await?;
    let champion = champions.first().context("there is no champion to take back")?;
    let Some(reason) = why_back(store, live, champion, &bounds, now).await? else {
        return Ok(None);
    };
    if champions.len() < 2 {
        say(&format!("{champion} stays the champion, because there was none before: {reason}"));
        return Ok(None);
    }
    let (gone, back) = roll_back(lake, id, Some(champion), Some(reason.clone())).await?;
    say(&format!("champion is {back} again; {gone} is not any more: {reason}"));
    Ok(Some((gone, back)))
}
