//! `flights` → the relations that a model is trained and evaluated on.

use anyhow::Result;
use datafusion::common::ScalarValue;
use datafusion::functions::core::expr_fn::{get_field, named_struct};
use datafusion::prelude::{SessionContext, col, lit};

use crate::sql;

/// Makes `features` and `training` from `flights` and `distances`. Of the features only `used` go
/// on to `training`, so that nothing reads the columns of the others.
pub async fn register_training(ctx: &SessionContext, holdout: f64, used: &[String]) -> Result<()> {
    sql::view(ctx, "features", sql::FEATURES, &[]).await?;
    let holdout = ScalarValue::from((holdout * 65_536.0).round() as i64);
    let training = sql::plan(ctx, sql::TRAINING, &[("holdout", holdout)]).await?;
    let field = |name: &String| [lit(name.as_str()), get_field(col("features"), name.as_str())];
    let fields = named_struct(used.iter().flat_map(field).collect());
    let training = training.with_column("features", fields)?;
    ctx.deregister_table("training")?;
    ctx.register_table("training", training.into_view())?;
    Ok(())
}
