//! `flights` → the relations that a model is trained and evaluated on.

use anyhow::Result;
use datafusion::common::ScalarValue;
use datafusion::prelude::SessionContext;

use crate::sql;

/// Makes `features` and `training` from `flights` and `distances`.
pub async fn register_training(ctx: &SessionContext, holdout: f64) -> Result<()> {
    sql::view(ctx, "features", sql::FEATURES, &[]).await?;
    let holdout = ScalarValue::from((holdout * 65_536.0).round() as i64);
    sql::view(ctx, "training", sql::TRAINING, &[("holdout", holdout)]).await
}
