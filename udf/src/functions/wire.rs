//! What functions carry, as bytes: for the way from the program that plans a query to the programs
//! that run it. A function that carries nothing travels by its name alone.
//!
//! The bytes are a line with the version of Tarmac and of this format, and a JSON document,
//! deflated: the scheduler sends a plan once for each task, and forests are repetitive.
//! Programs of different versions may compute different forests, so they refuse each other's
//! functions.

use std::any::Any;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use datafusion::common::{DataFusionError, Result, exec_datafusion_err, exec_err};
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde::{Deserialize, Serialize};

use crate::functions::indices::FeatureIndices;
use crate::functions::model::{ModelFunction, Models, Output};
use crate::model::artefact::{FeatureSpec, MODEL_BYTES_MAX, Model};
use crate::model::scorer::Scorer;
use crate::train::histogram::TreeHistogram;
use crate::train::pass::Pass;

/// The first line of what is sent. The number after the version counts up with every change of what
/// functions carry or compute: two builds between releases have the same version.
const HEADER: &str = concat!("tarmac ", env!("CARGO_PKG_VERSION"), ", functions 3");

/// Longest document that is read, in bytes: a few models.
const DOCUMENT_BYTES_MAX: u64 = 4 * MODEL_BYTES_MAX as u64;

/// A model on its way, under the name that SQL calls it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SentModel {
    version: String,
    model: Model,
}

/// What a scalar function carries; `None` when it is known by its name.
pub fn encode_scalar(function: &ScalarUDF) -> Result<Option<Vec<u8>>> {
    let function: &dyn Any = function.inner().as_ref();
    if let Some(function) = function.downcast_ref::<FeatureIndices>() {
        return encode(&function.specs()).map(Some);
    }
    let Some(function) = function.downcast_ref::<ModelFunction>() else { return Ok(None) };
    let sent: BTreeMap<&String, SentModel> = function
        .models()
        .iter()
        .map(|(name, scorer)| {
            let (version, model) = (scorer.version().to_owned(), scorer.model().clone());
            (name, SentModel { version, model })
        })
        .collect();
    encode(&sent).map(Some)
}

/// The scalar function `name` with what it carried.
pub fn decode_scalar(name: &str, bytes: &[u8]) -> Result<ScalarUDF> {
    if let Some(output) = Output::of_name(name) {
        let sent: BTreeMap<String, SentModel> = decode(name, bytes)?;
        let mut models = Models::new();
        for (called, SentModel { version, model }) in sent {
            model.check().map_err(|e| exec_datafusion_err!("{name}: model {called}: {e}"))?;
            models.insert(called, Arc::new(Scorer::new(model, version)));
        }
        return Ok(ModelFunction::new(output, Arc::new(models)).into());
    }
    if name == "feature_indices" {
        let specs: Vec<FeatureSpec> = decode(name, bytes)?;
        for FeatureSpec { name: feature, encoding } in &specs {
            encoding.check().map_err(|e| exec_datafusion_err!("{name}: {feature}: {e}"))?;
        }
        return Ok(FeatureIndices::new(specs).into());
    }
    unknown(name)
}

/// What an aggregate function carries; `None` when it is known by its name.
pub fn encode_aggregate(function: &AggregateUDF) -> Result<Option<Vec<u8>>> {
    let function: &dyn Any = function.inner().as_ref();
    let histogram = function.downcast_ref::<TreeHistogram>();
    histogram.map(|histogram| encode(histogram.pass())).transpose()
}

/// The aggregate function `name` with what it carried.
pub fn decode_aggregate(name: &str, bytes: &[u8]) -> Result<AggregateUDF> {
    match name {
        "tree_histogram" => {
            let pass: Pass = decode(name, bytes)?;
            pass.check().map_err(|e| exec_datafusion_err!("{name}: {e}"))?;
            Ok(TreeHistogram::new(Arc::new(pass)).into_udaf())
        }
        _ => unknown(name),
    }
}

fn unknown<T>(name: &str) -> Result<T> {
    exec_err!("this program ({HEADER}) does not know the function {name}")
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let bytes = format!("{HEADER}\n").into_bytes();
    let mut deflated = ZlibEncoder::new(bytes, Compression::fast());
    serde_json::to_writer(&mut deflated, value)
        .map_err(|e| DataFusionError::Execution(e.to_string()))?;
    Ok(deflated.finish()?)
}

fn decode<T: for<'a> Deserialize<'a>>(name: &str, bytes: &[u8]) -> Result<T> {
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
    let (header, document) = bytes.split_at(end);
    if header != HEADER.as_bytes() {
        let header = String::from_utf8_lossy(&header[..header.len().min(64)]);
        return exec_err!("{name} comes from {header:?}, this program is {HEADER:?}");
    }
    let deflated = document.strip_prefix(b"\n").unwrap_or_default();
    let mut document = Vec::new();
    let read = ZlibDecoder::new(deflated).take(DOCUMENT_BYTES_MAX).read_to_end(&mut document);
    read.map_err(|e| exec_datafusion_err!("{name}: what it carried cannot be read: {e}"))?;
    serde_json::from_slice(&document)
        .map_err(|e| exec_datafusion_err!("{name}: what it carried cannot be read: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::encoder::Encoding;
    use crate::model::artefact::{ForestParams, Metrics, Node, Rows, Tree};
    use crate::train::split::Growth;

    fn specs() -> Vec<FeatureSpec> {
        // a number whose decimal form is long, and a text that JSON must escape
        let edges = vec![0.1 + 0.2, 1e300];
        let categories = vec!["A\"\n".to_owned(), "é".to_owned()];
        vec![
            FeatureSpec { name: "dep_delay".into(), encoding: Encoding::Numeric(edges) },
            FeatureSpec { name: "route".into(), encoding: Encoding::Categorical(categories) },
        ]
    }

    fn models() -> Arc<Models> {
        let model = Model {
            format: crate::model::artefact::FORMAT,
            classes: (0..crate::N_CLASSES).map(|class| class.to_string()).collect(),
            params: ForestParams::default(),
            sql_sha256: String::new(),
            rows: Rows::default(),
            data: String::new(),
            days: None,
            holdout: Metrics::default(),
            features: specs(),
            reference: None,
            importances: vec![0.0; 2],
            temperature: 1.0,
            trees: vec![Tree { nodes: vec![Node { counts: [1, 2, 3, 4], split: None }] }],
        };
        Arc::new(Models::from([("champion".into(), Arc::new(Scorer::new(model, "v1")))]))
    }

    #[test]
    fn functions_arrive_as_they_were_sent() {
        let mut functions: Vec<ScalarUDF> = vec![FeatureIndices::new(specs()).into()];
        let of_models = |output| ModelFunction::new(output, models()).into();
        functions.extend(Output::ALL.map(of_models));
        for sent in functions {
            let bytes = encode_scalar(&sent).unwrap().unwrap();
            assert_eq!(decode_scalar(sent.name(), &bytes).unwrap(), sent);
        }
        let specs = specs();
        let encodings: Vec<&Encoding> = specs.iter().map(|spec| &spec.encoding).collect();
        let pass = Growth::new(&ForestParams::default(), &encodings).next_pass(1 << 20).unwrap();
        let sent = TreeHistogram::new(Arc::new(pass)).into_udaf();
        let bytes = encode_aggregate(&sent).unwrap().unwrap();
        assert_eq!(decode_aggregate(sent.name(), &bytes).unwrap(), sent);
    }

    #[test]
    fn a_function_without_a_load_travels_by_its_name() {
        let function =
            ScalarUDF::from(datafusion::functions::core::named_struct::NamedStructFunc::new());
        assert_eq!(encode_scalar(&function).unwrap(), None);
        for function in crate::aggregate_functions() {
            assert_eq!(encode_aggregate(&function).unwrap(), None);
        }
    }

    #[test]
    fn another_version_is_refused_by_name() {
        // of another release, and of a build of this one before functions took a struct
        for other in ["tarmac 0.0.1", concat!("tarmac ", env!("CARGO_PKG_VERSION"))] {
            let sent = format!("{other}\n{{}}");
            let error = decode_scalar("predict_delay", sent.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(&format!("{other:?}")) && error.contains(HEADER), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_names_the_function() {
        let open = serde_json::json!([{ "tree": 3, "node": 0, "features": [0] }]);
        let whole = serde_json::json!({ "seed": 1, "n_indices": [2], "trees": [], "open": open });
        let mistaken = encode(&whole).unwrap();
        let cut = &mistaken[..mistaken.len() - 9];
        let plain = format!("{HEADER}\n{whole}");
        let unknown = encode(&serde_json::json!({ "seed": 1 })).unwrap();
        for bytes in [cut, &mistaken, plain.as_bytes(), &unknown, b""] {
            let error = decode_aggregate("tree_histogram", bytes).unwrap_err().to_string();
            assert!(error.contains("tree_histogram"), "{error}");
        }
        // an executor is asked for a function it lacks with no bytes at all
        let error = decode_aggregate("rf_hist", b"").unwrap_err().to_string();
        assert!(error.contains("does not know the function rf_hist"), "{error}");
    }
}
