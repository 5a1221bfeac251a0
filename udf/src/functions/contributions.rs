//! What `delay_contributions` returns: what moved each answer, by
//! [`Model::contributions`](crate::model::artefact::Model::contributions). `base_rates` and all
//! `changes` of a row sum to its probabilities; a feature that changes nothing is left out.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, ListArray, StringArray, StructArray};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::Result;

use crate::N_CLASSES;
use crate::functions::classes::{by_class, class_list};
use crate::model::scorer::Scorer;

/// A row for each row of indices.
pub(crate) fn contributions(scorer: &Scorer, indices: &[u16]) -> Result<StructArray> {
    let model = scorer.model();
    let (mut features, mut changes, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    for row in scorer.contributions(indices).chunks_exact(model.features.len()) {
        let n_before = features.len();
        for (spec, change) in model.features.iter().zip(row) {
            if *change != [0.0; N_CLASSES] {
                features.push(spec.name.as_str());
                changes.extend(change);
            }
        }
        lengths.push(features.len() - n_before);
    }
    let base_rates = by_class(model.base_rates().repeat(lengths.len()))?;
    let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(features)), by_class(changes)?];
    let contributions = ListArray::try_new(
        contribution_item(),
        OffsetBuffer::from_lengths(lengths),
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
