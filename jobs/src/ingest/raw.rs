//! A raw file to rows of text: what it is shows in its first bytes, not in its name; people rename
//! files, and programs unpack them on the way. What cannot be read as a row is a row too, with the
//! reason in `malformed`; nothing is decided here beyond that.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, copy};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use percent_encoding::percent_decode_str;

use crate::ingest::columns::Names;
use crate::ingest::flights::Flights;
use crate::ingest::json::{Form, read_json};
use crate::ingest::parquet::read_parquet;
use crate::ingest::rows::{Rows, Sink, Unfit};
use crate::ingest::table::read_table;
use crate::visible::is_hidden;

/// Archives in archives that are opened at most, one in the other.
const DEPTH_MAX: usize = 4;
/// Files of an archive at most.
const MEMBERS_MAX: usize = 10_000;
/// Bytes that are looked at to tell what a file is.
const HEAD_BYTES: usize = 64 * 1024;

/// What stands for a missing value in the name of a directory.
const HIVE_NULL: &str = "__HIVE_DEFAULT_PARTITION__";

const GZIP: &[u8] = b"\x1f\x8b";
const BZIP2: &[u8] = b"BZh";
const ZIP: &[u8] = b"PK\x03\x04";
const EMPTY_ZIP: &[u8] = b"PK\x05\x06";
const PARQUET: &[u8] = b"PAR1";
/// What else people have, by its first bytes, and what to do about it.
const OTHERS: [(&[u8], &str); 8] = [
    (b"\xff\xfe", "its text is UTF-16; write it as UTF-8 (iconv -f UTF-16 -t UTF-8)"),
    (b"\xfe\xff", "its text is UTF-16; write it as UTF-8 (iconv -f UTF-16 -t UTF-8)"),
    (b"\x28\xb5\x2f\xfd", "it is compressed by zstd; unpack it first (zstd -d)"),
    (b"\xfd7zXZ\0", "it is compressed by xz; unpack it first (xz -d)"),
    (b"7z\xbc\xaf\x27\x1c", "it is an archive of 7-Zip; unpack it first"),
    (b"Rar!", "it is an archive of RAR; unpack it first"),
    (b"ARROW1", "it is an Arrow file; write it as Parquet"),
    (b"\xd0\xcf\x11\xe0", "it is a workbook of Excel; save its sheet as CSV"),
];

/// How files are read: what their columns are called, and which values stand in their path.
pub struct Reading<'a> {
    /// What files call the columns.
    pub known: &'a Names,
    /// Columns whose value is the same in the whole file.
    pub constants: &'a [(String, String)],
    /// Told of a file of an archive that was not read, and why.
    pub pass_over: &'a mut dyn FnMut(String, String),
    /// Where rows go.
    pub sink: Sink<'a>,
    /// Where rows of tables go that are clean beyond doubt; as others when there is no such place.
    pub flights: Option<&'a mut Flights>,
}

/// Reads a local file that people call `name`; `on_bytes` gets the number of bytes that were read.
/// Returns the number of rows.
///
/// Errors when the file cannot be read, and with [`Unfit`] when it holds no flights.
pub fn read(
    path: &Path,
    name: &str,
    on_bytes: &mut dyn FnMut(u64),
    reading: &mut Reading<'_>,
) -> Result<u64> {
    let file = File::open(path)?;
    reading.read_file(file, name, 0, on_bytes)
}

impl Reading<'_> {
    fn read_file(
        &mut self,
        mut file: File,
        name: &str,
        depth: usize,
        on_bytes: &mut dyn FnMut(u64),
    ) -> Result<u64> {
        ensure!(depth <= DEPTH_MAX, "{DEPTH_MAX} archives one in the other are too many");
        let mut head = Vec::new();
        file.by_ref().take(PARQUET.len() as u64).read_to_end(&mut head)?;
        file.rewind()?;
        if head.starts_with(PARQUET) {
            let n_bytes = file.metadata()?.len();
            let mut rows = Rows::new(name, &mut *self.sink);
            read_parquet(file, self.known, self.constants, &mut rows)?;
            on_bytes(n_bytes);
            return rows.some();
        }
        if head.starts_with(ZIP) || head.starts_with(EMPTY_ZIP) {
            let n_bytes = file.metadata()?.len();
            let n_rows = self.read_zip(file, name, depth)?;
            on_bytes(n_bytes);
            return Ok(n_rows);
        }
        self.read_stream(Counted { file, on_bytes }, name, depth)
    }

    /// Reads what comes as a stream: a file that is unpacked on the way.
    fn read_stream(&mut self, bytes: impl Read, name: &str, depth: usize) -> Result<u64> {
        let mut bytes = BufReader::with_capacity(HEAD_BYTES, bytes);
        let head = bytes.fill_buf()?;
        if head.starts_with(GZIP) {
            ensure!(depth <= DEPTH_MAX, "it is compressed more than {DEPTH_MAX} times");
            let bytes: Box<dyn Read + '_> = Box::new(flate2::read::MultiGzDecoder::new(bytes));
            return self.read_stream(bytes, name, depth + 1);
        }
        if head.starts_with(BZIP2) {
            ensure!(depth <= DEPTH_MAX, "it is compressed more than {DEPTH_MAX} times");
            let bytes: Box<dyn Read + '_> = Box::new(bzip2::read::MultiBzDecoder::new(bytes));
            return self.read_stream(bytes, name, depth + 1);
        }
        if head.starts_with(PARQUET) || head.starts_with(ZIP) || head.starts_with(EMPTY_ZIP) {
            // these begin with their end
            let mut file = tempfile::tempfile()?;
            copy(&mut bytes, &mut file).context("cannot unpack it")?;
            file.rewind()?;
            return self.read_file(file, name, depth + 1, &mut |_| ());
        }
        self.read_text(bytes, name)
    }

    fn read_text(&mut self, mut bytes: impl BufRead, name: &str) -> Result<u64> {
        let mut head = bytes.fill_buf()?;
        if head.starts_with(b"\xef\xbb\xbf") {
            bytes.consume(3);
            head = bytes.fill_buf()?;
        }
        if head.is_empty() {
            return Err(Unfit("the file is empty".to_owned()).into());
        }
        if let Some((_, what)) = OTHERS.iter().find(|(magic, _)| head.starts_with(magic)) {
            return Err(Unfit((*what).to_owned()).into());
        }
        let n_nul = head.iter().filter(|byte| **byte == 0).count();
        if n_nul > 0 {
            let is_wide = 3 * n_nul > head.len();
            let what = if is_wide { OTHERS[0].1 } else { "it is neither a table nor text" };
            return Err(Unfit(what.to_owned()).into());
        }
        let mut seen = head.iter().filter(|byte| !byte.is_ascii_whitespace()).copied();
        let (first, second) = (seen.next(), seen.next());
        let mut rows = Rows::new(name, &mut *self.sink);
        match first {
            Some(b'<') => {
                let what = "it is a page of the web (HTML or XML), not a table: the download \
                            failed, or it is a form";
                return Err(Unfit(what.to_owned()).into());
            }
            // names of columns may stand in brackets, too
            Some(b'[') if matches!(second, Some(b'{' | b'[' | b']')) => {
                read_json(bytes, Form::Array, self.known, self.constants, &mut rows)?;
            }
            Some(b'{') => {
                // programs that write for people begin with a bracket alone
                let form = match head.trim_ascii_start() {
                    [b'{', b'\n' | b'\r', ..] => Form::Objects,
                    _ => Form::Lines,
                };
                read_json(bytes, form, self.known, self.constants, &mut rows)?;
            }
            _ => {
                let flights = self.flights.as_deref_mut();
                read_table(bytes, self.known, self.constants, &mut rows, flights)?;
            }
        }
        rows.some()
    }

    fn read_zip(&mut self, file: File, name: &str, depth: usize) -> Result<u64> {
        let mut archive = zip::ZipArchive::new(file).context("cannot open the archive")?;
        ensure!(
            archive.len() <= MEMBERS_MAX,
            "{} files in one archive exceed {MEMBERS_MAX}",
            archive.len()
        );
        let names: Vec<String> = archive.file_names().map(str::to_owned).collect();
        if names.iter().any(|name| name == "xl/workbook.xml") {
            return Err(Unfit("it is a workbook of Excel; save its sheet as CSV".to_owned()).into());
        }
        let (mut n_rows, mut n_read) = (0, 0);
        for (i, of) in names.iter().enumerate() {
            let entry = archive.by_index(i).with_context(|| of.clone())?;
            let member = entry.name().to_owned();
            let shown = format!("{name}/{member}");
            match sight(&member) {
                _ if entry.is_dir() => continue,
                Sight::Nothing => continue,
                Sight::Other(why) => {
                    (self.pass_over)(shown, why.to_owned());
                    continue;
                }
                Sight::Table => {}
            }
            let within = [constants_of(&member), self.constants.to_vec()].concat();
            let mut reading = Reading {
                known: self.known,
                constants: &within,
                pass_over: &mut *self.pass_over,
                sink: &mut *self.sink,
                flights: self.flights.as_deref_mut(),
            };
            match reading.read_stream(entry, &shown, depth + 1) {
                Ok(n) => (n_rows, n_read) = (n_rows + n, n_read + 1),
                Err(error) if error.is::<Unfit>() => {
                    (self.pass_over)(shown, format!("{error:#}"));
                }
                Err(error) => return Err(error.context(member)),
            }
        }
        if n_read == 0 {
            let mut shown: Vec<_> = names.iter().take(5).map(String::as_str).collect();
            if names.len() > shown.len() {
                shown.push("…");
            }
            let what =
                format!("there are no flights in the archive; it holds {}", shown.join(", "));
            return Err(Unfit(what).into());
        }
        Ok(n_rows)
    }
}

/// What a file in a directory or an archive is, by its path there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// It may hold flights.
    Table,
    /// It is passed over, for this reason.
    Other(&'static str),
    /// It is what programs leave beside tables, of which nobody speaks.
    Nothing,
}

/// What a file is, by its path in the directory or archive that is searched.
pub fn sight(path: &str) -> Sight {
    match is_hidden(path) {
        true if is_said(path) => Sight::Other("its name begins with _, as those of markers do"),
        true => Sight::Nothing,
        false if may_hold_flights(path) => Sight::Table,
        false => Sight::Other("its name ends in none of those of tables"),
    }
}

/// Whether it is said that something hidden is passed over: what begins with `_` may be a table,
/// but for what is known to be none.
fn is_said(path: &str) -> bool {
    const MARKERS: [&str; 9] = [
        "_SUCCESS",
        "_temporary",
        "_delta_log",
        "_metadata",
        "_common_metadata",
        "_spark_metadata",
        "_committed",
        "_started",
        "__MACOSX",
    ];
    let mut parts = path.split('/');
    let hidden = parts.find(|part| is_hidden(part)).unwrap_or_default();
    hidden.starts_with('_') && !MARKERS.iter().any(|marker| hidden.starts_with(marker))
}

/// Values that stand in a path, as `column=value/`, which is how Hive and Spark partition.
pub fn constants_of(path: &str) -> Vec<(String, String)> {
    let directories = path.rsplit_once('/').map_or("", |(directories, _)| directories);
    let pairs = directories.split('/').filter_map(|part| part.split_once('='));
    let pairs = pairs.filter(|(_, value)| *value != HIVE_NULL);
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

/// Whether a file's name says that it may hold flights. Programs that write in parts name the
/// directory, and the parts `part-00000`.
fn may_hold_flights(path: &str) -> bool {
    const TABLES: [&str; 9] =
        [".csv", ".tsv", ".tab", ".psv", ".txt", ".json", ".jsonl", ".ndjson", ".parquet"];
    let lower = path.to_ascii_lowercase();
    let name = lower.rsplit('/').next().unwrap_or_default();
    let packed = [".gz", ".gzip", ".bz2", ".zip"];
    let plain = packed.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let has_ending = TABLES.iter().any(|end| plain.ends_with(end));
    has_ending || name.ends_with(".zip") || name.starts_with("part-")
}

/// A file that counts how much of it was read.
struct Counted<'a> {
    file: File,
    on_bytes: &'a mut dyn FnMut(u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buffer)?;
        (self.on_bytes)(n as u64);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_may_hold_flights_are_known_by_their_name_in_any_case() {
        for name in [
            "a.csv",
            "A.CSV",
            "x.CSV.GZ",
            "b.tsv.bz2",
            "c.Parquet",
            "d.jsonl",
            "e.zip",
            "f.ndjson.gz",
            "part-00000",
            "part-00000.gz",
            "dir.jsonl.gz/part-00000-x.c000.json",
            "march.txt",
        ] {
            assert!(may_hold_flights(name), "{name}");
        }
        for name in ["readme.html", "notes.md", "csv", "a.csv.bak", "a.py"] {
            assert!(!may_hold_flights(name), "{name}");
        }
    }
}
