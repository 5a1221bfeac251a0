//! Who became the champion, and why: the decision is kept beside the model.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::lake::Lake;
use crate::models::registry;

/// Flights below which a comparison says nothing.
pub const ROWS_MIN: u64 = 5_000;
/// Days below which their differences say nothing of other days.
pub const DAYS_MIN: usize = 5;
/// How much log loss a model may be worse by and still be taken for no worse.
pub const MARGIN: f64 = 0.005;
/// Decisions about a model that are remembered.
const DECISIONS_MAX: usize = 50;
/// Largest record that is read, in bytes.
const RECORD_BYTES_MAX: usize = 64 * 1024;

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// There was no champion.
    First,
    /// There was a champion that cannot score.
    ChampionUnusable,
    /// It is no worse than the champion.
    NotWorse,
    /// It is promoted against, or without, a comparison.
    Forced,
    /// The one that replaced it was taken back.
    RolledBack,
    /// It was the champion, and was taken back.
    TakenBack,
    /// It was the champion.
    IsChampion,
    /// It may be worse than the champion.
    Worse,
    /// Too few flights, or days, were held out by both.
    TooFewFlights,
    /// It was the champion and was taken back since.
    WasTakenBack,
    /// It was not to be promoted.
    NotAsked,
}

impl Decision {
    /// Whether it becomes the champion.
    pub fn promotes(self) -> bool {
        match self {
            Self::First | Self::ChampionUnusable | Self::NotWorse => true,
            Self::Forced | Self::RolledBack => true,
            Self::IsChampion | Self::Worse | Self::TooFewFlights => false,
            Self::NotAsked | Self::TakenBack | Self::WasTakenBack => false,
        }
    }
}

/// A decision and its reasons, kept beside the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Promotion {
    /// What was decided.
    pub decision: Decision,
    /// The job that decided.
    pub job: String,
    /// The comparison with the champion, where there was one.
    pub comparison: Option<Comparison>,
    /// Why, where that is not said by the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Two models on the flights that both held out. Differences are the model's log loss less the
/// champion's: below 0 it is better.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Version of the champion.
    pub champion: String,
    /// Flights.
    pub rows: u64,
    /// Days that they are of.
    pub days: usize,
    /// The model's log loss.
    pub log_loss: f64,
    /// The champion's.
    pub champion_log_loss: f64,
    /// Lower end of the 95 % interval of the difference.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Promotion {
    /// A decision without a comparison.
    pub fn new(decision: Decision, job: &str) -> Self {
        Self { decision, job: job.to_owned(), comparison: None, reason: None }
    }

    /// What was decided and why, in a sentence about the model.
    pub fn sentence(&self) -> String {
        let compared = self.comparison.as_ref().filter(|c| c.rows > 0);
        let compared = compared.map_or(String::new(), |c| {
            format!(
                ": log loss {:.4} against {:.4} of {} on {} flights of {} days that neither was \
                 trained on; difference {:+.4} … {:+.4}",
                c.log_loss,
                c.champion_log_loss,
                c.champion.get(..12).unwrap_or(&c.champion),
                c.rows,
                c.days,
                c.low,
                c.high
            )
        });
        let reason = self.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        match self.decision {
            Decision::First => "champion: there was none".into(),
            Decision::ChampionUnusable => "champion: the one before cannot score".into(),
            Decision::NotWorse => format!("champion: no worse than the one before{compared}"),
            Decision::Forced => format!("champion, because that was asked for{compared}"),
            Decision::RolledBack => {
                format!("champion again: the one after it was taken back{reason}")
            }
            Decision::TakenBack => format!("not champion any more: it was taken back{reason}"),
            Decision::IsChampion => "champion already".into(),
            Decision::Worse => format!("not champion: it may be worse by {MARGIN}{compared}"),
            Decision::TooFewFlights => format!(
                "not champion: fewer than {ROWS_MIN} flights, or than {DAYS_MIN} days, were held \
                 out by both{compared}"
            ),
            Decision::WasTakenBack => {
                format!("not champion: it was, and was taken back{reason}; --force promotes it")
            }
            Decision::NotAsked => format!("not champion, as asked for{compared}"),
        }
    }
}

fn record_of(version: &str) -> String {
    format!("models/{version}.promotion.json")
}

/// Keeps what was decided, and makes the saved model the champion if so.
pub async fn settle(lake: &Lake, version: &str, promotion: &Promotion) -> Result<()> {
    if promotion.decision == Decision::IsChampion {
        return Ok(());
    }
    note(lake, version, promotion).await?;
    match promotion.decision.promotes() {
        true => registry::promote(lake, version).await,
        false => Ok(()),
    }
}

/// Makes the champion before the present one the champion again, for this reason, which both keep;
/// returns both versions, the one that goes first.
///
/// Errors when the champion is not `champion` any more, where one is named.
pub async fn roll_back(
    lake: &Lake,
    job: &str,
    champion: Option<&str>,
    reason: Option<String>,
) -> Result<(String, String)> {
    // as with a promotion: what is written down may not have happened, but not the other way
    let (gone, back) = registry::before(lake, champion).await?;
    for (version, decision) in [(&gone, Decision::TakenBack), (&back, Decision::RolledBack)] {
        let promotion = Promotion { reason: reason.clone(), ..Promotion::new(decision, job) };
        note(lake, version, &promotion).await?;
    }
    registry::roll_back(lake, Some(&gone)).await?;
    Ok((gone, back))
}

async fn note(lake: &Lake, version: &str, promotion: &Promotion) -> Result<()> {
    let mut all = decisions(lake, version).await?;
    all.insert(0, promotion.clone());
    all.truncate(DECISIONS_MAX);
    lake.put(&record_of(version), serde_json::to_vec(&all)?).await
}

/// What was decided of a model, the latest first, as far as it was kept and can be read.
pub async fn decisions(lake: &Lake, version: &str) -> Result<Vec<Promotion>> {
    let kept = lake.get(&record_of(version), RECORD_BYTES_MAX).await?;
    Ok(kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
}
