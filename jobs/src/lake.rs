//! The data root: a local directory or an object store, and how the jobs find things in it.
//!
//! ```text
//! raw/                                  files as they were downloaded; those of people as well
//! downloads/                            where each of them came from; see download/mod.rs
//! flights/year=2013/month=1/*.parquet   the relation flights
//! distances/*.parquet                   the relation distances
//! references/<relation>/…               what is known of airports, airlines and airplanes
//! imported_distances/*.parquet          those that people imported
//! rejects/<run>/*.parquet               rows that were refused, with file, line and reason
//! models/<sha256>.json, .html           models and their reports; models/champion names one
//! models/<sha256>.card.json             what the pages show of a model
//! models/<sha256>.promotion.json        whether it became the champion, and why
//! predictions/<run>/*.parquet           answers of a batch
//! archive/group=…/topic=…/partition=…/  answers of streams; see stream/archive.rs
//! jobs/<id>.json                        the history of jobs
//! leases/, readers/                     who changes flights and who reads them; see lease.rs
//! training/<run>/                       indices, checkpoint of a training run; gone at its end
//! staging/<run>/                        what a run is writing; gone when it ends
//! ```

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, Utc};
use datafusion::arrow::datatypes::DataType;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTableUrl};
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientConfigKey, ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme,
    PutMode, PutOptions, PutPayload, RetryConfig, UpdateVersion,
};
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use url::Url;

use crate::visible::Visible;

/// How requests to an object store are repeated: long enough for one that restarts, short enough
/// for a person who mistyped its address.
const RETRY: RetryConfig = RetryConfig {
    backoff: BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(5),
        base: 2.0,
    },
    max_retries: 6,
    retry_timeout: Duration::from_secs(60),
};

/// The places of a data root that hold what jobs make.
pub const PLACES: [&str; 16] = [
    "references",
    "archive",
    "imported_distances",
    "downloads",
    "requests",
    "batch_predictions",
    "flights",
    "distances",
    "rejects",
    "models",
    "predictions",
    "jobs",
    "leases",
    "readers",
    "training",
    "staging",
];

/// The local file system.
pub fn local_store() -> Arc<dyn ObjectStore> {
    Arc::new(Visible(Arc::new(LocalFileSystem::new().with_automatic_cleanup(true))))
}

/// The scheme of what may be a URL: two letters at least, a colon and a slash.
pub fn scheme_of(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme = scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (is_scheme && rest.starts_with('/')).then_some(scheme)
}

/// The path that a `file:` URL names, percent-decoded, or the text itself: `file:/x`, `file:///x`
/// and `file://localhost/x` are `/x`, `file:x` is `x`.
pub fn local_path(text: &str) -> PathBuf {
    let Some(rest) = strip_file_scheme(text) else { return text.into() };
    let path = rest.strip_prefix("//").unwrap_or(rest);
    let path = path.strip_prefix("localhost").filter(|p| p.starts_with('/')).unwrap_or(path);
    PathBuf::from(percent_decode_str(path).decode_utf8_lossy().into_owned())
}

/// Whether a text is a URL of a local file.
pub fn is_file_url(text: &str) -> bool {
    strip_file_scheme(text).is_some()
}

/// A text behind `file:`, in any case.
fn strip_file_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_at_checked("file:".len())?;
    scheme.eq_ignore_ascii_case("file:").then_some(rest)
}

/// An absolute path without links and dots, whether or not something is there.
fn resolved(path: &FilePath) -> Result<PathBuf> {
    let mut there = std::path::absolute(path)?;
    let mut below = Vec::new();
    loop {
        match there.canonicalize() {
            Ok(mut resolved) => {
                for name in below.into_iter().rev() {
                    // a parent of what is not there yet
                    if name == FilePath::new("..") {
                        resolved.pop();
                    } else {
                        resolved.push(name);
                    }
                }
                return Ok(resolved);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let last = there.components().next_back().map(|c| PathBuf::from(c.as_os_str()));
                below.push(last.context("no such path")?);
                there.pop();
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Opens the object store that `url` is in, and the path of `url` in it. `options` hold what its
/// driver knows, named as the usual variables of the environment in lower case.
///
/// Errors when the endpoint is neither encrypted, nor on this machine, nor allowed.
pub fn open_store(url: &Url, options: &[(String, String)]) -> Result<(Arc<dyn ObjectStore>, Path)> {
    let (scheme, path) = ObjectStoreScheme::parse(url)?;
    let plain = options.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    if scheme != ObjectStoreScheme::AmazonS3 {
        let (store, path) = object_store::parse_url_opts(url, plain)?;
        return Ok((Arc::new(Visible(store.into())), path));
    }
    let mut builder = AmazonS3Builder::new().with_url(url.as_str()).with_retry(RETRY);
    for (key, value) in plain {
        // what is in the environment for other programs is not for us
        let Ok(key) = key.parse::<AmazonS3ConfigKey>() else { continue };
        builder = builder.with_config(key, value);
    }
    if let Some(endpoint) = builder.get_config_value(&AmazonS3ConfigKey::Endpoint)
        && is_on_this_machine(&endpoint)?
    {
        builder = builder.with_allow_http(true);
    } else if let Some(endpoint) = builder.get_config_value(&AmazonS3ConfigKey::Endpoint) {
        let http = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
        let is_allowed = builder.get_config_value(&http).is_some_and(|value| value == "true");
        ensure!(
            is_allowed || endpoint.starts_with("https://"),
            "{endpoint} is not encrypted; AWS_ALLOW_HTTP=true allows it"
        );
    }
    Ok((Arc::new(Visible(Arc::new(builder.build()?))), path))
}

fn is_on_this_machine(endpoint: &str) -> Result<bool> {
    let url = Url::parse(endpoint).with_context(|| format!("endpoint {endpoint}"))?;
    Ok(match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    })
}

/// An object of a data root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Relative to the root.
    pub name: String,
    /// Its size.
    pub n_bytes: u64,
    /// When it was written last.
    pub written: DateTime<Utc>,
}

/// An opened data root. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lake {
    root: Url,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl Lake {
    /// Opens `root`: a path, or an object store's URL such as `s3://bucket/prefix`, for which
    /// `options` hold what its driver knows (`aws_region`, …). Makes nothing: a directory comes to
    /// be with the first thing in it, or by [`create`](Self::create).
    pub fn open(root: &str, options: &[(String, String)]) -> Result<Self> {
        let open = || -> Result<Self> {
            let scheme = scheme_of(root);
            let is_there = FilePath::new(root).is_dir();
            if let Some(scheme) =
                scheme.filter(|scheme| !scheme.eq_ignore_ascii_case("file") && !is_there)
            {
                ensure!(
                    root[scheme.len()..].starts_with("://"),
                    "it is neither a directory nor a URL, such as {scheme}://bucket/prefix"
                );
                let url = Url::parse(&format!("{}/", root.trim_end_matches('/')))?;
                let (store, prefix) = open_store(&url, options)?;
                return Ok(Self { root: url, store, prefix });
            }
            let path = if is_there { FilePath::new(root).to_owned() } else { local_path(root) };
            let directory = resolved(&path)?;
            ensure!(directory.is_dir() || !directory.exists(), "it is not a directory");
            let Ok(url) = Url::from_directory_path(&directory) else { bail!("no absolute path") };
            let store = local_store();
            Ok(Self { root: url, store, prefix: Path::from_absolute_path(directory)? })
        };
        open().with_context(|| format!("cannot open the data root {root}"))
    }

    /// Makes the directory of a local root.
    pub fn create(&self) -> Result<()> {
        let Some(directory) = self.local_path("") else { return Ok(()) };
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make the data root {}", directory.display()))
    }

    /// Whether a local root's directory is there; an object store has none to be there.
    pub fn exists(&self) -> bool {
        self.local_path("").is_none_or(|directory| directory.is_dir())
    }

    /// Makes the data root readable and writable for queries of `ctx`.
    pub fn register(&self, ctx: &SessionContext) {
        ctx.register_object_store(&self.root, Arc::clone(&self.store));
    }

    /// The root, for messages.
    pub fn root(&self) -> &Url {
        &self.root
    }

    /// The URL of something in the root, for queries.
    pub fn url(&self, relative: &str) -> String {
        format!("{}{relative}", self.root)
    }

    /// The local path of something in the root, when the root is local.
    pub fn local_path(&self, relative: &str) -> Option<std::path::PathBuf> {
        Some(self.root.to_file_path().ok()?.join(relative))
    }

    /// Whether a path or URL is in one of the root's own [`PLACES`], as queries understand it.
    pub fn owns(&self, target: &str) -> Result<bool> {
        let target = ListingTableUrl::parse(target)?;
        let store = target.object_store();
        let (target, root) = match (Url::parse(target.as_str())?, self.local_path("")) {
            (url, Some(root)) if url.scheme() == "file" => {
                let Ok(path) = url.to_file_path() else { bail!("{url} is no path") };
                (resolved(&path)?.display().to_string(), root.display().to_string())
            }
            (_, None) => {
                // s3 and s3a are two names of one thing
                let bucket = |url: &Url| url.host_str().unwrap_or_default().to_owned();
                let target =
                    format!("{}/{}", bucket(&Url::parse(store.as_str())?), target.prefix());
                (target, format!("{}/{}", bucket(&self.root), self.prefix))
            }
            _ => return Ok(false),
        };
        let parts = |text: &str| -> Vec<String> {
            text.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
        };
        let (target, root) = (parts(&target), parts(&root));
        let is_own = |place: &String| PLACES.contains(&place.as_str());
        Ok(target.starts_with(&root) && target.get(root.len()).is_some_and(is_own))
    }

    /// Whether there are Parquet files below `relative`.
    pub async fn holds_table(&self, relative: &str) -> Result<bool> {
        Ok(self.list(relative).await?.iter().any(|name| name.ends_with(".parquet")))
    }

    /// Where an object is, for who reads it as it stands.
    pub(crate) fn object(&self, relative: &str) -> Result<(Arc<dyn ObjectStore>, Path)> {
        Ok((Arc::clone(&self.store), self.path(relative)?))
    }

    fn path(&self, relative: &str) -> Result<Path> {
        let parts = Path::parse(relative.trim_end_matches('/'))?;
        Ok(self.prefix.parts().chain(parts.parts()).collect())
    }

    /// Reads an object of at most `bytes_max`; `None` when there is none.
    pub async fn get(&self, relative: &str, bytes_max: usize) -> Result<Option<Vec<u8>>> {
        let got = match self.store.get(&self.path(relative)?).await {
            Ok(got) => got,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(e).with_context(|| self.url(relative)),
        };
        ensure!(
            got.meta.size <= bytes_max as u64,
            "{}: {} bytes exceed the limit of {bytes_max}",
            self.url(relative),
            got.meta.size
        );
        let bytes = got.bytes().await.with_context(|| self.url(relative))?;
        Ok(Some(bytes.to_vec()))
    }

    /// What changes whenever an object is written, also with the same bytes; `None` when there is
    /// none.
    pub async fn stamp(&self, relative: &str) -> Result<Option<String>> {
        let stamp = |meta: ObjectMeta| {
            let tag = meta.e_tag.unwrap_or_default();
            format!("{} {tag}", meta.last_modified.timestamp_micros())
        };
        Ok(self.head(relative).await?.map(stamp))
    }

    /// When an object was written last; `None` when there is none.
    pub async fn written(&self, relative: &str) -> Result<Option<DateTime<Utc>>> {
        Ok(self.head(relative).await?.map(|meta| meta.last_modified))
    }

    async fn head(&self, relative: &str) -> Result<Option<ObjectMeta>> {
        match self.store.head(&self.path(relative)?).await {
            Ok(meta) => Ok(Some(meta)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(e).with_context(|| self.url(relative)),
        }
    }

    /// Writes an object; readers see the old or the new one, never a part.
    pub async fn put(&self, relative: &str, bytes: Vec<u8>) -> Result<()> {
        let path = self.path(relative)?;
        let put = self.store.put(&path, PutPayload::from(bytes));
        put.await.with_context(|| format!("cannot write {}", self.url(relative)))?;
        Ok(())
    }

    /// Copies a local file to an object, a part at a time; readers see the old or the new one.
    pub async fn upload(&self, file: &FilePath, relative: &str) -> Result<()> {
        let what = || format!("cannot copy {} to {}", file.display(), self.url(relative));
        let mut from = tokio::fs::File::open(file).await.with_context(what)?;
        let mut to = BufWriter::new(Arc::clone(&self.store), self.path(relative)?);
        let copied = match tokio::io::copy(&mut from, &mut to).await {
            Ok(_) => to.shutdown().await,
            Err(error) => Err(error),
        };
        if copied.is_err() {
            // what went wrong first is what is told
            _ = to.abort().await;
        }
        copied.with_context(what)
    }

    /// The size of an object, in bytes; `None` when there is none.
    pub async fn size(&self, relative: &str) -> Result<Option<u64>> {
        Ok(self.head(relative).await?.map(|meta| meta.size))
    }

    /// Replaces an object only if nobody else replaced it meanwhile.
    ///
    /// A local directory has no conditional put: there the last writer wins, atomically.
    pub async fn replace(&self, relative: &str, bytes: Vec<u8>) -> Result<()> {
        let path = self.path(relative)?;
        let mode = match self.head(relative).await? {
            Some(meta) => {
                PutMode::Update(UpdateVersion { e_tag: meta.e_tag, version: meta.version })
            }
            None => PutMode::Create,
        };
        let mode = if self.root.scheme() == "file" { PutMode::Overwrite } else { mode };
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.store.put_opts(&path, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(()),
            Err(
                object_store::Error::Precondition { .. }
                | object_store::Error::AlreadyExists { .. },
            ) => bail!("{} was replaced by somebody else meanwhile", self.url(relative)),
            Err(e) => Err(e).with_context(|| format!("cannot write {}", self.url(relative))),
        }
    }

    /// All objects below `relative`, sorted by name.
    pub async fn objects(&self, relative: &str) -> Result<Vec<Object>> {
        let n_prefix = self.prefix.parts().count();
        let relative_to_root = |path: &Path| -> String {
            let parts: Vec<_> =
                path.parts().skip(n_prefix).map(|p| p.as_ref().to_owned()).collect();
            parts.join("/")
        };
        let found = self.store.list(Some(&self.path(relative)?));
        let found: Vec<_> = found.try_collect().await.with_context(|| self.url(relative))?;
        let object = |o: &ObjectMeta| Object {
            name: relative_to_root(&o.location),
            n_bytes: o.size,
            written: o.last_modified,
        };
        let mut objects: Vec<Object> = found.iter().map(object).collect();
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    /// Names, relative to the root, and sizes in bytes of all objects below `relative`, sorted.
    pub async fn sizes(&self, relative: &str) -> Result<Vec<(String, u64)>> {
        let objects = self.objects(relative).await?;
        Ok(objects.into_iter().map(|object| (object.name, object.n_bytes)).collect())
    }

    /// Names of all objects below `relative`, relative to the root, sorted.
    pub async fn list(&self, relative: &str) -> Result<Vec<String>> {
        Ok(self.sizes(relative).await?.into_iter().map(|(name, _)| name).collect())
    }

    /// A digest of the names and sizes of all objects below the given places. Files of relations
    /// are never changed in place, so the same digest means the same rows.
    pub async fn fingerprint(&self, relatives: &[&str]) -> Result<String> {
        let mut digest = Sha256::new();
        for relative in relatives {
            for (name, size) in self.sizes(relative).await? {
                digest.update(format!("{name} {size}\n"));
            }
        }
        Ok(format!("{:x}", digest.finalize()))
    }

    /// Makes an object; `false` when it is there already.
    pub async fn create_object(&self, relative: &str, bytes: Vec<u8>) -> Result<bool> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let path = self.path(relative)?;
        match self.store.put_opts(&path, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(e) => Err(e).with_context(|| format!("cannot write {}", self.url(relative))),
        }
    }

    /// Waits until an object of a local root would survive a loss of power; that of an object store
    /// does once it is there.
    pub async fn sync(&self, relative: &str) -> Result<()> {
        let Some(path) = self.local_path(relative) else { return Ok(()) };
        let sync = move || -> Result<()> {
            let directory = path.parent().unwrap_or(&path);
            for path in [&*path, directory] {
                let synced = std::fs::File::open(path).and_then(|file| file.sync_all());
                synced.with_context(|| format!("cannot sync {}", path.display()))?;
            }
            Ok(())
        };
        tokio::task::spawn_blocking(sync).await?
    }

    /// Moves an object; `false` when it is not there.
    pub async fn rename_if_there(&self, from: &str, to: &str) -> Result<bool> {
        match self.store.rename(&self.path(from)?, &self.path(to)?).await {
            Ok(()) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(e)
                .with_context(|| format!("cannot move {} to {}", self.url(from), self.url(to))),
        }
    }

    /// Deletes an object, unless somebody has deleted it already.
    pub async fn delete_if_there(&self, relative: &str) -> Result<()> {
        match self.store.delete(&self.path(relative)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(e).with_context(|| format!("cannot delete {}", self.url(relative))),
        }
    }

    /// Moves an object that is there.
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let is_there = self.rename_if_there(from, to).await?;
        ensure!(is_there, "cannot move {} to {}: it is gone", self.url(from), self.url(to));
        Ok(())
    }

    /// Deletes everything below `relative`.
    pub async fn delete_below(&self, relative: &str) -> Result<()> {
        for name in self.list(relative).await? {
            self.delete(&name).await?;
        }
        Ok(())
    }

    /// Deletes an object.
    pub async fn delete(&self, relative: &str) -> Result<()> {
        let deleted = self.store.delete(&self.path(relative)?).await;
        deleted.with_context(|| format!("cannot delete {}", self.url(relative)))
    }

    /// Registers the Parquet files below `relative` as a table; `partitions` are the integer
    /// columns that directories are named after.
    pub async fn register_table(
        &self,
        ctx: &SessionContext,
        name: &str,
        relative: &str,
        partitions: &[&str],
    ) -> Result<()> {
        ensure!(
            self.holds_table(relative).await?,
            "there are no {name} under {}; `submit-job ingest` makes them",
            self.url(relative)
        );
        self.register(ctx);
        let columns = partitions.iter().map(|p| (p.to_string(), DataType::Int32)).collect();
        let options = ListingOptions::new(Arc::new(ParquetFormat::default()))
            .with_file_extension(".parquet")
            .with_table_partition_cols(columns);
        ctx.deregister_table(name)?;
        let url = self.url(relative);
        ctx.register_listing_table(name, &url, options, None, None).await.context(url)
    }

    /// Registers `flights` and `distances`.
    pub async fn register_flights(&self, ctx: &SessionContext) -> Result<()> {
        self.register_table(ctx, "flights", "flights/", &["year", "month"]).await?;
        self.register_table(ctx, "distances", "distances/", &[]).await
    }
}
