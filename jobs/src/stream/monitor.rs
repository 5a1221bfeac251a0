//! What is seen of a stream beside its answers: whether the flights drift away from those that the
//! champion was trained on, and what a challenger would have said.

use std::sync::Arc;

use anyhow::{Context, Result};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int32Type;
use udf::encode::encoder::indices_of;
use udf::model::drift::Drift;
use udf::model::scorer::Scorer;

use crate::models::registry::Serving;
use crate::stream::metrics::Metrics;

/// Sees the rows of each micro-batch.
pub(crate) struct Observer<'a> {
    champion: Arc<Scorer>,
    shadow: Option<Arc<Scorer>>,
    drift: Option<Drift>,
    metrics: &'a Metrics,
}

impl<'a> Observer<'a> {
    pub(crate) fn new(
        serving: &Serving,
        shadow: Option<Arc<Scorer>>,
        metrics: &'a Metrics,
    ) -> Self {
        let champion = Arc::clone(serving.champion());
        let mut observer = Self { champion, shadow, drift: None, metrics };
        observer.replace(serving);
        observer
    }

    /// Another champion: what was seen is compared with its reference distribution from now on.
    pub(crate) fn replace(&mut self, serving: &Serving) {
        self.champion = Arc::clone(serving.champion());
        self.metrics.set_model(&self.champion, serving.written());
        self.drift = self.champion.model().reference.clone().map(Drift::new);
    }

    /// Sees rows of `sql/70_answers.sql`.
    pub(crate) fn see(&mut self, rows: &[RecordBatch]) {
        for batch in rows {
            // a gauge that cannot be computed is no reason to leave a request unanswered
            if let Err(error) = self.see_batch(batch) {
                tracing::warn!(error = format!("{error:#}"), "drift and shadow are not counted");
            }
        }
        if let (Some(drift), false) = (&self.drift, rows.is_empty()) {
            let (features, predicted) = drift.psi();
            let names = self.champion.model().features.iter().map(|spec| spec.name.as_str());
            for (name, psi) in names.chain(["prediction"]).zip(features.iter().chain([&predicted]))
            {
                self.metrics.set_drift(name, *psi);
            }
            self.metrics.set_drift_rows(drift.n_rows());
        }
    }

    fn see_batch(&mut self, batch: &RecordBatch) -> Result<()> {
        let column = |name: &str| batch.column_by_name(name).with_context(|| format!("no {name}"));
        let prediction = column("answer")?.as_struct().column_by_name("prediction");
        let prediction = prediction.context("no prediction in answer")?;
        let classes = prediction.as_primitive::<Int32Type>().values();
        for class in classes {
            self.metrics.predictions_total.with_label_values(&[class.to_string()]).inc();
        }
        if let Some(drift) = &mut self.drift {
            let indices = column("indices")?.as_fixed_size_binary();
            drift.count(&indices_of(indices), classes);
        }
        if let Some(shadow) = &self.shadow {
            let challengers = shadow.score(column("features")?.as_struct())?.classes;
            for (champion, challenger) in classes.iter().zip(&challengers) {
                let agrees = if champion == challenger { "yes" } else { "no" };
                self.metrics.shadow_rows_total.with_label_values(&[agrees]).inc();
                let class = challenger.to_string();
                self.metrics.shadow_predictions_total.with_label_values(&[class]).inc();
            }
        }
        Ok(())
    }
}
