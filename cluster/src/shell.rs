//! SQL over the data root: statements from the command line, a file, or a terminal.

use std::io::BufRead;

use anyhow::{Context, Result};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;
use jobs::{models, train};
use udf::forest::ForestParams;
use udf::predict::Models;

use crate::cli::Sql;
use crate::progress::{print, say};
use crate::run::Opened;

/// Runs statements; without any, reads them from standard input, one a line.
pub async fn run(opened: &Opened, args: &Sql) -> Result<()> {
    let Opened { ctx, lake } = opened;
    lake.register_flights(ctx).await?;
    let champion = models::champion(lake).await?.map(std::sync::Arc::new);
    let holdout = champion
        .as_ref()
        .map_or(ForestParams::default().holdout, |champion| champion.model().params.holdout);
    train::register_training(ctx, holdout).await?;
    let models = champion.map(|champion| ("champion".to_owned(), champion));
    models::register(ctx, Models::from_iter(models));
    if let Some(statement) = &args.command {
        return execute(ctx, statement).await;
    }
    if let Some(path) = &args.file {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        return execute(ctx, &text).await.with_context(|| path.display().to_string());
    }
    say("Tables: flights, distances, features, training. One statement a line; Ctrl-D ends.");
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        if let Err(error) = execute(ctx, &line).await {
            say(&format!("{error:#}"));
        }
    }
    Ok(())
}

/// Runs statements that semicolons separate, and prints what each gives.
async fn execute(ctx: &SessionContext, text: &str) -> Result<()> {
    let dialect = ctx.state().config_options().sql_parser.dialect;
    let statements = {
        let dialect = datafusion::sql::sqlparser::dialect::dialect_from_str(dialect)
            .context("the configured SQL dialect is unknown")?;
        datafusion::sql::parser::DFParser::parse_sql_with_dialect(text, dialect.as_ref())?
    };
    for statement in statements {
        let plan = ctx.state().statement_to_plan(statement).await?;
        let batches = ctx.execute_logical_plan(plan).await?.collect().await?;
        if batches.iter().any(|batch| batch.num_columns() > 0) {
            print(&pretty_format_batches(&batches)?.to_string());
        }
    }
    Ok(())
}
