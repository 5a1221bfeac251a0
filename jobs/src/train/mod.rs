//! `flights` → a model, as query plans.
//!
//! Three scans of the flights (distinct values, indices, evaluation), then a pass over the indices
//! for every level: `tree_histogram` counts, [`Growth`](udf::train::split::Growth) splits. Runs the
//! same in process and on a cluster, and makes the same bytes on both, also when it is interrupted
//! and resumed.

pub mod baselines;
pub mod checkpoint;
pub mod gate;
pub mod indices;
pub mod options;
pub mod plots;
pub mod report;
pub mod report_html;
pub mod training;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{Int32Type, Int64Type, UInt8Type, UInt64Type};
use datafusion::common::ScalarValue;
use datafusion::execution::FunctionRegistry;
use datafusion::prelude::{SessionContext, col};
use events::DelayClass;
use tracing::Instrument;
use udf::encode::encoder::{Encoding, indices_of};
use udf::functions::distinct_counts;
use udf::functions::load::Load;
use udf::model::artefact::{Days, FORMAT, FeatureSpec, Metrics, Model, Rows, version_of};
use udf::model::drift::{self, ReferenceDistribution};
use udf::model::scorer::Scorer;
use udf::train::histogram::{self, TreeHistogram};
use udf::train::split::importances;
use udf::train::temperature::{GrownFrom, temperature};

use crate::features;
use crate::lake::Lake;
use crate::lease;
use crate::models::cards;
use crate::models::evaluation::{Evaluated, Evaluation};
use crate::models::promotion;
use crate::models::registry;
use crate::progress::{OnProgress, Progress, stage};
use crate::sql;
use crate::train::checkpoint::{Checkpoint, Counted};
use crate::train::gate::Candidate;
use crate::train::options::TrainOptions;
use crate::train::report::{Phase, Report};
use crate::train::training::{evaluate, register_training, share};

/// Flights that the temperature is fitted on, about.
const OUT_OF_BAG_ROWS: u64 = 100_000;
/// Part of its time that a run may spend on writing down how far it is.
const CHECKPOINT_SHARE: u32 = 10;

/// Trains a model, saves it, writes its report, and makes it the champion if it is to be. `run`
/// names the run's own directory; a run of that name that was interrupted is gone on with.
pub async fn train(
    ctx: &SessionContext,
    lake: &Lake,
    run: &str,
    options: &TrainOptions,
    on_progress: OnProgress<'_>,
) -> Result<Report> {
    let making = make(ctx, lake, run, options, on_progress);
    let report = lease::while_reading(lake, run, on_progress, making).await?;
    stage(on_progress, "saving the model and its report", save(lake, run, &report)).await?;
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
    let holdout = &options.params.get().holdout;
    register_training(ctx, holdout, &used).await?;

    let counting = begin_or_go_on(ctx, lake, run, options, &used);
    let name = "finding bins and categories by sql/41_values.sql";
    let mut at = stage(on_progress, name, counting).await?;
    let n_training = at.n_training;
    clock.end("values", n_training);

    let encoding = indices::materialise(ctx, lake, run, &mut at, options.indices_bytes);
    stage(on_progress, "encoding rows by sql/42_indices.sql", encoding).await?;
    clock.end("indices", n_training);

    let growing = grow(ctx, lake, run, &mut at, options.histogram_bytes, on_progress);
    let n_passes = stage(on_progress, "growing trees by sql/43_histogram.sql", growing).await?;
    clock.end("levels", n_training * n_passes);

    let calibrating = calibrated(ctx, at);
    let name = "calibrating it by sql/44_out_of_bag.sql";
    let mut model = stage(on_progress, name, calibrating).await?;
    ctx.deregister_table("indices")?;
    clock.end("calibration", n_training.min(OUT_OF_BAG_ROWS));

    let candidate = Arc::new(Scorer::new(model.clone(), "candidate"));
    let evaluating = evaluate(ctx, &candidate);
    let name = "evaluating it by sql/50_evaluation.sql";
    let evaluated = stage(on_progress, name, evaluating).await?;
    model.rows.holdout = evaluated.all.n_rows();
    model.holdout = evaluated.all.metrics;
    if let Some(reference) = &mut model.reference {
        reference.predicted = evaluated.all.predicted();
    }
    clock.end("evaluation", evaluated.all.n_rows());

    let training = baselines::evaluate(ctx, Arc::clone(&candidate), model.rows);
    let baselines = stage(on_progress, "training the baselines", training).await?;
    clock.end("baselines", model.rows.training + model.rows.holdout);

    let version = version_of(&model.to_bytes());
    let judged = Candidate { version: &version, scorer: &candidate, evaluated: Some(&evaluated) };
    let comparing = gate::judge(ctx, lake, run, judged, options.gate);
    let name = "comparing it with the champion by sql/50_evaluation.sql";
    let (promotion, rival) = stage(on_progress, name, comparing).await?;
    clock.end("comparison", rival.as_ref().map_or(0, |rival| rival.evaluation.n_rows()));

    let Evaluated { all: forest, future, uncalibrated, .. } = evaluated;
    let majority = Evaluation::majority(&forest);
    Ok(Report {
        model,
        version,
        forest,
        future,
        uncalibrated,
        majority,
        baselines,
        rival,
        promotion,
        phases: clock.phases,
    })
}

/// Saves the report and then the model, and makes it the champion if that was decided.
async fn save(lake: &Lake, run: &str, report: &Report) -> Result<()> {
    let html = report_html::to_html(report)?;
    lake.put(&registry::report_of(&report.version), html.into_bytes()).await?;
    cards::save(lake, &report.card()).await?;
    registry::save(lake, &report.model).await?;
    promotion::settle(lake, &report.version, &report.promotion).await?;
    // last, so that a run that dies before is resumed, not repeated
    lake.delete_below(&format!("training/{run}/")).await
}

/// The champion, when training with `options` on the flights as they are would make it again.
///
/// Compares parameters, features, SQL and every value that it was trained and evaluated on.
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
    register_training(ctx, &model.params.holdout, &used).await?;
    let fingerprint = ctx.udaf("fingerprint")?;
    let values = ["row_key", "label", "features"].map(col).to_vec();
    let found = ctx.table("training").await?.aggregate(vec![], vec![fingerprint.call(values)])?;
    let found = found.collect().await?;
    let data = data_of(one_row(&found, "fingerprint")?, 0);
    Ok((data == model.data).then_some(champion))
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
    let counted = count(ctx, options, used).await?;
    Ok(Checkpoint::begin(options, flights, counted))
}

/// What rows there are, and for each feature how its values become indices.
async fn count(ctx: &SessionContext, options: &TrainOptions, used: &[String]) -> Result<Counted> {
    let counted = sql::collect(ctx, sql::VALUES, &[]).await?;
    let counted = one_row(&counted, sql::VALUES.file)?;
    let large = |i: usize| counted.column(i).as_primitive::<Int64Type>().value(0).unsigned_abs();
    let day = |i: usize| counted.column(i).as_primitive::<Int32Type>().value(0);
    let n_training = large(0);
    ensure!(
        n_training > 0,
        "there is nothing to train on: no flight has a departure and an arrival delay and is not \
         held out by {}; --holdout-by holds out others",
        options.params.get().holdout
    );
    let (mut specs, mut buckets) = (Vec::new(), Vec::new());
    for name in used {
        let values = distinct_counts::read(counted.column(5), name)?;
        let encoding = Encoding::from_values(values.clone(), options.params.get().n_bins);
        buckets.push(drift::buckets(&encoding, &values, n_training));
        specs.push(FeatureSpec { name: name.clone(), encoding });
    }
    let days = Days { first: day(1), last: day(2), n: large(3) };
    Ok(Counted { n_training, days, data: data_of(counted, 4), specs, buckets })
}

/// A fingerprint as a model keeps it.
fn data_of(row: &RecordBatch, column: usize) -> String {
    format!("{:016x}", row.column(column).as_primitive::<UInt64Type>().value(0))
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
    // each partition holds counters of its own with those it packs, and parts that are too many are
    // added up in one more
    let n_partitions = ctx.state().config().target_partitions();
    let pass_bytes = histogram_bytes / (n_partitions + 1);
    let by_day = [("by_day", ScalarValue::from(at.draws_days()))];
    let (mut n_passes, mut saved, mut saving) = (0, Instant::now(), Duration::ZERO);
    while let Some(pass) = at.growth.next_pass(pass_bytes) {
        on_progress(Progress::Level { n_trees, done: at.growth.depth(), total });
        let pass = Arc::new(Load::from(pass));
        ctx.register_udaf(TreeHistogram::new(Arc::clone(&pass)).into_udaf());
        let counted = sql::collect(ctx, sql::HISTOGRAM, &by_day).await?;
        let counted = one_row(&counted, sql::HISTOGRAM.file)?;
        let counters = histogram::packed_parts(counted.column(0).as_list(), 0);
        at.growth.split(&pass, &counters).context(sql::HISTOGRAM.file)?;
        n_passes += 1;
        // a large forest takes as long to write down as to grow a little further
        if saved.elapsed() >= saving * CHECKPOINT_SHARE {
            let began = Instant::now();
            at.save(lake, run).await?;
            (saved, saving) = (Instant::now(), began.elapsed());
        }
    }
    on_progress(Progress::Level { n_trees, done: total, total });
    Ok(n_passes)
}

/// The grown forest as a model that is as sure as it is right, yet to be evaluated.
async fn calibrated(ctx: &SessionContext, at: Checkpoint) -> Result<Model> {
    let share = share(OUT_OF_BAG_ROWS, at.n_training)?;
    let params = [("by_day", ScalarValue::from(at.draws_days())), ("share", share)];
    let rows = sql::plan(ctx, sql::OUT_OF_BAG, &params).await?;
    let schema = Arc::clone(rows.schema().inner());
    let rows = rows.collect().instrument(sql::OUT_OF_BAG.span()).await?;
    let rows = concat_batches(&schema, &rows)?;
    let params = at.growth.params().clone();
    let (specs, trees) = (at.specs, at.growth.into_trees());
    let seed = params.seed;
    // seconds of work, during which the job can be cancelled
    let fitting = tokio::task::spawn_blocking(move || {
        let grown_from = GrownFrom {
            seed,
            keys: rows.column(0).as_primitive::<Int64Type>().values(),
            labels: rows.column(1).as_primitive::<UInt8Type>().values(),
            indices: &indices_of(rows.column(2).as_fixed_size_binary()),
        };
        let temperature = temperature(&trees, &specs, grown_from);
        (temperature, trees, specs)
    });
    let (temperature, trees, specs) = fitting.await?;
    Ok(Model {
        format: FORMAT,
        classes: DelayClass::ALL.map(DelayClass::title).to_vec(),
        params,
        sql_sha256: sql::training_sha256(),
        rows: Rows { training: at.n_training, holdout: 0 },
        data: at.data,
        days: Some(at.days),
        holdout: Metrics::default(),
        importances: importances(&trees, specs.len()),
        features: specs,
        reference: Some(ReferenceDistribution { features: at.buckets, predicted: [0; 4] }),
        temperature,
        trees,
    })
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
    cpu_since: f64,
    phases: Vec<Phase>,
}

impl PhaseClock {
    fn start() -> Self {
        Self { since: Instant::now(), cpu_since: telemetry::cpu_seconds(), phases: Vec::new() }
    }

    fn end(&mut self, name: &'static str, n_rows: u64) {
        let (now, cpu_now) = (Instant::now(), telemetry::cpu_seconds());
        let seconds = (now - self.since).as_secs_f64();
        self.phases.push(Phase { name, seconds, cpu_seconds: cpu_now - self.cpu_since, n_rows });
        (self.since, self.cpu_since) = (now, cpu_now);
    }
}
