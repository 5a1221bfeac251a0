//! Models under the data root: artefacts that never change, and the champion that is replaced.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, Utc};
use datafusion::common::ScalarValue;
use datafusion::prelude::SessionContext;
use tokio::time::Instant;
use udf::functions::load::Load;
use udf::functions::model::{ModelFunction, Models, Output};
use udf::model::artefact::{BadModel, MODEL_BYTES_MAX, Model, version_of};
use udf::model::scorer::Scorer;

use crate::features;
use crate::lake::Lake;

/// Time after which a long job looks whether there is another champion: a request to an object
/// store costs milliseconds, which a stream that answers on arrival must not pay each time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a look may take before the job goes on with what it has.
const LOOK_WAIT: Duration = Duration::from_secs(5);
/// The object that names the champion in its first line, and below it those before, latest first.
const CHAMPION: &str = "models/champion";
/// Champions that are remembered, the present one included.
const CHAMPIONS_MAX: usize = 50;
/// Bytes of that many versions with their line feeds; more is something else.
const CHAMPION_BYTES_MAX: usize = CHAMPIONS_MAX * 65;

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
    let (n_mib, max) = (bytes.len() >> 20, MODEL_BYTES_MAX >> 20);
    ensure!(
        n_mib < max,
        "the model has {n_mib} MiB, more than {max}: grow fewer trees, or flatter"
    );
    let version = version_of(&bytes);
    // the same name means the same bytes, so writing again is harmless
    lake.put(&artefact(&version), bytes).await?;
    Ok(version)
}

/// Reads a model and makes it ready to score.
///
/// Errors name the artefact and say why it is refused.
pub async fn load(lake: &Lake, version: &str) -> Result<Scorer> {
    match read(lake, version).await? {
        Some(bytes) => parse(lake, version, &bytes),
        None => bail!("there is no model {}", lake.url(&artefact(version))),
    }
}

/// [Loads](load) a model to score with: the features that it was trained on are there.
///
/// Errors name the artefact, and what there is not.
pub async fn load_to_score(lake: &Lake, version: &str) -> Result<Scorer> {
    let scorer = load(lake, version).await?;
    features::check(&scorer).await.with_context(|| lake.url(&artefact(version)))?;
    Ok(scorer)
}

/// The champion, to score with.
pub async fn champion_to_score(lake: &Lake) -> Result<Scorer> {
    match champion_version(lake).await? {
        Some(version) => load_to_score(lake, &version).await,
        None => bail!("there is no champion under {}; `submit-job train` makes one", lake.root()),
    }
}

/// The bytes of a model, if it is there. Errors may pass: the data root is away.
async fn read(lake: &Lake, version: &str) -> Result<Option<Vec<u8>>> {
    lake.get(&artefact(version), MODEL_BYTES_MAX).await
}

/// A model from its bytes. Errors do not pass: it is damaged.
fn parse(lake: &Lake, version: &str, bytes: &[u8]) -> Result<Scorer> {
    let model = Model::parse(bytes, version).with_context(|| lake.url(&artefact(version)))?;
    Ok(Scorer::new(model, version))
}

/// The champion and those before it, latest first; empty when there is none.
pub async fn champions(lake: &Lake) -> Result<Vec<String>> {
    let Some(bytes) = lake.get(CHAMPION, CHAMPION_BYTES_MAX).await? else { return Ok(Vec::new()) };
    let text = String::from_utf8_lossy(&bytes);
    let versions: Vec<String> = text.lines().map(str::to_owned).collect();
    let is_version =
        |line: &String| line.len() == 64 && line.bytes().all(|b| b.is_ascii_hexdigit());
    if versions.is_empty() || !versions.iter().all(is_version) {
        bail!("{} does not name a model", lake.url(CHAMPION));
    }
    Ok(versions)
}

/// The version of the champion, if there is one.
pub async fn champion_version(lake: &Lake) -> Result<Option<String>> {
    Ok(champions(lake).await?.into_iter().next())
}

/// The champion.
pub async fn champion(lake: &Lake) -> Result<Option<Scorer>> {
    match champion_version(lake).await? {
        Some(version) => Ok(Some(load(lake, &version).await?)),
        None => Ok(None),
    }
}

/// The champion, or what is wrong with it: it is gone, damaged, or no model. Errors may pass, or
/// are of a model that a newer program made.
pub async fn champion_if_sound(lake: &Lake) -> Result<Option<Result<Scorer>>> {
    let Some(version) = champion_version(lake).await? else { return Ok(None) };
    let Some(bytes) = read(lake, &version).await? else {
        return Ok(Some(load(lake, &version).await));
    };
    match parse(lake, &version, &bytes) {
        Err(error) if matches!(error.downcast_ref(), Some(BadModel::UnknownFormat(_))) => {
            Err(error)
        }
        parsed => Ok(Some(parsed)),
    }
}

/// Makes a saved model the champion.
pub async fn promote(lake: &Lake, version: &str) -> Result<()> {
    // what cannot be read is replaced, not added to
    let mut before = champions(lake).await.unwrap_or_default();
    before.retain(|known| known != version);
    before.truncate(CHAMPIONS_MAX - 1);
    write_champions(lake, std::iter::once(version.to_owned()).chain(before)).await
}

/// The champion, and the one before it, which can score.
///
/// Errors when the champion is not `expected` any more, where one is, or none was before it.
pub async fn before(lake: &Lake, expected: Option<&str>) -> Result<(String, String)> {
    let mut versions = champions(lake).await?.into_iter();
    let (Some(champion), Some(before)) = (versions.next(), versions.next()) else {
        bail!("{} names no champion before the present one", lake.url(CHAMPION));
    };
    let is_expected = expected.is_none_or(|expected| expected == champion);
    ensure!(is_expected, "{champion} has become the champion meanwhile, and stays");
    load_to_score(lake, &before).await?;
    Ok((champion, before))
}

/// Makes the champion [`before`] the present one the champion again; returns both versions,
/// the one that goes first.
pub async fn roll_back(lake: &Lake, expected: Option<&str>) -> Result<(String, String)> {
    let (champion, back) = before(lake, expected).await?;
    let versions = champions(lake).await?.into_iter().skip_while(|version| *version != back);
    write_champions(lake, versions).await?;
    Ok((champion, back))
}

/// When the present champion became it, or another one before it went; `None` without one.
pub async fn champion_since(lake: &Lake) -> Result<Option<DateTime<Utc>>> {
    let objects = lake.objects("models/").await?;
    Ok(objects.into_iter().find(|object| object.name == CHAMPION).map(|object| object.written))
}

async fn write_champions(lake: &Lake, versions: impl Iterator<Item = String>) -> Result<()> {
    let lines: String = versions.map(|version| version + "\n").collect();
    lake.replace(CHAMPION, lines.into_bytes()).await
}

/// The versions of all saved models.
pub async fn list(lake: &Lake) -> Result<Vec<String>> {
    let names = lake.list("models/").await?;
    let version = |name: &String| {
        let name = name.rsplit('/').next()?.strip_suffix(".json")?;
        (name.len() == 64).then(|| name.to_owned())
    };
    Ok(names.iter().filter_map(version).collect())
}

/// The one saved model whose version begins with `start`, as it is shown in lists.
pub async fn find(lake: &Lake, start: &str) -> Result<String> {
    let mut found = list(lake).await?.into_iter().filter(|version| version.starts_with(start));
    match (found.next(), found.next()) {
        (Some(version), None) => Ok(version),
        (None, _) => bail!("there is no model {start} under {}", lake.root()),
        (Some(_), Some(_)) => bail!("more than one model begins with {start}"),
    }
}

/// Registers the functions of these models.
pub fn register(ctx: &SessionContext, models: Models) {
    let models = Arc::new(Load::from(models));
    for output in Output::ALL {
        ctx.register_udf(ModelFunction::new(output, Arc::clone(&models)).into());
    }
}

/// Makes a model the only one that SQL knows; returns the parameter that names it. A query carries
/// all that are known, to each of its tasks.
pub fn register_one(ctx: &SessionContext, scorer: &Arc<Scorer>) -> (&'static str, ScalarValue) {
    register(ctx, Models::from([("model".to_owned(), Arc::clone(scorer))]));
    ("model", ScalarValue::from("model"))
}

/// The champion that a long job serves with, looked at again from time to time.
pub struct Serving {
    lake: Lake,
    champion: Arc<Scorer>,
    /// When it was saved.
    written: Option<DateTime<Utc>>,
    /// A champion that was refused, so that it is complained of once.
    refused: Option<RefusedModel>,
    /// What was wrong at the last look, so that it is complained of once.
    complaint: Option<String>,
    looked: Instant,
}

/// A champion that does not serve.
#[derive(PartialEq, Eq)]
struct RefusedModel {
    version: String,
    /// What the object that names it looked like: promoted again, it is looked at again.
    stamp: Option<String>,
    /// A model that is missing may come.
    is_missing: bool,
}

/// What a look at the champion found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// The same as before, or nothing that can be said.
    Same,
    /// Another one, which serves now.
    Replaced,
    /// Another one that cannot be read, or uses a feature that is gone; the old one serves on.
    Refused,
}

impl Serving {
    /// Loads the champion and registers its functions under the name `champion`.
    pub async fn load(ctx: &SessionContext, lake: &Lake) -> Result<Self> {
        let champion = Arc::new(champion_to_score(lake).await?);
        register(ctx, Models::from([("champion".to_owned(), Arc::clone(&champion))]));
        Ok(Self {
            lake: lake.clone(),
            written: lake.written(&artefact(champion.version())).await?,
            champion,
            refused: None,
            complaint: None,
            looked: Instant::now(),
        })
    }

    /// The model that serves.
    pub fn champion(&self) -> &Arc<Scorer> {
        &self.champion
    }

    /// When the model that serves was saved.
    pub fn written(&self) -> Option<DateTime<Utc>> {
        self.written
    }

    /// Whether [`refresh`](Self::refresh) would look.
    pub fn is_due(&self) -> bool {
        self.looked.elapsed() >= LOOK_EVERY
    }

    /// [Looks](Self::look) for a new champion, once in a while.
    pub async fn refresh(&mut self, ctx: &SessionContext) -> RefreshOutcome {
        if !self.is_due() {
            return RefreshOutcome::Same;
        }
        self.looked = Instant::now();
        // a micro-batch waits for this: a store that hangs must not hold it up for long
        let looked = tokio::time::timeout(LOOK_WAIT, self.look(ctx)).await;
        looked.unwrap_or_else(|_| {
            tracing::warn!("the data root does not say who is champion; the old one serves");
            RefreshOutcome::Same
        })
    }

    /// Takes a new champion, whole. One that is damaged or does not fit is refused with a warning,
    /// and the old one goes on serving: requests are answered whatever happens to the data root.
    /// One that cannot be read at the moment is looked for again.
    pub async fn look(&mut self, ctx: &SessionContext) -> RefreshOutcome {
        match self.find(ctx).await {
            Ok(looked) => {
                self.complaint = None;
                looked
            }
            Err(error) => {
                let error = format!("{error:#}");
                if self.complaint.as_ref() != Some(&error) {
                    tracing::warn!(error, "champion is not known; the old one serves");
                    self.complaint = Some(error);
                }
                RefreshOutcome::Same
            }
        }
    }

    async fn find(&mut self, ctx: &SessionContext) -> Result<RefreshOutcome> {
        let found = match champion_version(&self.lake).await? {
            Some(version) if version != self.champion.version() => version,
            _ => return Ok(RefreshOutcome::Same),
        };
        let stamp = self.lake.stamp(CHAMPION).await?;
        let refused =
            |is_missing| RefusedModel { version: found.clone(), stamp: stamp.clone(), is_missing };
        if self.refused == Some(refused(false)) {
            return Ok(RefreshOutcome::Same);
        }
        let Some(bytes) = read(&self.lake, &found).await? else {
            let refused = refused(true);
            if self.refused.as_ref() == Some(&refused) {
                return Ok(RefreshOutcome::Same);
            }
            tracing::warn!(model = found, "champion is refused: there is no such model");
            self.refused = Some(refused);
            return Ok(RefreshOutcome::Refused);
        };
        let written = self.lake.written(&artefact(&found)).await?;
        let before = self.champion.version();
        let fitting = match parse(&self.lake, &found, &bytes) {
            Ok(scorer) => features::check(&scorer).await.map(|()| scorer),
            Err(error) => Err(error),
        };
        match fitting {
            Ok(scorer) => {
                tracing::info!(model = found, before, "champion is replaced");
                self.champion = Arc::new(scorer);
                self.written = written;
                let champion = Arc::clone(&self.champion);
                register(ctx, Models::from([("champion".to_owned(), champion)]));
                Ok(RefreshOutcome::Replaced)
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(model = found, error, serving = before, "champion is refused");
                self.refused = Some(refused(false));
                Ok(RefreshOutcome::Refused)
            }
        }
    }
}
