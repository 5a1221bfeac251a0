//! What of the data root has outlived its use.
//!
//! Flights and distances are never touched. A job's record goes when it has ended long ago, and
//! with it what only that job has left; a model goes when nothing names it: neither the list of
//! champions, which is what can be rolled back to, nor the record of a job that stays.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};

use crate::history::{self, Record, State};
use crate::lake::{Lake, Object};
use crate::lease;
use crate::models::registry;

/// Characters of a version that name a model when they stand alone in a command line.
const BEGINNING_MIN: usize = 4;

/// How long what is not used any more stays; `None` is for ever.
#[derive(Debug, Clone, Default)]
pub struct Ages {
    /// Records of jobs that have ended, what they refused, and what they left when they died.
    pub jobs: Option<Duration>,
    /// Models that nothing names.
    pub models: Option<Duration>,
    /// Predictions of batches.
    pub predictions: Option<Duration>,
}

/// Something that can go, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// What it is, for people: `model 3f…`, `job 2026…`.
    pub what: String,
    /// Its objects, in the order in which they are deleted.
    pub objects: Vec<Object>,
    /// The model, where it is one: it is looked once more whether it has become champion.
    model: Option<String>,
}

impl Garbage {
    /// When something of it was written last.
    pub fn written(&self) -> Option<DateTime<Utc>> {
        self.objects.iter().map(|object| object.written).max()
    }

    /// Sum of its sizes.
    pub fn n_bytes(&self) -> u64 {
        self.objects.iter().map(|object| object.n_bytes).sum()
    }
}

/// Finds what can go at `now`. `keep` are versions of models that are used by what leaves no trace
/// under the data root, such as the challenger of a stream.
///
/// A record that cannot be read is left where it is, with a warning.
pub async fn find(
    lake: &Lake,
    ages: &Ages,
    keep: &[String],
    now: DateTime<Utc>,
) -> Result<Vec<Garbage>> {
    let is_old = |age: Option<Duration>, objects: &[Object]| {
        let is_old = |age: Duration, object: &Object| {
            let is = now.signed_duration_since(object.written);
            is.to_std().is_ok_and(|is| is > age)
        };
        age.is_some_and(|age| objects.iter().all(|object| is_old(age, object)))
    };
    let (mut garbage, mut stay) = (Vec::new(), BTreeMap::new());
    for (id, objects) in groups(lake, "jobs", |name| name.split_once('.')).await? {
        let text = history::bytes(lake, &id).await?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let record = serde_json::from_str::<Record>(&text);
        if let Err(error) = &record {
            tracing::warn!(id, %error, "a record that cannot be read is left where it is");
        }
        let is_over = record.is_ok_and(|record| record.state_at(now) != State::Running);
        if is_over && is_old(ages.jobs, &objects) {
            garbage.push(Garbage { what: format!("job {id}"), objects, model: None });
        } else {
            stay.insert(id, text);
        }
    }
    let holder = lease::holder(lake).await?;
    for (place, end) in [("batch_predictions", '/'), ("requests", '.')] {
        for (batch, objects) in groups(lake, place, |name| name.rsplit_once(end)).await? {
            if is_old(ages.predictions, &objects) {
                let what = format!("{place} of {batch}");
                garbage.push(Garbage { what, objects, model: None });
            }
        }
    }
    for place in ["rejects", "staging", "training", "predictions"] {
        let (age, needs_record) = match place {
            "predictions" => (ages.predictions, false),
            _ => (ages.jobs, true),
        };
        for (run, objects) in groups(lake, place, |name| name.split_once('/')).await? {
            if place == "staging" && holder.as_ref() == Some(&run) {
                continue;
            }
            if is_old(age, &objects) && !(needs_record && stay.contains_key(&run)) {
                garbage.push(Garbage { what: format!("{place} of {run}"), objects, model: None });
            }
        }
    }
    let champions = registry::champions(lake).await?;
    for (version, objects) in groups(lake, "models", |name| name.split_once('.')).await? {
        let is_version = version.len() == 64;
        let is_named = champions.contains(&version)
            || keep.contains(&version)
            || stay.values().any(|record| names(record, &version));
        if is_version && !is_named && is_old(ages.models, &objects) {
            let what = format!("model {version}");
            garbage.push(Garbage { what, objects, model: Some(version) });
        }
    }
    Ok(garbage)
}

/// The objects of a place by what they are of: the text before what `split` splits a name at.
async fn groups(
    lake: &Lake,
    place: &str,
    split: impl Fn(&str) -> Option<(&str, &str)>,
) -> Result<BTreeMap<String, Vec<Object>>> {
    let mut groups: BTreeMap<String, Vec<Object>> = BTreeMap::new();
    for object in lake.objects(&format!("{place}/")).await? {
        let name = object.name.strip_prefix(place).and_then(|name| name.strip_prefix('/'));
        if let Some((of, _)) = name.and_then(&split) {
            groups.entry(of.to_owned()).or_default().push(object);
        }
    }
    Ok(groups)
}

/// Whether a record names a model: what came of the job by its version, what it was told maybe by
/// the beginning of it.
fn names(record: &str, version: &str) -> bool {
    if record.contains(version) {
        return true;
    }
    let Ok(record) = serde_json::from_str::<Record>(record) else { return false };
    let given = record
        .arguments
        .iter()
        .map(|argument| argument.split_once('=').map_or(argument.as_str(), |(_, value)| value));
    let mut given = given.filter(|text| text.len() >= BEGINNING_MIN);
    given.any(|text| version.starts_with(text))
}

/// Deletes it; whether it was.
pub async fn delete(lake: &Lake, garbage: &Garbage) -> Result<bool> {
    if let Some(version) = &garbage.model
        && registry::champions(lake).await?.contains(version)
    {
        return Ok(false);
    }
    for object in &garbage.objects {
        lake.delete(&object.name).await?;
    }
    Ok(true)
}
