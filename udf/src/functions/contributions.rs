//! What `delay_contributions` returns: what moved each answer, by
//! [`Model::contributions`](crate::model::artefact::Model::contributions). `base_rates` and all
//! `changes` of a row sum to its probabilities. A row has all features of the model, in its order.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, ListArray, StringArray, StructArray};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::Result;

use crate::functions::classes::{by_class, class_list};
use crate::model::scorer::Scorer;

/// A row for each row of indices.
pub(crate) fn contributions(scorer: &Scorer, indices: &[u16]) -> Result<StructArray> {
    let model = scorer.model();
    let changes = scorer.contributions(indices);
    let n_rows = changes.len() / model.features.len();
    let names = model.features.iter().map(|spec| spec.name.as_str());
    let names = StringArray::from_iter_values(names.cycle().take(changes.len()));
    let base_rates = by_class(model.base_rates().repeat(n_rows), None)?;
    let columns: Vec<ArrayRef> = vec![Arc::new(names), by_class(changes.into_flattened(), None)?];
    let contributions = ListArray::try_new(
        contribution_item(),
        OffsetBuffer::from_repeated_length(model.features.len(), n_rows),
        Arc::new(StructArray::try_new(contribution_fields(), columns, None)?),
        None,
    )?;
    let columns: Vec<ArrayRef> = vec![base_rates, Arc::new(contributions)];
    Ok(StructArray::try_new(explanation_fields(), columns, None)?)
}

fn contribution_fields() -> Fields {
    Fields::from(vec![
        Field::new("feature", DataType::Utf8, false),
        Field::new("changes", class_list(), false),
    ])
}

fn contribution_item() -> Arc<Field> {
    Arc::new(Field::new_list_field(DataType::Struct(contribution_fields()), false))
}

pub(crate) fn explanation_fields() -> Fields {
    Fields::from(vec![
        Field::new("base_rates", class_list(), false),
        Field::new("contributions", DataType::List(contribution_item()), false),
    ])
}
