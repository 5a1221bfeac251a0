//! `submit-job predict`: batch prediction, of requests in files and of those that were left on the
//! pages to be answered overnight.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Datelike, Days, NaiveDate, Utc};
use clap::{Args, ValueEnum};
use cluster::settings::Setting;
use jobs::ingest::options::IngestOptions;
use jobs::lease::while_reading;
use jobs::predict::batch::{Batch, Fetched, Predicted, Work, fetch, load, predict, predict_tasks};
use jobs::predict::score::open_model;
use jobs::progress::OnProgress;
use serde_json::{Value, json};
use store::Store;
use udf::model::scorer::Scorer;

use crate::context::JobContext;
use crate::ingest::{say_passed_over, share};
use crate::progress::say;
use crate::servers::StoreArgs;

/// The batch of files that have no other name.
const FILES: &str = "files";

/// Arguments of `predict`.
#[derive(Debug, Args)]
pub struct Predict {
    /// Files of requests, in any layout that `ingest` reads [default: what was left on the pages]
    pub files: Vec<PathBuf>,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Day of the batch, YYYY-MM-DD, UTC; run again, it replaces what it made [default: today, of
    /// what was left on the pages yesterday and today]
    #[arg(long, value_parser = day)]
    pub day: Option<NaiveDate>,
    /// Names the batch of files among others of the day [default: files]
    #[arg(long, value_name = "NAME")]
    pub batch: Option<String>,
    /// Version of the model [default: the champion]
    #[arg(long)]
    pub model: Option<String>,
    /// One step: copy what was left on the pages to the data root, predict into Parquet, or load
    /// the predictions into the store [default: all]
    #[arg(long, value_name = "STEP")]
    pub only: Option<Step>,
    /// Share of bad rows of files above which nothing is replaced and the job fails
    #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
    #[arg(value_parser = share, requires = "files")]
    pub rejects_max: f64,
    /// What the files call their columns, where they are not known: carrier=AIRLINE,dest=TO
    #[arg(
        long,
        value_name = "COLUMN=NAME,…",
        default_value = "",
        hide_default_value = true,
        requires = "files"
    )]
    pub columns: String,
}

/// A step of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// From the store to the data root.
    Fetch,
    /// From requests to Parquet.
    Score,
    /// From Parquet to the store.
    Load,
}

/// A day that directories and addresses can be named after.
pub fn day(text: &str) -> Result<NaiveDate, String> {
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    let day = day.filter(|day| (1..=9999).contains(&day.year()));
    day.ok_or_else(|| "not a day, YYYY-MM-DD".to_owned())
}

impl Predict {
    /// Of what was left on the pages.
    pub fn of_tasks() -> Self {
        Self {
            files: Vec::new(),
            store: StoreArgs::default(),
            day: None,
            batch: None,
            model: None,
            only: None,
            rejects_max: 1.0,
            columns: String::new(),
        }
    }

    /// Whether it reads from the store or writes to it.
    pub fn needs_store(&self) -> bool {
        self.only != Some(Step::Score)
    }

    fn has(&self, step: Step) -> bool {
        self.only.is_none_or(|only| only == step)
    }

    fn options(&self, store_options: &[Setting]) -> Result<IngestOptions> {
        Ok(IngestOptions {
            rejects_max: self.rejects_max,
            names: self.columns.parse().context("--columns")?,
            store_options: store_options.to_vec(),
            ..IngestOptions::default()
        })
    }
}

/// Predicts a batch of files, else what was left on the pages on `--day`, else yesterday and today:
/// who runs it at night need not hit midnight.
pub async fn run_predict(
    opened: &JobContext,
    args: &Predict,
    store: Option<&Store>,
    store_options: &[Setting],
    now: fn() -> DateTime<Utc>,
) -> Result<Value> {
    let options = args.options(store_options)?;
    let model = match args.has(Step::Score) {
        true => Some(open_model(&opened.lake, args.model.as_deref()).await?),
        false => None,
    };
    let run = Run { opened, store, model, options: &options, now };
    let today = now().date_naive();
    match (args.only, args.files.is_empty(), &args.batch) {
        (Some(Step::Load), false, _) => bail!("--only load reads no files; --batch names a batch"),
        (Some(Step::Fetch), _, Some(_)) | (Some(Step::Fetch), false, _) => {
            bail!("--only fetch is for what was left on the pages; files are there")
        }
        (Some(Step::Load), true, Some(name)) => {
            let day = args.day.context("--only load --batch: of which --day?")?;
            return run.files(args, &Batch::new(name, day)?).await;
        }
        (_, true, Some(_)) => bail!("--batch names a batch of files; which files?"),
        (_, false, name) => {
            let name = name.as_deref().unwrap_or(FILES);
            return run.files(args, &Batch::new(name, args.day.unwrap_or(today))?).await;
        }
        (_, true, None) => {}
    }
    let days = args.day.map_or_else(|| vec![today - Days::new(1), today], |day| vec![day]);
    let mut results = Vec::new();
    for day in days {
        results.push(run.tasks(args, day).await?);
    }
    Ok(json!({ "days": results }))
}

struct Run<'a> {
    opened: &'a JobContext,
    store: Option<&'a Store>,
    model: Option<Arc<Scorer>>,
    options: &'a IngestOptions,
    now: fn() -> DateTime<Utc>,
}

impl Run<'_> {
    async fn files(&self, args: &Predict, batch: &Batch) -> Result<Value> {
        let JobContext { ctx, lake, id, shown, .. } = self.opened;
        let mut result = json!({ "day": batch.day() });
        if let Some(model) = &self.model {
            let show = |progress| shown.show(progress);
            let predicted =
                predict(ctx, lake, id, batch, &args.files, &self.work(model, &show)).await;
            shown.clear();
            let predicted = predicted?;
            tell(&predicted, id);
            result["predicted"] = predicted.n_predicted.into();
            result["rejected"] = predicted.n_rejects.into();
            result["repeats"] = predicted.n_repeats.into();
            result["cancelled"] = predicted.n_cancelled.into();
            result["predictions"] = predicted.url.into();
        }
        if args.has(Step::Load) {
            let n_results = self.load(batch).await?.with_context(|| {
                let (name, day) = (batch.name(), batch.day());
                format!("there are no predictions of the batch {name} of {day}; score it first")
            })?;
            result["loaded"] = n_results.into();
        }
        Ok(result)
    }

    async fn tasks(&self, args: &Predict, day: NaiveDate) -> Result<Value> {
        let JobContext { ctx, lake, id, shown, .. } = self.opened;
        let mut result = json!({ "day": day });
        if let (true, Some(store)) = (args.has(Step::Fetch), self.store) {
            let Fetched { n_tasks, n_bad, bad } = fetch(lake, store, day).await?;
            say(&format!("{n_tasks} requests were left on {day}"));
            if n_bad > 0 {
                say(&format!("{n_bad} of them cannot be read:"));
                bad.iter().for_each(|why| say(&format!("  {why}")));
            }
            result["tasks"] = n_tasks.into();
            result["rejected"] = n_bad.into();
            if n_tasks == n_bad {
                return Ok(result);
            }
        }
        if let Some(model) = &self.model {
            let show = |progress| shown.show(progress);
            let predicted = predict_tasks(ctx, lake, id, day, &self.work(model, &show)).await;
            shown.clear();
            let Some(predicted) = predicted? else {
                say(&format!("nothing was fetched for {day}"));
                return Ok(result);
            };
            tell(&predicted, id);
            result["answered"] = predicted.n_predicted.into();
        }
        if args.has(Step::Load) {
            let n_results = self.load(&Batch::of_tasks(day)).await?;
            if n_results.is_none() {
                say(&format!("there are no predictions of {day}"));
            }
            result["loaded"] = n_results.into();
        }
        Ok(result)
    }

    fn work<'a>(&'a self, model: &Arc<Scorer>, on_progress: OnProgress<'a>) -> Work<'a> {
        Work { model: Arc::clone(model), options: self.options, now: self.now, on_progress }
    }

    async fn load(&self, batch: &Batch) -> Result<Option<u64>> {
        let JobContext { ctx, lake, id, shown, .. } = self.opened;
        let store = self.store.context("a store")?;
        let show = |progress| shown.show(progress);
        let loading = while_reading(lake, id, &show, load(ctx, lake, store, batch)).await;
        shown.clear();
        let n_results = loading?;
        if let Some(n) = n_results {
            say(&format!("{n} predictions of {} are in {}", batch.day(), store.describe()));
        }
        Ok(n_results)
    }
}

/// Says what became of a batch.
fn tell(predicted: &Predicted, run: &str) {
    let Predicted {
        n_predicted,
        n_rejects,
        n_cancelled,
        n_repeats,
        passed_over,
        reject_kinds,
        url,
    } = predicted;
    say_passed_over(passed_over);
    let mut rest = String::new();
    if *n_cancelled > 0 {
        rest.push_str(&format!("; {n_cancelled} were cancelled or have not left"));
    }
    if *n_repeats > 0 {
        rest.push_str(&format!("; {n_repeats} have a UUID that came before, and were left out"));
    }
    if *n_rejects > 0 {
        rest.push_str(&format!("; {n_rejects} rows rejected, see submit-job rejects {run}:"));
    }
    say(&format!("predicted {n_predicted} flights, which are in {url}{rest}"));
    reject_kinds.iter().for_each(|kind| say(&format!("  {kind}")));
}
