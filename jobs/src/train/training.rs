//! `flights` → the relations that a model is trained and evaluated on, and how it does there.

use std::sync::Arc;

use anyhow::Result;
use datafusion::common::ScalarValue;
use datafusion::functions::core::expr_fn::{get_field, named_struct};
use datafusion::prelude::{SessionContext, col, lit};
use udf::model::holdout::HoldOut;
use udf::model::scorer::Scorer;

use crate::models::evaluation::Evaluated;
use crate::models::registry;
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
    sql::register(ctx, "training", training)
}

/// Evaluates a model on the held-out rows of `training`.
pub async fn evaluate(ctx: &SessionContext, scorer: &Arc<Scorer>) -> Result<Evaluated> {
    let model = scorer.model();
    // models that do not say have seen every day
    let last_day = model.days.map_or(i32::MAX, |days| days.last);
    let params = [
        registry::register_one(ctx, scorer),
        ("last_day", ScalarValue::from(last_day)),
        ("temperature", ScalarValue::from(model.temperature)),
    ];
    Ok(Evaluated::from_batches(&sql::collect(ctx, sql::EVALUATION, &params).await?))
}

/// The share, in 65,536ths, that gives about `n_wanted` of `n_rows` rows.
pub fn share(n_wanted: u64, n_rows: u64) -> Result<ScalarValue> {
    let share = (n_wanted.saturating_mul(65_536) / n_rows.max(1)).clamp(1, 65_536);
    Ok(ScalarValue::from(i64::try_from(share)?))
}
