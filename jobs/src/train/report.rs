//! What a training run reports, and how it is printed on a terminal. `report_html` draws the same.

use std::fmt::Write;

use events::{Compared, DelayClass, ModelCard};
use udf::model::artefact::Model;

use crate::models::cards;
use crate::models::evaluation::Evaluation;
use crate::models::promotion::Promotion;
use crate::train::baselines::Baselines;
use crate::train::gate::Rival;

/// The report of a training run.
#[derive(Debug, Clone)]
pub struct Report {
    /// The model.
    pub model: Model,
    /// Its version: the SHA-256 of its artefact.
    pub version: String,
    /// The model on the held-out flights.
    pub forest: Evaluation,
    /// The model on those of them after the last day of its training, where there are any.
    pub future: Option<Evaluation>,
    /// The model without its calibration, on the held-out flights.
    pub uncalibrated: Evaluation,
    /// Always the most frequent class, on the same flights.
    pub majority: Evaluation,
    /// What it must beat, on the same flights or a sample of them.
    pub baselines: Baselines,
    /// The champion before this run, and the model, on the flights that both held out.
    pub rival: Option<Rival>,
    /// Whether it became the champion, and why.
    pub promotion: Promotion,
    /// The phases of the run, in order.
    pub phases: Vec<Phase>,
}

/// A line of a comparison.
pub struct Measured<'a> {
    /// What it is.
    pub name: String,
    /// How it does.
    pub evaluation: &'a Evaluation,
    /// The model on the same flights; `None` where it is the model.
    pub own: Option<&'a Evaluation>,
}

/// A phase of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Phase {
    /// What was done.
    pub name: &'static str,
    /// How long it took.
    pub seconds: f64,
    /// Seconds of cores that this process took for it; executors of a cluster have their own.
    pub cpu_seconds: f64,
    /// Rows it read, in all passes.
    pub n_rows: u64,
}

impl Report {
    /// Seconds of fitting: everything from finding bins to the temperature.
    pub fn fit_seconds(&self) -> f64 {
        let fitting =
            |phase: &&Phase| ["values", "indices", "levels", "calibration"].contains(&phase.name);
        self.phases.iter().filter(fitting).map(|phase| phase.seconds).sum()
    }

    /// Seconds until the forest was evaluated; what it is compared with comes after.
    pub fn evaluated_seconds(&self) -> f64 {
        let later = |phase: &&Phase| !["baselines", "comparison"].contains(&phase.name);
        self.phases.iter().filter(later).map(|phase| phase.seconds).sum()
    }

    /// Seconds of the whole run.
    pub fn job_seconds(&self) -> f64 {
        self.phases.iter().map(|phase| phase.seconds).sum()
    }

    /// The evaluations of the model and of what it is compared with. Names say the number of
    /// flights where those are not all that were held out. Empty where nothing was.
    pub fn compared<'a>(&'a self) -> Vec<Measured<'a>> {
        let all = self.forest.n_rows();
        let named = |name: &str, evaluation: &Evaluation| match evaluation.n_rows() {
            n if n == all => name.to_owned(),
            n => format!("{name} ({n} rows)"),
        };
        let mut rows = Vec::new();
        let mut add = |name, evaluation: Option<&'a Evaluation>, own| {
            let evaluation = evaluation.filter(|evaluation| evaluation.n_rows() > 0);
            rows.extend(evaluation.map(|evaluation| (named(name, evaluation), evaluation, own)));
        };
        let forest = Some(&self.forest);
        add("forest", forest, None);
        add("before calibration", Some(&self.uncalibrated), forest);
        add("on days to come", self.future.as_ref(), None);
        add("majority class", Some(&self.majority), forest);
        add("delay alone", self.baselines.lookup.as_ref(), forest);
        add("logistic", self.baselines.logistic.as_ref(), forest);
        if let Some(rival) = &self.rival {
            if rival.candidate.n_rows() != all {
                add("held out by both", Some(&rival.candidate), None);
            }
            add("champion before", Some(&rival.evaluation), Some(&rival.candidate));
        }
        let measured = |(name, evaluation, own)| Measured { name, evaluation, own };
        rows.into_iter().map(measured).collect()
    }

    /// Features with their importance and its change against the previous champion, most
    /// important first.
    pub fn importances(&self) -> Vec<(&str, f64, Option<f64>)> {
        let importance = |(i, &share): (usize, &f64)| {
            let name = self.model.features[i].name.as_str();
            let before = self.rival.as_ref().map(|rival| {
                let found = rival.importances.iter().find(|(feature, _)| feature == name);
                found.map_or(0.0, |(_, before)| *before)
            });
            (name, share, before.map(|before| share - before))
        };
        let mut importances: Vec<_> =
            self.model.importances.iter().enumerate().map(importance).collect();
        importances.sort_by(|a, b| b.1.total_cmp(&a.1));
        importances
    }

    /// How much log loss rises when the values of a feature are dealt anew among the flights.
    pub fn permuted(&self, feature: &str) -> Option<f64> {
        let at = self.model.features.iter().position(|spec| spec.name == feature)?;
        self.baselines.permutation.get(at).copied()
    }

    /// What pages show of the model.
    pub fn card(&self) -> ModelCard {
        let mut card = cards::card(&self.version, &self.model);
        card.confusion = self.forest.confusion;
        card.calibration = cards::bins(&self.forest);
        card.uncalibrated = cards::bins(&self.uncalibrated);
        for importance in &mut card.importances {
            importance.permuted = self.permuted(&importance.feature);
        }
        let compared = |Measured { name, evaluation, .. }: Measured| Compared {
            name,
            flights: evaluation.n_rows(),
            accuracy: evaluation.metrics.accuracy,
            log_loss: evaluation.metrics.log_loss,
            calibration_error: evaluation.metrics.calibration_error,
        };
        card.compared = self.compared().into_iter().map(compared).collect();
        card
    }

    /// The report as text for a terminal.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // writing to a string cannot fail
        let _ = self.write_text(&mut text);
        text
    }

    fn write_text(&self, text: &mut String) -> std::fmt::Result {
        let rows = &self.model.rows;
        writeln!(text, "model {}", self.version)?;
        let holdout = &self.model.params.holdout;
        writeln!(
            text,
            "trained on {} flights, held out {} by {holdout}\n",
            rows.training, rows.holdout
        )?;
        writeln!(
            text,
            "{:28}{:>10}{:>11}{:>9}{:>9}{:>10}{:>13}",
            "on held-out flights",
            "accuracy",
            "precision",
            "recall",
            "F1",
            "log loss",
            "calib. error"
        )?;
        for Measured { name, evaluation, .. } in self.compared() {
            let m = evaluation.metrics;
            writeln!(
                text,
                "{name:28}{:>10.4}{:>11.4}{:>9.4}{:>9.4}{:>10.4}{:>13.4}",
                m.accuracy,
                m.precision,
                m.recall,
                m.f1,
                m.log_loss,
                m.calibration_error.unwrap_or(f64::NAN)
            )?;
        }
        if rows.holdout == 0 {
            writeln!(text, "nothing was held out: nobody knows how good it is")?;
        }
        writeln!(text, "\n{}", self.promotion.sentence())?;
        self.write_classes(text)?;
        writeln!(
            text,
            "\n{:28}{:>10}{:>11}{:>20}",
            "importance", "share", "change", "loss when permuted"
        )?;
        for (name, share, change) in self.importances() {
            let signed = |n: Option<f64>| n.map_or(String::new(), |n| format!("{n:+.4}"));
            let (change, permuted) = (signed(change), signed(self.permuted(name)));
            writeln!(text, "{name:28}{share:>10.4}{change:>11}{permuted:>20}")?;
        }
        writeln!(text, "\n{:28}{:>10}{:>11}{:>14}", "phase", "seconds", "processor", "rows read")?;
        for Phase { name, seconds, cpu_seconds, n_rows } in &self.phases {
            writeln!(text, "{name:28}{seconds:>10.2}{cpu_seconds:>11.2}{n_rows:>14}")?;
        }
        Ok(())
    }

    fn write_classes(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "\n{:40}{:>7}{:>11}{:>9}{:>9}   predicted as 0 … 3",
            "class", "share", "precision", "recall", "F1"
        )?;
        let shares = self.forest.class_shares();
        for (class, (own, share)) in self.forest.classes.iter().zip(shares).enumerate() {
            let predicted: Vec<String> =
                self.forest.confusion[class].iter().map(|n| format!("{n:>9}")).collect();
            writeln!(
                text,
                "{:40}{share:>7.3}{:>11.4}{:>9.4}{:>9.4}{}",
                format!("{class} {}", DelayClass::ALL[class].title()),
                own.precision,
                own.recall,
                own.f1,
                predicted.concat()
            )?;
        }
        Ok(())
    }
}
