//! An object store without what programs leave beside tables: hidden files, markers, checksums.
//!
//! Queries list the files of a relation by themselves, in process and on a scheduler, so such files
//! are left out of every listing. One that is named is there.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, future};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

/// Whether a relative path is one of those: hidden, below something hidden, or a checksum.
pub fn is_hidden(path: &str) -> bool {
    path.split('/').any(|part| {
        let is_marked = part.starts_with('.') || part.starts_with('_');
        (is_marked && part != "." && part != "..") || part.ends_with(".crc")
    })
}

/// The store.
#[derive(Debug)]
pub struct Visible(pub Arc<dyn ObjectStore>);

impl fmt::Display for Visible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether an object is shown in a listing of `prefix`; what the prefix itself is called is not
/// looked at.
fn is_shown(prefix: Option<&Path>, object: &Path) -> bool {
    let below = prefix.and_then(|prefix| object.as_ref().strip_prefix(prefix.as_ref()));
    !is_hidden(below.unwrap_or(object.as_ref()))
}

#[async_trait]
impl ObjectStore for Visible {
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let all = self.0.list(prefix);
        let prefix = prefix.cloned();
        all.try_filter(move |meta| future::ready(is_shown(prefix.as_ref(), &meta.location))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut found = self.0.list_with_delimiter(prefix).await?;
        found.objects.retain(|meta| is_shown(prefix, &meta.location));
        found.common_prefixes.retain(|path| is_shown(prefix, path));
        Ok(found)
    }

    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.0.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.0.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.0.rename_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_leave_beside_tables_is_hidden() {
        for name in [
            "_SUCCESS",
            "a/_temporary/0/part-0",
            "__MACOSX/._a.csv",
            ".part-0.crc",
            "x.crc",
            ".git/a.csv",
            "_delta_log/0.json",
        ] {
            assert!(is_hidden(name), "{name}");
        }
        for name in ["a.csv", "./a.csv", "../raw/a_b.csv", ""] {
            assert!(!is_hidden(name), "{name}");
        }
    }

    #[test]
    fn a_root_may_be_hidden_itself() {
        let (prefix, object) =
            (Path::from("home/.tarmac/flights"), "home/.tarmac/flights/a.parquet");
        assert!(is_shown(Some(&prefix), &Path::from(object)));
        assert!(!is_shown(Some(&prefix), &Path::from("home/.tarmac/flights/._a.parquet")));
        assert!(!is_shown(None, &Path::from(object)));
    }
}
