//! `flights` → a model, as query plans.
//!
//! Three scans of the flights (distinct values, indices, evaluation), then a pass over the indices
//! for every level: `tree_histogram` counts, [`Growth`](udf::train::split::Growth) splits. Runs the
//! same in process and on a cluster, and makes the same bytes on both, also when it is interrupted
//! and resumed.

pub mod baseline;
pub mod checkpoint;
pub mod indices;
pub mod options;
pub mod plots;
pub mod report;
pub mod report_html;
pub mod training;

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Int64Type, UInt64Type};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::prelude::{SessionContext, col, lit};
use events::DelayClass;
use udf::encode::encoder::Encoding;
use udf::functions::distinct_counts;
use udf::functions::model::Models;
use udf::model::artefact::{FORMAT, FeatureSpec, Metrics, Model, Rows, version_of};
use udf::model::drift::{self, Bucket, ReferenceDistribution};
use udf::model::scorer::Scorer;
use udf::train::histogram::TreeHistogram;
use udf::train::split::importances;

use crate::features;
use crate::lake::Lake;
use crate::lease;
use crate::models::cards;
use crate::models::evaluation::Evaluation;
use crate::models::registry;
use crate::progress::{OnProgress, Progress};
use crate::sql;
use crate::train::checkpoint::Checkpoint;
use crate::train::options::TrainOptions;
use crate::train::report::{Phase, Previous, Report};
use crate::train::training::register_training;

/// Trains a model, saves it, writes its report, and makes it the champion. `run` names the run's
/// own directory; a run of that name that was interrupted is gone on with.
pub async fn train(
    ctx: &SessionContext,
    lake: &Lake,
    run: &str,
    options: &TrainOptions,
    on_progress: OnProgress<'_>,
) -> Result<Report> {
    let making = make(ctx, lake, run, options, on_progress);
    let report = lease::while_reading(lake, run, on_progress, making).await?;
    on_progress(Progress::Stage("saving the model and its report"));
    save(lake, run, &report).await?;
    Ok(report)
}

/// Grows a forest, evaluates it, and reports.
async fn make(
    ctx: &SessionContext,
    lake: &Lake,
    run: &str,
    options: &TrainOptions,
    on_progress: OnProgress<'_>,
) -> Result<Report> {
    let mut clock = PhaseClock::start();
    lake.register_flights(ctx).await?;
    let used = options.features.among(&features::fields().await?)?;
    let holdout = options.params.get().holdout;
    register_training(ctx, holdout, &used).await?;

    on_progress(Progress::Stage("finding bins and categories by sql/41_values.sql"));
    let mut at = begin_or_go_on(ctx, lake, run, options, &used).await?;
    let n_training = at.n_training;
    clock.end("values", n_training);

    on_progress(Progress::Stage("encoding rows by sql/42_indices.sql"));
    indices::materialise(ctx, lake, run, &mut at, options.indices_bytes).await?;
    clock.end("indices", n_training);

    on_progress(Progress::Stage("growing trees by sql/43_histogram.sql"));
    let n_passes = grow(ctx, lake, run, &mut at, options.histogram_bytes, on_progress).await?;
    ctx.deregister_table("indices")?;
    let (specs, buckets, trees) = (at.specs, at.buckets, at.growth.into_trees());
    clock.end("levels", n_training * n_passes);

    on_progress(Progress::Stage("evaluating it by sql/50_evaluation.sql"));
    let previous = registry::champion(lake).await?.map(Arc::new);
    let mut model = Model {
        format: FORMAT,
        classes: DelayClass::ALL.map(DelayClass::title).to_vec(),
        params: options.params.get().clone(),
        sql_sha256: sql::training_sha256(),
        rows: Rows { training: n_training, holdout: 0 },
        holdout: Metrics::default(),
        importances: importances(&trees, specs.len()),
        features: specs,
        reference: None,
        trees,
    };
    let candidate = Arc::new(Scorer::new(model.clone(), "candidate"));
    let mut known = Models::from([("candidate".to_owned(), candidate)]);
    known.extend(previous.iter().map(|champion| ("champion".to_owned(), Arc::clone(champion))));
    registry::register(ctx, known);
    let forest = evaluate(ctx, "candidate").await?;
    model.rows.holdout = forest.n_rows();
    model.holdout = forest.metrics;
    let predicted = forest.predicted();
    model.reference = Some(ReferenceDistribution { features: buckets, predicted });
    let previous = evaluate_previous(ctx, previous.as_deref(), holdout).await?;
    clock.end("evaluation", forest.n_rows());

    on_progress(Progress::Stage("training the logistic baseline"));
    let n_rows = model.rows.training + model.rows.holdout;
    register_training(ctx, holdout, &used).await?;
    let logistic = baseline::evaluate(ctx, &model.features, n_rows).await?;
    clock.end("baseline", n_rows);

    let majority = Evaluation::majority(&forest)?;
    let version = version_of(&model.to_bytes());
    let phases = clock.phases;
    Ok(Report { model, version, forest, majority, logistic, previous, phases })
}

/// Saves the report and then the model, and makes it the champion.
async fn save(lake: &Lake, run: &str, report: &Report) -> Result<()> {
    let html = report_html::to_html(report)?;
    lake.put(&registry::report_of(&report.version), html.into_bytes()).await?;
    cards::save_evaluation(lake, &report.version, &report.forest).await?;
    registry::save(lake, &report.model).await?;
    registry::promote(lake, &report.version).await?;
    // last, so that a run that dies before is resumed, not repeated
    lake.delete_below(&format!("training/{run}/")).await
}

/// The champion, when training with `options` on the flights as they are would make it again.
///
/// Compares parameters, features, SQL and the number of rows on each side of the hold-out.
pub async fn up_to_date(
    ctx: &SessionContext,
    lake: &Lake,
    options: &TrainOptions,
) -> Result<Option<Scorer>> {
    let Ok(Some(champion)) = registry::champion(lake).await else { return Ok(None) };
    let model = champion.model();
    if model.params != *options.params.get() || model.sql_sha256 != sql::training_sha256() {
        return Ok(None);
    }
    lake.register_flights(ctx).await?;
    let used = options.features.among(&features::fields().await?)?;
    if model.feature_names() != used {
        return Ok(None);
    }
    register_training(ctx, model.params.holdout, &used).await?;
    let sides = ctx.table("training").await?;
    let sides = sides.aggregate(vec![col("is_holdout")], vec![count(lit(1)).alias("n_rows")])?;
    let mut rows = Rows::default();
    for batch in sides.collect().await? {
        for row in 0..batch.num_rows() {
            let n_rows = batch.column(1).as_primitive::<Int64Type>().value(row).unsigned_abs();
            match batch.column(0).as_boolean().value(row) {
                true => rows.holdout += n_rows,
                false => rows.training += n_rows,
            }
        }
    }
    Ok((rows == model.rows).then_some(champion))
}

/// What an earlier process left of the run, or its beginning.
async fn begin_or_go_on(
    ctx: &SessionContext,
    lake: &Lake,
    run: &str,
    options: &TrainOptions,
    used: &[String],
) -> Result<Checkpoint> {
    let flights = lake.fingerprint(&["flights/", "distances/"]).await?;
    if let Some(checkpoint) = Checkpoint::load(lake, run, options, used, &flights).await? {
        return Ok(checkpoint);
    }
    let (n_training, specs, buckets) = feature_specs(ctx, options, used).await?;
    Ok(Checkpoint::begin(options, flights, n_training, specs, buckets))
}

/// Number of training rows, and for each feature how its values become indices, and its buckets.
async fn feature_specs(
    ctx: &SessionContext,
    options: &TrainOptions,
    used: &[String],
) -> Result<(u64, Vec<FeatureSpec>, Vec<Vec<Bucket>>)> {
    let counted = sql::plan(ctx, sql::VALUES, &[]).await?.collect().await?;
    let counted = one_row(&counted, sql::VALUES.file)?;
    let n_rows = counted.column(0).as_primitive::<Int64Type>().value(0).unsigned_abs();
    ensure!(
        n_rows > 0,
        "there is nothing to train on: no flight has a departure and an arrival delay"
    );
    let (mut specs, mut buckets) = (Vec::new(), Vec::new());
    for name in used {
        let values = distinct_counts::read(counted.column(1), name)?;
        let encoding = Encoding::from_values(values.clone(), options.params.get().n_bins);
        buckets.push(drift::buckets(&encoding, &values, n_rows));
        specs.push(FeatureSpec { name: name.clone(), encoding });
    }
    Ok((n_rows, specs, buckets))
}

/// Grows the forest level by level; returns the number of passes over the indices.
async fn grow(
    ctx: &SessionContext,
    lake: &Lake,
    run: &str,
    at: &mut Checkpoint,
    histogram_bytes: usize,
    on_progress: OnProgress<'_>,
) -> Result<u64> {
    let (n_trees, total) = (at.growth.params().n_trees, at.growth.params().depth);
    // each partition holds counters of its own, and their merger one more
    let n_partitions = ctx.state().config().target_partitions();
    let pass_bytes = histogram_bytes / (n_partitions + 1);
    let mut n_passes = 0;
    while let Some(pass) = at.growth.next_pass(pass_bytes) {
        on_progress(Progress::Level { n_trees, done: at.growth.depth(), total });
        let pass = Arc::new(pass);
        ctx.register_udaf(TreeHistogram::new(Arc::clone(&pass)).into_udaf());
        let counted = sql::plan(ctx, sql::HISTOGRAM, &[]).await?.collect().await?;
        let counted = one_row(&counted, sql::HISTOGRAM.file)?;
        let counters = counted.column(0).as_list::<i32>().value(0);
        at.growth.split(&pass, counters.as_primitive::<UInt64Type>().values());
        at.save(lake, run).await?;
        n_passes += 1;
    }
    on_progress(Progress::Level { n_trees, done: total, total });
    Ok(n_passes)
}

/// Evaluates the model that SQL knows as `name` on the held-out rows of `training`.
pub async fn evaluate(ctx: &SessionContext, name: &str) -> Result<Evaluation> {
    let rows = sql::plan(ctx, sql::EVALUATION, &[("model", ScalarValue::from(name))]).await?;
    Evaluation::from_batches(&rows.collect().await?)
}

/// The champion before, on the same held-out rows. It may use other features; `None` when it uses
/// one that there is no more, or that has become text or a number since.
async fn evaluate_previous(
    ctx: &SessionContext,
    champion: Option<&Scorer>,
    holdout: f64,
) -> Result<Option<Previous>> {
    let Some(champion) = champion else { return Ok(None) };
    if let Err(error) = features::check(champion).await {
        let error = format!("{error:#}");
        tracing::warn!(error, "the champion before cannot be evaluated");
        return Ok(None);
    }
    let model = champion.model();
    let names = model.feature_names();
    register_training(ctx, holdout, &names).await?;
    Ok(Some(Previous {
        version: champion.version().to_owned(),
        evaluation: evaluate(ctx, "champion").await?,
        importances: names.into_iter().zip(model.importances.iter().copied()).collect(),
    }))
}

fn one_row<'a>(batches: &'a [RecordBatch], file: &str) -> Result<&'a RecordBatch> {
    match batches.iter().find(|batch| batch.num_rows() > 0) {
        Some(batch) => Ok(batch),
        None => bail!("{file} gave no row"),
    }
}

/// Seconds and rows of each phase.
struct PhaseClock {
    since: Instant,
    phases: Vec<Phase>,
}

impl PhaseClock {
    fn start() -> Self {
        Self { since: Instant::now(), phases: Vec::new() }
    }

    fn end(&mut self, name: &'static str, n_rows: u64) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.phases.push(Phase { name, seconds, n_rows });
        self.since = Instant::now();
    }
}
