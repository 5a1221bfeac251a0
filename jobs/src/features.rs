//! What features there are: the fields of the struct that `sql/30_features.sql` makes, known before
//! there is a flight.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::datasource::empty::EmptyTable;
use datafusion::prelude::SessionContext;
use udf::model::scorer::Scorer;

use crate::functions::scalar_functions;
use crate::sql;

/// The columns of `flights` that features are made of.
pub fn flights_schema() -> SchemaRef {
    schema(&[
        ("flight_id", DataType::Int64),
        ("flight_date", DataType::Date32),
        ("carrier", DataType::Utf8View),
        ("flight_number", DataType::Utf8View),
        ("origin", DataType::Utf8View),
        ("dest", DataType::Utf8View),
        ("crs_dep_minutes", DataType::Int32),
        ("dep_delay_minutes", DataType::Float64),
        ("crs_arr_minutes", DataType::Int32),
        ("arr_delay_minutes", DataType::Float64),
        ("distance_miles", DataType::Float64),
        ("cancelled", DataType::Boolean),
        ("diverted", DataType::Boolean),
    ])
}

/// The columns of `distances`.
fn distances_schema() -> SchemaRef {
    schema(&[
        ("origin", DataType::Utf8View),
        ("dest", DataType::Utf8View),
        ("distance_miles", DataType::Float64),
    ])
}

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let field = |(name, of): &(&str, DataType)| Field::new(*name, of.clone(), true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

/// The features in the order of `sql/30_features.sql`: name and type of each.
///
/// Fails when the step does not plan, or names two features alike.
pub async fn fields() -> Result<Fields> {
    let ctx = SessionContext::new();
    scalar_functions().into_iter().for_each(|function| ctx.register_udf(function));
    ctx.register_table("flights", Arc::new(EmptyTable::new(flights_schema())))?;
    ctx.register_table("distances", Arc::new(EmptyTable::new(distances_schema())))?;
    let features = sql::plan(&ctx, sql::FEATURES, &[]).await?;
    match features.schema().field_with_unqualified_name("features")?.data_type() {
        DataType::Struct(fields) => unique(fields.clone()),
        other => bail!("{}: features are a struct, not {other}", sql::FEATURES.file),
    }
}

fn unique(fields: Fields) -> Result<Fields> {
    let mut names = HashSet::new();
    for field in &fields {
        let (is_new, file) = (names.insert(field.name()), sql::FEATURES.file);
        ensure!(is_new, "{file}: there are two features {:?}; rename one", field.name());
    }
    Ok(fields)
}

/// Checks that every feature of a model is there, and of the kind that it was trained on.
///
/// Errors name the feature, and what there is.
pub async fn check(scorer: &Scorer) -> Result<()> {
    Ok(scorer.encoder().check(&fields().await?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_that_is_listed_twice_is_named() {
        let names = |names: &[&str]| -> Fields {
            names.iter().map(|name| Field::new(*name, DataType::Float64, true)).collect()
        };
        assert_eq!(unique(names(&["route", "dest"])).unwrap().len(), 2);
        let error = unique(names(&["route", "dest", "route"])).unwrap_err().to_string();
        assert!(error.contains("30_features.sql") && error.contains("\"route\""), "{error}");
    }
}
