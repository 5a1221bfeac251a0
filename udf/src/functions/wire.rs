//! Which functions carry what, on the way from the program that plans a query to the programs that
//! run it. A function that carries nothing travels by its name alone.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::{Result, exec_datafusion_err, exec_err};
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use serde::{Deserialize, Serialize};

use crate::functions::indices::FeatureIndices;
use crate::functions::load::{HEADER, Load, decode, encode, ready_once};
use crate::functions::model::{ModelFunction, Models, Output};
use crate::model::artefact::{FeatureSpec, Model};
use crate::model::scorer::Scorer;
use crate::train::histogram::TreeHistogram;
use crate::train::pass::Pass;

/// A model on its way, under the name that SQL calls it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SentModel {
    version: String,
    model: Model,
}

/// What a scalar function carries; `None` when it is known by its name.
pub fn encode_scalar(function: &ScalarUDF) -> Result<Option<Arc<[u8]>>> {
    let function: &dyn Any = function.inner().as_ref();
    if let Some(function) = function.downcast_ref::<FeatureIndices>() {
        return function.specs().bytes(encode).map(Some);
    }
    let Some(function) = function.downcast_ref::<ModelFunction>() else { return Ok(None) };
    function.models().bytes(encode_models).map(Some)
}

fn encode_models(models: &Models) -> Result<Vec<u8>> {
    let sent = models.iter().map(|(name, scorer)| {
        let (version, model) = (scorer.version().to_owned(), scorer.model().clone());
        (name, SentModel { version, model })
    });
    encode(&sent.collect::<BTreeMap<_, _>>())
}

/// The scalar function `name` with what it carried.
pub fn decode_scalar(name: &str, bytes: &[u8]) -> Result<ScalarUDF> {
    if let Some(output) = Output::of_name(name) {
        let models =
            ready_once(bytes, |bytes| Ok(Load::received(decode_models(name, &bytes)?, bytes)))?;
        return Ok(ModelFunction::new(output, models).into());
    }
    if name == "feature_indices" {
        let function = ready_once(bytes, |bytes| {
            let specs: Vec<FeatureSpec> = decode(name, &bytes)?;
            for FeatureSpec { name: feature, encoding } in &specs {
                encoding.check().map_err(|e| exec_datafusion_err!("{name}: {feature}: {e}"))?;
            }
            Ok(FeatureIndices::new(Load::received(specs, bytes)))
        })?;
        return Ok(function.into());
    }
    unknown(name)
}

fn decode_models(name: &str, bytes: &[u8]) -> Result<Models> {
    let sent: BTreeMap<String, SentModel> = decode(name, bytes)?;
    let mut models = Models::new();
    for (called, SentModel { version, model }) in sent {
        model.check().map_err(|e| exec_datafusion_err!("{name}: model {called}: {e}"))?;
        models.insert(called, Arc::new(Scorer::new(model, version)));
    }
    Ok(models)
}

/// What an aggregate function carries; `None` when it is known by its name.
pub fn encode_aggregate(function: &AggregateUDF) -> Result<Option<Arc<[u8]>>> {
    let function: &dyn Any = function.inner().as_ref();
    let histogram = function.downcast_ref::<TreeHistogram>();
    histogram.map(|histogram| histogram.pass().bytes(encode)).transpose()
}

/// The aggregate function `name` with what it carried.
pub fn decode_aggregate(name: &str, bytes: &[u8]) -> Result<AggregateUDF> {
    match name {
        "tree_histogram" => ready_once(bytes, |bytes| {
            let pass: Pass = decode(name, &bytes)?;
            pass.check().map_err(|e| exec_datafusion_err!("{name}: {e}"))?;
            Ok(TreeHistogram::new(Load::received(pass, bytes)))
        })
        .map(TreeHistogram::into_udaf),
        _ => unknown(name),
    }
}

fn unknown<T>(name: &str) -> Result<T> {
    exec_err!("this program ({HEADER}) does not know the function {name}")
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

    fn models() -> Models {
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
        Models::from([("champion".into(), Arc::new(Scorer::new(model, "v1")))])
    }

    #[test]
    fn functions_arrive_as_they_were_sent() {
        let mut functions: Vec<ScalarUDF> = vec![FeatureIndices::new(Load::from(specs())).into()];
        let of_models = |output| ModelFunction::new(output, Load::from(models())).into();
        functions.extend(Output::ALL.map(of_models));
        for sent in functions {
            let bytes = encode_scalar(&sent).unwrap().unwrap();
            assert_eq!(decode_scalar(sent.name(), &bytes).unwrap(), sent);
        }
        let specs = specs();
        let encodings: Vec<&Encoding> = specs.iter().map(|spec| &spec.encoding).collect();
        let pass = Growth::new(&ForestParams::default(), &encodings).next_pass(1 << 20).unwrap();
        let sent = TreeHistogram::new(Load::from(pass)).into_udaf();
        let bytes = encode_aggregate(&sent).unwrap().unwrap();
        assert_eq!(decode_aggregate(sent.name(), &bytes).unwrap(), sent);
    }

    #[test]
    fn a_load_is_written_once_and_made_ready_once() {
        let models = Arc::new(Load::from(models()));
        let functions = Output::ALL.map(|output| {
            let sent = ScalarUDF::from(ModelFunction::new(output, Arc::clone(&models)));
            let bytes = encode_scalar(&sent).unwrap().unwrap();
            let received = decode_scalar(sent.name(), &bytes).unwrap();
            let sent_on = encode_scalar(&received).unwrap().unwrap();
            assert_eq!(sent_on, bytes);
            (bytes, received)
        });
        let scorers = functions.each_ref().map(|(_, function)| {
            let function: &dyn Any = function.inner().as_ref();
            Arc::clone(&function.downcast_ref::<ModelFunction>().unwrap().models()["champion"])
        });
        for i in 1..functions.len() {
            assert!(Arc::ptr_eq(&functions[0].0, &functions[i].0));
            assert!(Arc::ptr_eq(&scorers[0], &scorers[i]));
        }
        // so many that the first is kept no more
        for i in 0..crate::functions::load::KEPT_MAX {
            let spec = FeatureSpec { name: i.to_string(), encoding: Encoding::Numeric(Vec::new()) };
            let sent = FeatureIndices::new(Load::from(vec![spec])).into();
            let bytes = encode_scalar(&sent).unwrap().unwrap();
            assert_eq!(decode_scalar("feature_indices", &bytes).unwrap(), sent);
        }
        assert_eq!(
            decode_scalar("predict_delay", &functions[0].0).unwrap().name(),
            "predict_delay"
        );
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
