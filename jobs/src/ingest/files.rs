//! From what a person names to the files that are read: files, directories, patterns, and objects
//! of an object store.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use futures::TryStreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use percent_encoding::percent_decode_str;
use tempfile::NamedTempFile;
use url::Url;

use crate::ingest::raw::{Sight, constants_of, sight};
use crate::lake::{Lake, is_file_url, local_path, open_store, scheme_of};
use crate::visible::is_hidden;

/// Files that one run reads at most.
const FILES_MAX: usize = 100_000;
/// Directories in directories at most.
const DEPTH_MAX: usize = 32;

/// A file to read.
#[derive(Debug, Clone)]
pub struct RawFile {
    /// What people call it.
    pub name: String,
    /// Its size.
    pub n_bytes: u64,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Local(PathBuf),
    Remote(Arc<dyn ObjectStore>, ObjectPath),
}

/// A file that is not read, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassedOver {
    /// What people call it.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Sorted by name, each once.
    pub files: Vec<RawFile>,
    /// Named, or beside a file that is read.
    pub passed_over: Vec<PassedOver>,
    seen: HashSet<String>,
    /// Files that were met, however often and whatever becomes of them.
    n_met: usize,
}

/// A local copy of a file, as long as it is needed.
pub enum LocalFile {
    /// It is local.
    Itself(PathBuf),
    /// It was fetched.
    Fetched(NamedTempFile),
}

impl LocalFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        match self {
            Self::Itself(path) => path,
            Self::Fetched(file) => file.path(),
        }
    }
}

impl RawFile {
    /// An object that jobs have made, which is read for its own purpose only.
    pub async fn of_lake(lake: &Lake, relative: &str) -> Result<Option<Self>> {
        let Some(n_bytes) = lake.size(relative).await? else { return Ok(None) };
        let (store, path) = lake.object(relative)?;
        Ok(Some(Self { name: lake.url(relative), n_bytes, place: Place::Remote(store, path) }))
    }

    /// Values that stand in its path.
    pub fn constants(&self) -> Vec<(String, String)> {
        constants_of(&self.name)
    }

    /// Makes it local.
    pub async fn fetch(&self) -> Result<LocalFile> {
        let (store, path) = match &self.place {
            Place::Local(path) => return Ok(LocalFile::Itself(path.clone())),
            Place::Remote(store, path) => (store, path),
        };
        let mut bytes = store.get(path).await?.into_stream();
        let mut file = NamedTempFile::new().context("no temporary file")?;
        while let Some(chunk) = bytes.try_next().await? {
            file.write_all(&chunk).context("cannot write a temporary file")?;
        }
        file.flush()?;
        Ok(LocalFile::Fetched(file))
    }
}

/// Finds what `inputs` name. `options` are those of object stores.
///
/// Errors when something that is named is not there, or nothing is found at all.
pub async fn find(inputs: &[PathBuf], lake: &Lake, options: &[(String, String)]) -> Result<Found> {
    let mut found = Found::default();
    for input in inputs {
        let n_before = found.n_met;
        match address(input)? {
            Some(url) => found.remote(&url, options).await?,
            None => found.local(input, lake)?,
        }
        if found.n_met == n_before && input.is_dir() {
            found.pass_over(input.display().to_string(), "there are no files in it");
        }
    }
    ensure!(
        !found.files.is_empty() || !found.passed_over.is_empty(),
        "there are no .csv, .parquet or .jsonl files to ingest"
    );
    found.files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The URL that an input is, unless it is a path; `file:` is one.
fn address(input: &Path) -> Result<Option<Url>> {
    let Some(text) = input.to_str() else { return Ok(None) };
    // a path may hold a colon
    let is_url = |scheme: &str| text[scheme.len()..].starts_with("://");
    if !scheme_of(text).is_some_and(is_url) || is_file_url(text) {
        return Ok(None);
    }
    // a question mark is part of a pattern here, a number sign of a name
    let text = text.replace('?', "%3F").replace('#', "%23");
    Ok(Some(Url::parse(&text).with_context(|| format!("{} is no URL", input.display()))?))
}

impl Found {
    /// These files.
    pub fn all(files: Vec<RawFile>) -> Self {
        Self { files, ..Self::default() }
    }

    /// This file alone.
    pub fn one(file: RawFile) -> Self {
        Self { files: vec![file], ..Self::default() }
    }

    fn add(&mut self, file: RawFile, identity: String) -> Result<()> {
        self.n_met += 1;
        if self.seen.insert(identity) {
            self.files.push(file);
        }
        ensure!(self.files.len() <= FILES_MAX, "more than {FILES_MAX} files");
        Ok(())
    }

    fn pass_over(&mut self, name: String, reason: &str) {
        self.n_met += 1;
        self.passed_over.push(PassedOver { name, reason: reason.to_owned() });
    }

    fn local(&mut self, input: &Path, lake: &Lake) -> Result<()> {
        let url = input.to_str().filter(|text| is_file_url(text) && !input.exists());
        let input = &url.map_or_else(|| input.to_owned(), local_path);
        if input.is_dir() {
            return self.local_directory(input, lake, 0, &mut BTreeSet::new());
        }
        if input.is_file() {
            return self.local_file(input, lake);
        }
        let pattern = input.to_str().filter(|text| text.contains(['*', '?', '[']));
        let Some(pattern) = pattern else {
            ensure!(input.exists(), "{}: there is no such file", input.display());
            // a pipe cannot be told apart by its first bytes and read from its beginning again
            bail!("{}: it is neither a file nor a directory", input.display());
        };
        let n_before = self.n_met;
        let paths = glob::glob(pattern).with_context(|| format!("{pattern} is no pattern"))?;
        // what is hidden is not meant by a wildcard, unless the pattern says so
        let n_fixed = pattern.split('/').take_while(|part| !part.contains(['*', '?', '['])).count();
        for path in paths {
            let path = path?;
            let matched: Vec<_> = path.iter().skip(n_fixed).map(|p| p.to_string_lossy()).collect();
            if is_hidden(&matched.join("/")) && !pattern.contains("/.") && !pattern.contains("/_") {
                continue;
            } else if path.is_dir() {
                self.local_directory(&path, lake, 0, &mut BTreeSet::new())?;
            } else {
                self.local_file(&path, lake)?;
            }
        }
        ensure!(self.n_met > n_before, "{pattern}: there is no file of such a name");
        Ok(())
    }

    fn local_file(&mut self, path: &Path, lake: &Lake) -> Result<()> {
        let name = path.display().to_string();
        let n_bytes = path.metadata().with_context(|| name.clone())?.len();
        let identity = path.canonicalize().with_context(|| name.clone())?;
        if identity.to_str().is_some_and(|itself| lake.owns(itself).unwrap_or(false)) {
            self.pass_over(name, OWN);
            return Ok(());
        }
        let identity = format!("{identity:?}");
        self.add(RawFile { name, n_bytes, place: Place::Local(path.to_owned()) }, identity)
    }

    fn local_directory(
        &mut self,
        directory: &Path,
        lake: &Lake,
        depth: usize,
        above: &mut BTreeSet<PathBuf>,
    ) -> Result<()> {
        let shown = || directory.display().to_string();
        let itself = directory.canonicalize().with_context(shown)?;
        if itself.to_str().is_some_and(|itself| lake.owns(itself).unwrap_or(false)) {
            self.pass_over(shown(), OWN);
            return Ok(());
        }
        // a link may lead back
        if depth > DEPTH_MAX || !above.insert(itself.clone()) {
            self.pass_over(shown(), "it leads to itself, or too deep");
            return Ok(());
        }
        let entries = std::fs::read_dir(directory).with_context(shown)?;
        let entries: Vec<_> = entries.take(FILES_MAX + 1).collect::<Result<_, _>>()?;
        ensure!(entries.len() <= FILES_MAX, "{}: more than {FILES_MAX} files", shown());
        let mut paths: Vec<_> = entries.iter().map(std::fs::DirEntry::path).collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match sight(&name) {
                _ if path.is_dir() && !is_hidden(&name) => {
                    self.local_directory(&path, lake, depth + 1, above)?;
                }
                Sight::Nothing => {}
                Sight::Other(why) => self.pass_over(path.display().to_string(), why),
                Sight::Table if path.is_file() => self.local_file(&path, lake)?,
                Sight::Table => self.pass_over(path.display().to_string(), "it is no file"),
            }
        }
        above.remove(&itself);
        Ok(())
    }

    async fn remote(&mut self, url: &Url, options: &[(String, String)]) -> Result<()> {
        let shown = percent_decode_str(url.as_str()).decode_utf8_lossy().into_owned();
        ensure!(
            !matches!(url.scheme(), "http" | "https"),
            "{shown}: files of the web are not read; download it first"
        );
        let root = shown.split_inclusive('/').take(3).collect::<String>();
        let (store, path) = open_store(url, options).with_context(|| shown.clone())?;
        let path = path.as_ref().to_owned();
        let is_pattern = path.contains(['*', '?', '[']);
        if !is_pattern && !shown.ends_with('/') {
            let object = ObjectPath::parse(&path).with_context(|| shown.clone())?;
            match store.head(&object).await {
                Ok(meta) => {
                    let place = Place::Remote(store, object);
                    let file = RawFile { name: shown.clone(), n_bytes: meta.size, place };
                    return self.add(file, shown);
                }
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error).with_context(|| shown),
            }
        }
        // up to the directory in which the first wildcard is
        let fixed = match path.find(['*', '?', '[']) {
            Some(at) => path[..at].rsplit_once('/').map_or("", |(before, _)| before),
            None => path.trim_end_matches('/'),
        };
        let pattern = if is_pattern { Some(glob::Pattern::new(&path)?) } else { None };
        let matching = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
        let prefix = ObjectPath::parse(fixed).with_context(|| shown.clone())?;
        let mut objects = store.list(Some(&prefix));
        let n_before = self.n_met;
        while let Some(meta) = objects.try_next().await.with_context(|| shown.clone())? {
            let object = meta.location.as_ref();
            let below = object.strip_prefix(fixed).unwrap_or(object).trim_start_matches('/');
            // a pattern may name a directory, whose files are meant
            let matches = pattern.as_ref().is_none_or(|pattern| {
                let ends = object.match_indices('/').map(|(at, _)| at).chain([object.len()]);
                ends.into_iter().any(|end| pattern.matches_with(&object[..end], matching))
            });
            if !matches || is_hidden(below) || meta.size == 0 && object.ends_with('/') {
                continue;
            }
            let name = format!("{root}{object}");
            let is_named = pattern.as_ref().is_some_and(|p| p.matches_with(object, matching));
            match sight(below) {
                Sight::Other(why) if !is_named => self.pass_over(name, why),
                _ => {
                    let place = Place::Remote(Arc::clone(&store), meta.location.clone());
                    self.add(RawFile { name: name.clone(), n_bytes: meta.size, place }, name)?;
                }
            }
        }
        ensure!(self.n_met > n_before, "{shown}: there is no such object");
        Ok(())
    }
}

/// Why what jobs have made is not read.
const OWN: &str = "it is a part of the data root";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_told_from_a_path() {
        for path in ["a.csv", "C:/a.csv", "raw/x://y", "file:///a.csv", "file:a.csv", "s3:/b/a"] {
            assert_eq!(address(Path::new(path)).unwrap(), None, "{path}");
        }
        let url = address(Path::new("s3://bucket/raw/2019-?[12]/*.zip")).unwrap().unwrap();
        assert_eq!(percent_decode_str(url.path()).decode_utf8().unwrap(), "/raw/2019-?[12]/*.zip");
    }

    #[test]
    fn directories_hold_values() {
        let name = "s3://b/raw/Reporting_Airline=PA%20%281%29/Year=2019/\
                    Tail=__HIVE_DEFAULT_PARTITION__/a=b.csv";
        let file = RawFile { name: name.into(), n_bytes: 0, place: Place::Local(PathBuf::new()) };
        let expected = [("Reporting_Airline", "PA (1)"), ("Year", "2019")];
        assert!(file.constants().iter().map(|(n, v)| (n.as_str(), v.as_str())).eq(expected));
    }
}
