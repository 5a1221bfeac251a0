//! Models under the data root: artefacts that never change, and the champion that is replaced.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use datafusion::prelude::SessionContext;
use tokio::time::Instant;
use udf::forest::{MODEL_BYTES_MAX, Model, version_of};
use udf::predict::{Models, PredictDelay, UnseenFeatures};
use udf::scorer::Scorer;

use crate::lake::Lake;

/// Time after which a long job looks whether there is another champion: a request to an object
/// store costs milliseconds, which a stream that answers on arrival must not pay each time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The object that names the champion.
const CHAMPION: &str = "models/champion";
/// Bytes of a version and a line feed; more is something else.
const CHAMPION_BYTES_MAX: usize = 256;

fn artefact(version: &str) -> String {
    format!("models/{version}.json")
}

/// Where the report of a model is, relative to the root.
pub fn report_of(version: &str) -> String {
    format!("models/{version}.html")
}

/// Writes a model under its own hash and returns its version.
pub async fn save(lake: &Lake, model: &Model) -> Result<String> {
    let bytes = model.to_bytes();
    let version = version_of(&bytes);
    // the same name means the same bytes, so writing again is harmless
    lake.put(&artefact(&version), bytes).await?;
    Ok(version)
}

/// Reads a model and makes it ready to score.
///
/// Errors name the artefact and say why it is refused.
pub async fn load(lake: &Lake, version: &str) -> Result<Scorer> {
    let name = artefact(version);
    let Some(bytes) = lake.get(&name, MODEL_BYTES_MAX).await? else {
        bail!("there is no model {}", lake.url(&name));
    };
    let model = Model::parse(&bytes, version).with_context(|| lake.url(&name))?;
    Ok(Scorer::new(model, version))
}

/// The version of the champion, if there is one.
pub async fn champion_version(lake: &Lake) -> Result<Option<String>> {
    let Some(bytes) = lake.get(CHAMPION, CHAMPION_BYTES_MAX).await? else { return Ok(None) };
    let version = String::from_utf8_lossy(&bytes).trim().to_owned();
    if version.len() != 64 || !version.bytes().all(|b| b.is_ascii_hexdigit()) {
        bail!("{} does not name a model", lake.url(CHAMPION));
    }
    Ok(Some(version))
}

/// The champion.
pub async fn champion(lake: &Lake) -> Result<Option<Scorer>> {
    match champion_version(lake).await? {
        Some(version) => Ok(Some(load(lake, &version).await?)),
        None => Ok(None),
    }
}

/// Makes a saved model the champion.
pub async fn promote(lake: &Lake, version: &str) -> Result<()> {
    lake.replace(CHAMPION, format!("{version}\n").into_bytes()).await
}

/// Lets SQL ask these models.
pub fn register(ctx: &SessionContext, models: Models) {
    let models = Arc::new(models);
    ctx.register_udf(PredictDelay::new(Arc::clone(&models)).into());
    ctx.register_udf(UnseenFeatures::new(models).into());
}

/// The champion that a long job serves with, looked at again from time to time.
pub struct Serving {
    lake: Lake,
    version: String,
    /// A champion that was refused, so that it is complained of once.
    refused: Option<String>,
    looked: Instant,
}

impl Serving {
    /// Loads the champion and lets SQL ask it under the name `champion`.
    pub async fn load(ctx: &SessionContext, lake: &Lake) -> Result<Self> {
        let champion = champion(lake).await?.with_context(|| {
            format!("there is no champion under {}; `submit-job train` makes one", lake.root())
        })?;
        let version = champion.version().to_owned();
        register(ctx, Models::from([("champion".to_owned(), Arc::new(champion))]));
        Ok(Self { lake: lake.clone(), version, refused: None, looked: Instant::now() })
    }

    /// The version that is served.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// [Looks](Self::look) for a new champion, once in a while.
    pub async fn refresh(&mut self, ctx: &SessionContext) {
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            self.look(ctx).await;
        }
    }

    /// Takes a new champion, whole. One that cannot be read is refused with a warning, and the old
    /// one goes on serving: requests are answered whatever happens to the data root.
    pub async fn look(&mut self, ctx: &SessionContext) {
        let found = match champion_version(&self.lake).await {
            Ok(Some(version)) if version != self.version => version,
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "champion is not known");
                return;
            }
        };
        match load(&self.lake, &found).await {
            Ok(scorer) => {
                register(ctx, Models::from([("champion".to_owned(), Arc::new(scorer))]));
                tracing::info!(model = found, before = self.version, "champion is replaced");
                self.version = found;
            }
            Err(error) if self.refused.as_ref() != Some(&found) => {
                let error = format!("{error:#}");
                tracing::warn!(model = found, error, serving = self.version, "champion is refused");
                self.refused = Some(found);
            }
            Err(_) => {}
        }
    }
}
