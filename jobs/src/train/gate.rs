//! Whether a model becomes the champion: one decision, for trainings, people and schedules.
//!
//! Both models answer for the flights that neither was trained on, and their log losses are
//! compared day by day. The model becomes the champion unless it may be worse by more than a
//! margin: the upper end of the 95 % interval of the difference, by a paired bootstrap over the
//! days (Efron and Tibshirani, "An introduction to the bootstrap", 1993), must not be above it. On
//! too few flights nothing can be said, and the champion stays.

use std::sync::Arc;

use anyhow::{Result, ensure};
use datafusion::prelude::SessionContext;
use udf::model::scorer::Scorer;
use udf::train::sampling::hash;

use crate::features;
use crate::lake::Lake;
use crate::models::evaluation::{Evaluated, Evaluation};
use crate::models::promotion::{
    Comparison, DAYS_MIN, Decision, MARGIN, Promotion, ROWS_MIN, decisions,
};
use crate::models::registry;
use crate::train::training::{evaluate, register_training};

/// Times that the days are drawn anew.
const N_RESAMPLES: u64 = 2_000;
/// Share of the resamples that is left out at each end of the interval.
const TAIL: f64 = 0.025;

/// What is to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gate {
    /// The comparison.
    #[default]
    IfBetter,
    /// Whoever asked: it is promoted whatever the comparison says.
    Force,
    /// Nobody: it is not promoted.
    Never,
}

/// The champion that a model was compared with, for its report.
#[derive(Debug, Clone)]
pub struct Rival {
    /// Its version.
    pub version: String,
    /// The champion, on the flights that both held out.
    pub evaluation: Evaluation,
    /// The model, on the same flights.
    pub candidate: Evaluation,
    /// Importance by feature name.
    pub importances: Vec<(String, f64)>,
}

/// A model that is to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// What it will be called.
    pub version: &'a str,
    /// It.
    pub scorer: &'a Arc<Scorer>,
    /// How it did on the flights that it held out, where that is known.
    pub evaluated: Option<&'a Evaluated>,
}

/// Compares a model with the champion and decides. The flights are registered.
pub async fn judge(
    ctx: &SessionContext,
    lake: &Lake,
    job: &str,
    candidate: Candidate<'_>,
    gate: Gate,
) -> Result<(Promotion, Option<Rival>)> {
    let decided = |decision| Promotion::new(decision, job);
    let unless_asked = |decision| match gate {
        Gate::IfBetter => decision,
        Gate::Force => Decision::Forced,
        Gate::Never => Decision::NotAsked,
    };
    let champion = match registry::champion_if_sound(lake).await? {
        None => return Ok((decided(unless_asked(Decision::First)), None)),
        Some(Ok(champion)) if champion.version() == candidate.version => {
            return Ok((decided(Decision::IsChampion), None));
        }
        Some(Ok(champion)) => features::check(&champion).await.map(|()| Arc::new(champion)),
        Some(Err(flaw)) => Err(flaw),
    };
    let champion = match champion {
        Ok(champion) => champion,
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(error, "the champion before cannot be evaluated");
            return Ok((decided(unless_asked(Decision::ChampionUnusable)), None));
        }
    };
    let (comparison, rival) = compare(ctx, candidate, &champion).await?;
    // training again makes the same bytes; what they did since is not known from flights of before
    let taken_back = decisions(lake, candidate.version).await?.into_iter().next();
    let taken_back = taken_back.filter(|last| last.decision == Decision::TakenBack);
    let decision = match taken_back {
        Some(_) => unless_asked(Decision::WasTakenBack),
        None => unless_asked(verdict(&comparison)),
    };
    let reason = taken_back.and_then(|last| last.reason);
    Ok((Promotion { comparison: Some(comparison), reason, ..decided(decision) }, Some(rival)))
}

fn verdict(comparison: &Comparison) -> Decision {
    match comparison {
        c if c.rows < ROWS_MIN || c.days < DAYS_MIN => Decision::TooFewFlights,
        c if c.high <= MARGIN => Decision::NotWorse,
        _ => Decision::Worse,
    }
}

async fn compare(
    ctx: &SessionContext,
    candidate: Candidate<'_>,
    champion: &Arc<Scorer>,
) -> Result<(Comparison, Rival)> {
    let (model, other) = (candidate.scorer.model(), champion.model());
    let both = model.params.holdout.and(&other.params.holdout);
    let own = model.feature_names();
    let mut used = own.clone();
    used.extend(other.feature_names().into_iter().filter(|name| !own.contains(name)));
    register_training(ctx, &both, &used).await?;
    let of_candidate = match candidate.evaluated {
        Some(evaluated) if both == model.params.holdout => evaluated.clone(),
        _ => evaluate(ctx, candidate.scorer).await?,
    };
    let of_champion = evaluate(ctx, champion).await?;
    let [flights, other_flights] = [&of_candidate, &of_champion]
        .map(|of| of.days.iter().map(|day| (day.day, day.n_rows)).collect::<Vec<_>>());
    ensure!(
        flights == other_flights,
        "the held-out flights changed while two models were compared on them"
    );
    let pairs = of_candidate.days.iter().zip(&of_champion.days);
    let days: Vec<Day> =
        pairs.map(|(one, other)| (one.n_rows, one.log_loss, other.log_loss)).collect();
    let rival = Rival {
        version: champion.version().to_owned(),
        evaluation: of_champion.all,
        candidate: of_candidate.all,
        importances: other.feature_names().into_iter().zip(other.importances.clone()).collect(),
    };
    Ok((comparison(champion.version(), &days), rival))
}

/// A day: its flights, and the sums of the log losses of both models.
type Day = (u64, f64, f64);

fn comparison(champion: &str, days: &[Day]) -> Comparison {
    let rows = days.iter().map(|day| day.0).sum::<u64>();
    let sum = |of: fn(&Day) -> f64| days.iter().fold(0.0, |sum, day| sum + of(day));
    let mean = |of: fn(&Day) -> f64| sum(of) / rows.max(1) as f64;
    let mut differences: Vec<f64> = (0..N_RESAMPLES).map(|i| resampled(days, i)).collect();
    differences.sort_unstable_by(f64::total_cmp);
    let left_out = (N_RESAMPLES as f64 * TAIL) as usize;
    Comparison {
        champion: champion.to_owned(),
        rows,
        days: days.len(),
        log_loss: mean(|day| day.1),
        champion_log_loss: mean(|day| day.2),
        low: differences[left_out],
        high: differences[differences.len() - 1 - left_out],
    }
}

/// The difference over as many days, drawn with replacement.
fn resampled(days: &[Day], resample: u64) -> f64 {
    let n = days.len() as u64;
    let drawn = (0..n).map(|i| days[(hash(&[resample, i]) % n) as usize]);
    let (rows, difference) =
        drawn.fold((0, 0.0), |(rows, difference), day| (rows + day.0, difference + day.1 - day.2));
    if rows == 0 { 0.0 } else { difference / rows as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 days of 100 flights, of which every tenth is worse for the model.
    fn days(difference: f64, spread: f64) -> Vec<Day> {
        let of_day = |i: u64| (hash(&[i]) % 1_000) as f64 / 1_000.0 - 0.5;
        (0..100).map(|i| (100, 100.0 * (1.0 + difference + spread * of_day(i)), 100.0)).collect()
    }

    #[test]
    fn the_interval_holds_the_difference_and_is_as_wide_as_the_days_differ() {
        let c = comparison("before", &days(0.02, 0.1));
        assert_eq!((c.rows, c.days, c.champion_log_loss), (10_000, 100, 1.0));
        let difference = c.log_loss - c.champion_log_loss;
        assert!((c.low..c.high).contains(&difference), "{c:?}");
        // uniform over 0.1: σ 0.0289, of the mean of 100 days 0.00289, ± 1.96 σ
        assert!((c.high - c.low - 0.0113).abs() < 0.002, "{c:?}");
        let c = comparison("before", &days(-0.01, 0.0));
        assert!((c.low + 0.01).abs() < 1e-9 && (c.high + 0.01).abs() < 1e-9, "{c:?}");
    }

    #[test]
    fn what_may_be_worse_is_not_promoted_and_little_says_nothing() {
        let of = |days: &[Day]| verdict(&comparison("before", days));
        assert_eq!(of(&days(-0.02, 0.1)), Decision::NotWorse);
        // the same but for another seed
        assert_eq!(of(&days(0.0005, 0.01)), Decision::NotWorse);
        assert_eq!(of(&days(0.02, 0.1)), Decision::Worse);
        // on average better, but not surely
        assert_eq!(of(&days(-0.001, 2.0)), Decision::Worse);
        assert_eq!(of(&days(-0.5, 0.1)[..49]), Decision::TooFewFlights);
        let few_days: Vec<Day> = vec![(10_000, 1.0, 9_000.0); 4];
        assert_eq!(of(&few_days), Decision::TooFewFlights);
        assert_eq!(of(&[]), Decision::TooFewFlights);
    }
}
