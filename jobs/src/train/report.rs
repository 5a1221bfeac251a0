//! What a training run reports, and how it is printed on a terminal. `report_html` draws the same.

use std::fmt::Write;

use events::DelayClass;
use udf::model::artefact::{Metrics, Model};

use crate::models::evaluation::Evaluation;

/// The report of a training run.
#[derive(Debug, Clone)]
pub struct Report {
    /// The model.
    pub model: Model,
    /// Its version: the SHA-256 of its artefact.
    pub version: String,
    /// The model on the held-out flights.
    pub forest: Evaluation,
    /// Always the most frequent class, on the same flights.
    pub majority: Evaluation,
    /// Multinomial logistic regression, on a sample of the same flights.
    pub logistic: Option<Evaluation>,
    /// The champion before this run, on the same flights.
    pub previous: Option<Previous>,
    /// The phases of the run, in order.
    pub phases: Vec<Phase>,
}

/// The champion before this run.
#[derive(Debug, Clone)]
pub struct Previous {
    /// Its version.
    pub version: String,
    /// On the held-out flights of this run.
    pub evaluation: Evaluation,
    /// Importance by feature name.
    pub importances: Vec<(String, f64)>,
}

/// A phase of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Phase {
    /// What was done.
    pub name: &'static str,
    /// How long it took.
    pub seconds: f64,
    /// Rows it read, in all passes.
    pub n_rows: u64,
}

impl Report {
    /// Seconds of fitting: everything from finding bins to the last level.
    pub fn fit_seconds(&self) -> f64 {
        let fitting = |phase: &&Phase| ["values", "indices", "levels"].contains(&phase.name);
        self.phases.iter().filter(fitting).map(|phase| phase.seconds).sum()
    }

    /// Seconds of the whole run.
    pub fn job_seconds(&self) -> f64 {
        self.phases.iter().map(|phase| phase.seconds).sum()
    }

    /// The measures of the model and of what it is compared with, by name.
    pub fn compared(&self) -> Vec<(String, Metrics)> {
        let mut rows = vec![("forest".to_owned(), self.forest.metrics)];
        rows.push(("majority class".into(), self.majority.metrics));
        if let Some(logistic) = &self.logistic {
            let name = format!("logistic ({} rows)", logistic.n_rows());
            rows.push((name, logistic.metrics));
        }
        if let Some(previous) = &self.previous {
            rows.push(("previous champion".into(), previous.evaluation.metrics));
        }
        rows
    }

    /// Features with their importance and its change against the previous champion, most
    /// important first.
    pub fn importances(&self) -> Vec<(&str, f64, Option<f64>)> {
        let importance = |(i, &share): (usize, &f64)| {
            let name = self.model.features[i].name.as_str();
            let before = self.previous.as_ref().map(|previous| {
                let found = previous.importances.iter().find(|(feature, _)| feature == name);
                found.map_or(0.0, |(_, before)| *before)
            });
            (name, share, before.map(|before| share - before))
        };
        let mut importances: Vec<_> =
            self.model.importances.iter().enumerate().map(importance).collect();
        importances.sort_by(|a, b| b.1.total_cmp(&a.1));
        importances
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
        writeln!(text, "trained on {} flights, held out {}\n", rows.training, rows.holdout)?;
        writeln!(
            text,
            "{:28}{:>10}{:>11}{:>9}{:>9}{:>10}",
            "on held-out flights", "accuracy", "precision", "recall", "F1", "log loss"
        )?;
        for (name, m) in self.compared() {
            writeln!(
                text,
                "{name:28}{:>10.4}{:>11.4}{:>9.4}{:>9.4}{:>10.4}",
                m.accuracy, m.precision, m.recall, m.f1, m.log_loss
            )?;
        }
        if let Some(previous) = &self.previous {
            let (new, old) = (self.forest.metrics, previous.evaluation.metrics);
            writeln!(
                text,
                "{:28}{:>+10.4}{:>+11.4}{:>+9.4}{:>+9.4}{:>+10.4}",
                "change",
                new.accuracy - old.accuracy,
                new.precision - old.precision,
                new.recall - old.recall,
                new.f1 - old.f1,
                new.log_loss - old.log_loss
            )?;
        }
        self.write_classes(text)?;
        writeln!(text, "\n{:28}{:>10}{:>11}", "importance", "share", "change")?;
        for (name, share, change) in self.importances() {
            let change = change.map_or(String::new(), |change| format!("{change:+.4}"));
            writeln!(text, "{name:28}{share:>10.4}{change:>11}")?;
        }
        writeln!(text, "\n{:28}{:>10}{:>14}", "phase", "seconds", "rows read")?;
        for phase in &self.phases {
            writeln!(text, "{:28}{:>10.2}{:>14}", phase.name, phase.seconds, phase.n_rows)?;
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
