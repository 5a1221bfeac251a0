//! `flights` → the relations that a model is trained and evaluated on, and how it does there.

use anyhow::Result;
use datafusion::common::ScalarValue;
use datafusion::functions::core::expr_fn::{get_field, named_struct};
use datafusion::prelude::{SessionContext, col, lit};
use udf::model::artefact::Model;
use udf::model::holdout::HoldOut;

use crate::models::evaluation::Evaluation;
use crate::sql;

/// Makes `features` and `training` from `flights` and `distances`. Of the features only `used` go
/// on to `training`, so that nothing reads the columns of the others.
pub async fn register_training(
    ctx: &SessionContext,
    holdout: &HoldOut,
    used: &[String],
) -> Result<()> {
    sql::view(ctx, "features", sql::FEATURES, &[]).await?;
    let holdout = ScalarValue::from(holdout.to_string());
    let training = sql::plan(ctx, sql::TRAINING, &[("holdout", holdout)]).await?;
    let field = |name: &String| [lit(name.as_str()), get_field(col("features"), name.as_str())];
    let fields = named_struct(used.iter().flat_map(field).collect());
    let training = training.with_column("features", fields)?;
    ctx.deregister_table("training")?;
    ctx.register_table("training", training.into_view())?;
    Ok(())
}

/// Evaluates `model`, which SQL knows as `name`, on the held-out rows of `training`: on all of
/// them, and on those after the last day that it was trained on, where there are any.
pub async fn evaluate(
    ctx: &SessionContext,
    name: &str,
    model: &Model,
) -> Result<(Evaluation, Option<Evaluation>)> {
    // models that do not say have seen every day
    let last_day = model.days.map_or(i32::MAX, |days| days.last);
    let params = [("model", ScalarValue::from(name)), ("last_day", ScalarValue::from(last_day))];
    let rows = sql::plan(ctx, sql::EVALUATION, &params).await?;
    Ok(Evaluation::from_batches(&rows.collect().await?))
}
