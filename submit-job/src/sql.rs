//! `submit-job sql`: SQL over the data root; statements come from the command line, a file, or a
//! terminal.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use cluster::client::sentence;
use cluster::settings::is_secret;
use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, plan_err};
use datafusion::datasource::MemTable;
use datafusion::datasource::listing::ListingTable;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser;
use futures::TryStreamExt;
use jobs::features;
use jobs::lake::Lake;
use jobs::lease::{self, Reading};
use jobs::models::registry;
use jobs::train::training::register_training;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tracing::{Instrument, info_span};
use udf::functions::model::Models;
use udf::model::artefact::ForestParams;

use crate::context::JobContext;
use crate::driver::keep_lease;
use crate::progress::{say, written};
use crate::table::Table;

/// Largest statement, in bytes.
const STATEMENT_BYTES_MAX: usize = 1024 * 1024;

/// Arguments of `sql`.
#[derive(Debug, Args)]
pub struct Sql {
    /// Statement to run; without -c and -f a shell reads statements from the terminal
    #[arg(short, long, value_name = "STATEMENT", conflicts_with = "file")]
    pub command: Option<String>,
    /// File with statements, separated by semicolons
    #[arg(short, long)]
    pub file: Option<PathBuf>,
}

impl Sql {
    /// Whether statements are read from the terminal: then it is no batch job.
    pub fn is_shell(&self) -> bool {
        self.command.is_none() && self.file.is_none()
    }
}

/// Runs the statements of the command line or of a file.
pub async fn run(opened: &JobContext, args: &Sql) -> Result<Value> {
    if let Some(path) = &args.file {
        let place = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(place)?;
        let statements = parse(&opened.ctx, &text).with_context(place)?;
        return run_all(opened, statements, |ran| ran.with_context(place)).await;
    }
    let statements = parse(&opened.ctx, args.command.as_deref().unwrap_or_default())?;
    run_all(opened, statements, |ran| ran).await
}

async fn run_all(
    opened: &JobContext,
    statements: VecDeque<Statement>,
    at: impl FnOnce(Result<Value>) -> Result<Value>,
) -> Result<Value> {
    if !needs_relations(&opened.ctx, &statements).await {
        return at(execute(opened, statements).await);
    }
    let running = async {
        prepare(opened).await?;
        at(execute(opened, statements).await)
    };
    reading(opened, running).await
}

/// Whether statements ask for something that [`prepare`] makes, which reads the ends of all files:
/// a query such as `SELECT 1` does not.
async fn needs_relations(ctx: &SessionContext, statements: &VecDeque<Statement>) -> bool {
    let state = ctx.state();
    for statement in statements {
        let is_query = match statement {
            Statement::Statement(statement) => {
                matches!(**statement, sqlparser::ast::Statement::Query(_))
            }
            _ => false,
        };
        // one that calls a function of the models is not planned without them
        if !is_query
            || !state.resolve_table_references(statement).is_ok_and(|names| names.is_empty())
            || state.statement_to_plan(statement.clone()).await.is_err()
        {
            return true;
        }
    }
    false
}

/// Does `work` on one state of the flights. Where nothing can be written nobody knows that they
/// must not be changed meanwhile; then it is an error when they were.
async fn reading<T>(opened: &JobContext, work: impl Future<Output = Result<T>>) -> Result<T> {
    let JobContext { lake, id, shown, .. } = opened;
    if !lake.exists() {
        return work.await;
    }
    let show = |progress| shown.show(progress);
    if let Ok(reading) = Reading::begin(lake, id, &show).await {
        return reading.end_with(work.await).await;
    }
    let worked = lease::read_unpinned(lake, &show, work).await?;
    worked.context("the flights were changed while they were read: run it again")?
}

/// Reads statements, each ended by a semicolon, from the terminal, or from a pipe.
pub async fn interact(opened: &JobContext, history: Option<PathBuf>) -> Result<()> {
    reading(opened, prepare(opened)).await?;
    // ends with the shell
    let mut lease = JoinSet::new();
    if let Some(remote) = opened.remote.clone() {
        lease.spawn(keep_lease(remote));
    }
    let mut lines = DefaultEditor::new()?;
    if let Some(path) = &history {
        // there is none at first
        _ = lines.load_history(path);
    }
    if std::io::stdin().is_terminal() {
        say(
            "Tables: flights, distances, features, training. A statement ends with ;  Ctrl-D ends.",
        );
    }
    let mut statement = String::new();
    loop {
        let prompt = if statement.is_empty() { "tarmac> " } else { "     -> " };
        match lines.readline(prompt) {
            Ok(line) => statement.push_str(&line),
            // the statement is dropped, the shell stays
            Err(ReadlineError::Interrupted) => statement.clear(),
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        }
        if statement.len() > STATEMENT_BYTES_MAX {
            bail!("a statement of more than {STATEMENT_BYTES_MAX} bytes");
        }
        if !statement.trim_end().ends_with(';') {
            statement.extend((!statement.trim().is_empty()).then_some('\n'));
            continue;
        }
        // what may hold a secret is not written down
        if !is_secret(&statement) {
            lines.add_history_entry(statement.trim())?;
        }
        run_interruptibly(opened, &statement).await;
        statement.clear();
    }
    if !statement.trim().is_empty() {
        run_interruptibly(opened, &statement).await;
    }
    if let Some(path) = &history {
        lines.save_history(path).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Runs statements until they end or Ctrl-C cancels them, on the cluster too.
async fn run_interruptibly(opened: &JobContext, statements: &str) {
    let ended = tokio::select! {
        ended = reading(opened, async {
            execute(opened, parse(&opened.ctx, statements)?).await
        }) => ended,
        _ = tokio::signal::ctrl_c() => {
            // where nothing could be written, there is nothing to give back
            _ = lease::release(&opened.lake, &opened.id).await;
            match &opened.remote {
                Some(remote) => remote.cancel().await.and_then(|_| bail!("cancelled")),
                None => Err(anyhow::anyhow!("cancelled")),
            }
        }
    };
    if let Err(error) = ended {
        say(&format!("{error:#}"));
    }
}

/// Makes the relations and functions that statements may name. Without flights there are none.
async fn prepare(opened: &JobContext) -> Result<()> {
    let JobContext { ctx, lake, .. } = opened;
    if lake.list("flights/").await?.is_empty() {
        say("there are no flights yet; `submit-job ingest` makes them");
        return Ok(());
    }
    lake.register_flights(ctx).await?;
    let champion = registry::champion(lake).await?.map(Arc::new);
    let holdout = champion
        .as_ref()
        .map_or(ForestParams::default(), |champion| champion.model().params.clone())
        .holdout;
    let all: Vec<_> = features::fields().await?.iter().map(|field| field.name().clone()).collect();
    register_training(ctx, &holdout, &all).await?;
    let models = champion.map(|champion| ("champion".to_owned(), champion));
    registry::register(ctx, Models::from_iter(models));
    Ok(())
}

/// Runs statements one after the other, and prints what each gives as it comes. Ends early
/// when nobody reads on.
async fn execute(opened: &JobContext, statements: VecDeque<Statement>) -> Result<Value> {
    let mut n_rows = 0;
    for statement in statements {
        // a statement may hold a secret: the trace does not show it
        let span = info_span!(target: telemetry::SPAN, "query");
        let (n, reads_on) = execute_one(opened, statement).instrument(span).await?;
        n_rows += n;
        if !reads_on {
            break;
        }
    }
    Ok(json!({ "rows": n_rows }))
}

/// Runs a statement and prints its rows; how many there are, and whether somebody reads on.
async fn execute_one(opened: &JobContext, statement: Statement) -> Result<(usize, bool)> {
    let JobContext { ctx, lake, .. } = opened;
    let planned = ctx.state().statement_to_plan(statement).await.map_err(refusal)?;
    check_targets(lake, &planned)?;
    // not collected: a result may be larger than memory
    let made = ctx.execute_logical_plan(planned).await.map_err(refusal)?;
    let mut batches = made.execute_stream().await.map_err(refusal)?;
    let (mut table, mut n_rows) = (Table::new(batches.schema()), 0);
    while let Some(batch) = batches.try_next().await.map_err(refusal)? {
        n_rows += batch.num_rows();
        if batch.num_columns() > 0 && !written(&table.add(batch)?)? {
            return Ok((n_rows, false));
        }
    }
    Ok((n_rows, written(&table.end()?)?))
}

/// Refuses a statement that writes where jobs keep what they have made: training would take it.
fn check_targets(lake: &Lake, plan: &LogicalPlan) -> Result<()> {
    let mut targets = Vec::new();
    plan.apply(|node| {
        match node {
            LogicalPlan::Copy(copy) => targets.push(copy.output_url.clone()),
            LogicalPlan::Dml(statement) => {
                let table = source_as_provider(&statement.target)?;
                if let Some(files) = table.downcast_ref::<ListingTable>() {
                    targets.extend(files.table_paths().iter().map(|path| path.to_string()));
                } else if !table.is::<MemTable>() {
                    let name = statement.table_name.to_string();
                    return plan_err!("{name} is neither in memory nor files: it is only read");
                }
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(refusal)?;
    for target in targets {
        ensure!(
            !lake.owns(&target)?,
            "{target} is a part of the data root, which statements only read; write elsewhere, and \
             `submit-job ingest` what is to become flights"
        );
    }
    Ok(())
}

fn refusal(error: DataFusionError) -> anyhow::Error {
    anyhow::anyhow!(sentence(&error))
}

fn parse(ctx: &SessionContext, text: &str) -> Result<VecDeque<Statement>> {
    let dialect = ctx.state().config_options().sql_parser.dialect;
    let dialect = sqlparser::dialect::dialect_from_str(dialect)
        .context("the configured SQL dialect is unknown")?;
    Ok(DFParser::parse_sql_with_dialect(text, dialect.as_ref())?)
}
