//! Months of flights from a web server that behaves as servers do: it cuts the line, it is busy, it
//! lies, and it sends pages of the web.

use std::collections::{HashMap, VecDeque};
use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use jobs::download::{
    Download, DownloadOptions, Downloaded, Fetching, Patience, download, download_reference, fresh,
    next_month,
};
use jobs::ingest::counted::Month;
use jobs::lake::Lake;
use jobs::progress::Progress;
use jobs::publish::{Published, publish};
use jobs::references::REFERENCES;
use serde_json::json;
use store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

use crate::setup::{fixture, ingest_all, local_lake, memory_lake, session};

/// How the server answers one request.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// It sends what is asked for, and cuts the line after so many bytes of it.
    Cut(usize),
    /// At most so many bytes of what is asked for, as a part that is whole.
    Part(usize),
    /// A head and nothing more, until the client goes.
    Silent,
    /// Another status, with lines of the head.
    Status(&'static str, &'static str),
    /// The file without a length, ended early as if it were whole.
    Truncated(usize),
    /// A length that is wrong by so much.
    Lying(i64),
    /// Success, and a page of the web.
    Page,
    /// A part that begins elsewhere than asked.
    Elsewhere,
}

#[derive(Default)]
struct Shelf {
    /// Bytes and version of each file.
    files: HashMap<String, (Vec<u8>, String)>,
    /// The manners of the next requests; well-behaved when there are no more.
    manners: VecDeque<Manner>,
    /// What was asked for: the path, and the first byte.
    asked: Vec<(String, usize)>,
}

/// The server, and the address of its files.
struct Server {
    shelf: Arc<Mutex<Shelf>>,
    address: Url,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/PREZIP/", listener.local_addr().unwrap());
        let shelf = Arc::new(Mutex::new(Shelf::default()));
        let of_server = Arc::clone(&shelf);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shelf = Arc::clone(&of_server);
                // a client that goes away is its own affair
                tokio::spawn(async move { answer(stream, &shelf).await.ok() });
            }
        });
        Self { shelf, address: address.parse().unwrap() }
    }

    fn put(&self, month: Month, bytes: &[u8], version: &str) {
        let file = (bytes.to_vec(), version.to_owned());
        self.shelf.lock().unwrap().files.insert(path_of(month), file);
    }

    fn behave(&self, manners: &[Manner]) {
        self.shelf.lock().unwrap().manners = manners.iter().copied().collect();
    }

    /// What was asked for since the last call.
    fn asked(&self) -> Vec<(String, usize)> {
        std::mem::take(&mut self.shelf.lock().unwrap().asked)
    }

    fn options(&self, first: Month, last: Month, work: &Path) -> DownloadOptions {
        DownloadOptions {
            address: self.address.clone(),
            months: (first, last),
            n_parallel: 2,
            fetching: fetching(work),
        }
    }
}

fn fetching(work: &Path) -> Fetching {
    Fetching {
        again: false,
        work: work.join("work"),
        patience: Patience {
            attempts: 4,
            silence: Duration::from_millis(500),
            first_pause: Duration::from_millis(1),
            ..Patience::default()
        },
    }
}

fn path_of((year, month): Month) -> String {
    let name = "On_Time_Reporting_Carrier_On_Time_Performance_1987_present";
    format!("/PREZIP/{name}_{year}_{month}.zip")
}

async fn answer(mut stream: TcpStream, shelf: &Mutex<Shelf>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let from = header("range: bytes=").and_then(|range| range.strip_suffix('-'));
    let asked_from = from.map_or(0, |from| from.parse().unwrap());
    let (file, manner) = {
        let mut shelf = shelf.lock().unwrap();
        let file = shelf.files.iter().find(|(known, _)| known.to_lowercase() == path);
        let file = file.map(|(_, file)| file.clone());
        shelf.asked.push((path, asked_from));
        (file, shelf.manners.pop_front())
    };
    let Some((bytes, version)) = file else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    };
    // of another version there is no part
    let from = if header("if-range: ") == Some(&version) { asked_from } else { 0 };
    if from >= bytes.len() {
        let range = format!("content-range: bytes */{}\r\n", bytes.len());
        let head =
            format!("HTTP/1.1 416 Range Not Satisfiable\r\n{range}content-length: 0\r\n\r\n");
        return stream.write_all(head.as_bytes()).await;
    }
    let (body, total) = (&bytes[from..], bytes.len());
    let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
    let range = match from {
        0 => String::new(),
        from => format!("content-range: bytes {from}-{}/{total}\r\n", total - 1),
    };
    let tag = format!("etag: {version}\r\nconnection: close\r\n");
    let with_length =
        |n: usize| format!("HTTP/1.1 {status}\r\n{tag}{range}content-length: {n}\r\n\r\n");
    let (head, body) = match manner {
        None => (with_length(body.len()), body),
        Some(Manner::Cut(n)) => (with_length(body.len()), &body[..n.min(body.len())]),
        Some(Manner::Part(n)) => {
            let range = format!("content-range: bytes {from}-{}/{total}\r\n", from + n - 1);
            let length = format!("content-length: {n}\r\n\r\n");
            (format!("HTTP/1.1 206 Partial Content\r\n{tag}{range}{length}"), &body[..n])
        }
        Some(Manner::Silent) => (with_length(body.len()), &body[..0]),
        Some(Manner::Status(status, lines)) => {
            (format!("HTTP/1.1 {status}\r\n{lines}content-length: 0\r\n\r\n"), &body[..0])
        }
        Some(Manner::Truncated(n)) => (format!("HTTP/1.1 200 OK\r\n{tag}\r\n"), &bytes[..n]),
        Some(Manner::Lying(by)) => (with_length(body.len().strict_add_signed(by as isize)), body),
        Some(Manner::Page) => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n";
            (head.to_owned(), b"\n<!DOCTYPE html><title>Down for maintenance</title>".as_slice())
        }
        Some(Manner::Elsewhere) => {
            let range = format!("content-range: bytes 1-{}/{total}\r\n", total - 1);
            (format!("HTTP/1.1 206 Partial Content\r\n{tag}{range}\r\n"), &bytes[1..])
        }
    };
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    if matches!(manner, Some(Manner::Silent)) {
        // until it has had enough
        stream.read_u8().await?;
    }
    stream.shutdown().await
}

/// A zip archive of these members.
fn zip_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        // as large as its rows
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        archive.start_file(*name, options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// A month as BTS publishes it, with `n` flights.
fn month_of(month: Month, n: usize) -> Vec<u8> {
    let table = std::fs::read_to_string(fixture("bts_new.csv")).unwrap();
    let mut lines = table.lines();
    let mut text = format!("{}\n", lines.next().unwrap());
    let row = lines.next().unwrap();
    let (year, number) = month;
    for i in 0..n {
        let day = 1 + i % 28;
        let row = row.replacen("2019,1,3,4,1,2019-03-04", "DATE", 1);
        let row = row.replacen("\"1519\"", &format!("\"{i}\""), 1);
        let date = format!("{year},1,{number},{day},1,{year}-{number:02}-{day:02}");
        text += &row.replacen("DATE", &date, 1);
        text.push('\n');
    }
    zip_of(&[("readme.html", b"<html>"), ("On_Time.csv", text.as_bytes())])
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_450_000_000, 0).unwrap() // 2015-12-13
}

/// Downloads, and returns what was noticed on the way.
async fn try_download(
    lake: &Lake,
    options: &DownloadOptions,
) -> (anyhow::Result<Downloaded>, Vec<String>) {
    let notices = Mutex::new(Vec::new());
    let note = |progress| {
        if let Progress::Notice(text) = progress {
            notices.lock().unwrap().push(text);
        }
    };
    let downloaded = download(lake, options, now, &note).await;
    (downloaded, notices.into_inner().unwrap())
}

#[tokio::test]
async fn a_month_comes_whole_however_the_server_behaves() {
    use Manner::{Cut, Elsewhere, Lying, Page, Part, Silent, Status, Truncated};
    let busy = Status("503 Service Unavailable", "");
    let limited = Status("429 Too Many Requests", "retry-after: 0\r\n");
    let bytes = month_of((2015, 1), 2_000);
    let half = bytes.len() / 2;
    // of each: how the server behaves, and where the requests began
    let cases: [(&[Manner], &[usize]); 12] = [
        (&[], &[0]),
        (&[busy, limited, limited], &[0, 0, 0, 0]),
        (&[Cut(1_000), Cut(500), busy], &[0, 1_000, 1_500, 1_500]),
        (&[Cut(half), Silent], &[0, half, half]),
        // what brings something can go on for long
        (&[Cut(70_000); 6], &[0, 70_000, 140_000, 210_000, 280_000, 350_000, 420_000]),
        // less than was asked for, and said so
        (&[Cut(1_000), Part(2_000)], &[0, 1_000, 3_000]),
        (&[Cut(1_000), Cut(usize::MAX)], &[0, 1_000]),
        (&[Truncated(half), Page], &[0, 0, 0]),
        // it is whole already
        (&[Lying(100)], &[0, bytes.len()]),
        (&[Lying(-100)], &[0, 0]),
        (&[Cut(1_000), Elsewhere], &[0, 1_000, 0]),
        (&[Cut(1_000), Status("416 Range Not Satisfiable", "")], &[0, 1_000, 0]),
    ];
    for (i, (manners, began)) in cases.into_iter().enumerate() {
        let server = Server::start().await;
        let (directory, lake) = local_lake();
        let lake = if i % 2 == 0 { lake } else { memory_lake() };
        server.put((2015, 1), &bytes, "\"v1\"");
        server.behave(manners);
        let options = server.options((2015, 1), (2015, 1), directory.path());
        let (downloaded, notices) = try_download(&lake, &options).await;
        let downloaded = downloaded.unwrap_or_else(|e| panic!("{manners:?}: {e:#}"));
        assert_eq!((downloaded.n_new, downloaded.n_bytes), (1, bytes.len() as u64));
        let asked: Vec<usize> = server.asked().into_iter().map(|(_, from)| from).collect();
        assert_eq!(asked, began, "{manners:?} {notices:?}");
        assert_eq!(notices.len(), began.len(), "{notices:?}");
        let raw = format!("raw/bts/{}", path_of((2015, 1)).strip_prefix("/PREZIP/").unwrap());
        assert!(lake.get(&raw, 1 << 20).await.unwrap().unwrap() == bytes, "{manners:?}");

        // what is there is not asked for again
        let (again, _) = try_download(&lake, &options).await;
        assert_eq!(again.unwrap().n_there, 1);
        assert_eq!(server.asked(), []);
    }
}

#[tokio::test]
async fn a_file_that_changed_meanwhile_begins_again() {
    let server = Server::start().await;
    let (directory, lake) = local_lake();
    let options = server.options((2015, 1), (2015, 1), directory.path());
    server.put((2015, 1), &month_of((2015, 1), 1_000), "\"v1\"");
    // the first run ends in the middle
    let broken = Manner::Status("403 Forbidden", "");
    server.behave(&[Manner::Cut(1_000), broken]);
    let error = format!("{:#}", try_download(&lake, &options).await.0.unwrap_err());
    assert!(error.contains("403 Forbidden") && error.contains("_2015_1.zip"), "{error}");
    assert_eq!(lake.list("raw/").await.unwrap(), [""; 0]);
    // the second goes on there, but it is another file now
    let bytes = month_of((2015, 1), 1_500);
    server.put((2015, 1), &bytes, "\"v2\"");
    assert_eq!(try_download(&lake, &options).await.0.unwrap().n_bytes, bytes.len() as u64);
    let asked: Vec<usize> = server.asked().into_iter().map(|(_, from)| from).collect();
    assert_eq!(asked, [0, 1_000, 1_000]);
    // a server without versions gets no second half of its files
    server.put((2015, 1), &bytes, "W/\"weak\"");
    server.behave(&[Manner::Cut(1_000)]);
    let fetching = Fetching { again: true, ..options.fetching };
    let options = DownloadOptions { fetching, ..options };
    try_download(&lake, &options).await.0.unwrap();
    assert_eq!(server.asked().into_iter().map(|(_, from)| from).collect::<Vec<_>>(), [0, 0]);
}

#[tokio::test]
async fn what_is_not_the_month_is_refused_and_nothing_is_kept() {
    let january = month_of((2015, 1), 3);
    let other = month_of((2014, 12), 3);
    let mut damaged = january.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0xff;
    let features = zip_of(&[("a.csv", b"carrier,origin\nAA,JFK\n")]);
    let nothing = zip_of(&[("readme.html", b"<html>")]);
    let empty = zip_of(&[("a.csv", b"")]);
    let undated = month_of((2015, 99), 3);
    let cases: [(&[u8], &str); 8] = [
        (b" <html>Access denied</html>", "it is a page of the web (HTML or XML), not a table"),
        (&january[..middle], "cannot open the archive"),
        (&damaged, "On_Time.csv: Invalid checksum"),
        (&features, "a.csv: "),
        (&nothing, "there are no flights in the archive; it holds readme.html"),
        (&empty, "a.csv: the file is empty"),
        (&other, "it holds flights of 2014-12, not only of 2015-01"),
        (&undated, "it holds no flight with a date"),
    ];
    for (bytes, why) in cases {
        let server = Server::start().await;
        let (directory, lake) = local_lake();
        server.put((2015, 1), bytes, "\"v1\"");
        let options = server.options((2015, 1), (2015, 1), directory.path());
        let error = format!("{:#}", try_download(&lake, &options).await.0.unwrap_err());
        assert!(error.contains(why), "{why}: {error}");
        assert!(error.contains("_2015_1.zip: given up after 4 attempts"), "{error}");
        assert_eq!(server.asked().len(), 4);
        for place in ["raw/", "downloads/"] {
            assert_eq!(lake.list(place).await.unwrap(), [""; 0]);
        }
    }
}

#[tokio::test]
async fn what_cannot_be_had_is_said_with_its_address() {
    let (directory, lake) = local_lake();
    let server = Server::start().await;
    let work = directory.path();
    // the month before that of `now`, and one half a year earlier
    let young = server.options((2015, 11), (9999, 12), work);
    let (downloaded, notices) = try_download(&lake, &young).await;
    assert_eq!(downloaded.unwrap(), Downloaded { n_unpublished: 1, ..Downloaded::default() });
    assert_eq!(server.asked().len(), 1, "a month that is not over is not asked for");
    assert!(notices.contains(&"2015-11: not published yet".to_owned()), "{notices:?}");

    let old = server.options((2015, 4), (2015, 4), work);
    let error = format!("{:#}", try_download(&lake, &old).await.0.unwrap_err());
    assert!(error.contains("_2015_4.zip: there is no such file; is the address right?"), "{error}");

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", closed.local_addr().unwrap()).parse().unwrap();
    drop(closed);
    let options = DownloadOptions { address, ..server.options((2015, 1), (2015, 1), work) };
    let error = format!("{:#}", try_download(&lake, &options).await.0.unwrap_err());
    assert!(error.contains("given up after 4 attempts") && error.contains("refused"), "{error}");

    for (months, why) in [
        (((2015, 2), (2015, 1)), "2015-02 is after 2015-01"),
        (((1987, 9), (1987, 10)), "the flights begin in 1987-10"),
        (((2015, 12), (2016, 1)), "2015-12 is not over"),
    ] {
        let options = server.options(months.0, months.1, work);
        assert_eq!(try_download(&lake, &options).await.0.unwrap_err().to_string(), why);
    }

    // passwords are for the server alone
    let mut address = server.address.clone();
    address.set_username("me").unwrap();
    address.set_password(Some("secret")).unwrap();
    let options = DownloadOptions { address, ..server.options((2015, 4), (2015, 4), work) };
    let error = format!("{:#}", try_download(&lake, &options).await.0.unwrap_err());
    assert!(error.contains("_2015_4.zip") && !error.contains("secret"), "{error}");

    // a disk that is full
    server.put((2015, 1), &month_of((2015, 1), 3), "\"v1\"");
    let options = server.options((2015, 1), (2015, 1), work);
    let name = path_of((2015, 1));
    let part = work.join(format!("work/downloads/{}.part", name.strip_prefix("/PREZIP/").unwrap()));
    std::os::unix::fs::symlink("/dev/full", &part).unwrap();
    std::fs::write(part.with_added_extension("tag"), "\"v1\"").unwrap();
    server.asked();
    let error = format!("{:#}", try_download(&lake, &options).await.0.unwrap_err());
    assert!(error.contains("cannot write") && error.contains("No space left"), "{error}");
    assert_eq!(server.asked().len(), 1, "once more does not help");
}

#[tokio::test]
async fn what_came_and_was_not_ingested_is_fresh() {
    let (directory, lake) = local_lake();
    let server = Server::start().await;
    for month in 1..=3 {
        server.put((2015, month), &month_of((2015, month), 10), "\"v1\"");
    }
    assert_eq!(next_month(&lake).await.unwrap(), None);
    let options = server.options((2015, 1), (2015, 3), directory.path());
    assert_eq!(try_download(&lake, &options).await.0.unwrap().n_new, 3);
    assert_eq!(next_month(&lake).await.unwrap(), Some((2015, 4)));
    // one that failed has later ones behind it
    let february = path_of((2015, 2)).replace("/PREZIP/", "downloads/bts/") + ".json";
    let record = lake.get(&february, 1 << 16).await.unwrap().unwrap();
    lake.delete(&february).await.unwrap();
    assert_eq!(next_month(&lake).await.unwrap(), Some((2015, 2)));
    lake.put(&february, record).await.unwrap();
    let came = fresh(&lake).await.unwrap();
    assert_eq!(came.len(), 3);
    let files: Vec<_> = came.iter().map(|file| file.url(&lake).into()).collect();
    let ingested = ingest_all(&lake, &files, "run").await;
    assert_eq!(ingested.months, [(2015, 1), (2015, 2), (2015, 3)]);

    // while it is ingested another version of March comes
    server.put((2015, 3), &month_of((2015, 3), 11), "\"v2\"");
    let fetching = Fetching { again: true, ..options.fetching };
    let options = DownloadOptions { fetching, months: ((2015, 3), (2015, 3)), ..options };
    assert_eq!(try_download(&lake, &options).await.0.unwrap().n_new, 1);
    for file in &came {
        file.set_ingested(&lake, "run").await.unwrap();
    }
    let left = fresh(&lake).await.unwrap();
    assert_eq!(left.len(), 1);
    assert!(left[0].url(&lake).ends_with("_2015_3.zip"), "{left:?}");
}

#[tokio::test]
async fn two_jobs_do_not_write_the_same_file() {
    let (directory, lake) = local_lake();
    let server = Server::start().await;
    server.put((2015, 1), &month_of((2015, 1), 10), "\"v1\"");
    let options = server.options((2015, 1), (2015, 1), directory.path());
    server.behave(&[Manner::Silent]);
    let patience = Patience { silence: Duration::from_secs(60), ..options.fetching.patience };
    let fetching = Fetching { patience, ..options.fetching.clone() };
    let late = DownloadOptions { fetching, ..options.clone() };
    let first = download(&lake, &late, now, &|_| {});
    let second = async {
        while server.shelf.lock().unwrap().asked.is_empty() {
            tokio::task::yield_now().await;
        }
        download(&lake, &options, now, &|_| {}).await
    };
    tokio::select! {
        ended = first => panic!("{ended:?}"),
        error = second => {
            let error = error.unwrap_err().to_string();
            assert!(error.contains("is being downloaded by another job"), "{error}");
        }
    }
}

#[tokio::test]
async fn bad_files_of_a_server_that_cuts_lines_are_given_up() {
    let server = Server::start().await;
    let (directory, lake) = local_lake();
    server.put((2015, 1), &month_of((2014, 12), 1_000), "\"v1\"");
    // each time it brings something first, and then the rest
    server.behave(&[Manner::Cut(100_000), Manner::Cut(usize::MAX)].repeat(20));
    let options = server.options((2015, 1), (2015, 1), directory.path());
    let error = format!("{:#}", try_download(&lake, &options).await.0.unwrap_err());
    assert!(error.contains("given up after 4 attempts: it holds flights of 2014-12"), "{error}");
    assert_eq!(server.asked().len(), 8);

    // what a machine that went down left beside a part is not sent
    let part = path_of((2015, 1)).replace("/PREZIP/", "work/downloads/") + ".part";
    let part = directory.path().join(part);
    std::fs::write(&part, "x").unwrap();
    std::fs::write(part.with_added_extension("tag"), "\0\0").unwrap();
    server.put((2015, 1), &month_of((2015, 1), 10), "\"v2\"");
    server.behave(&[]);
    assert_eq!(try_download(&lake, &options).await.0.unwrap().n_new, 1);
    assert_eq!(server.asked()[0].1, 0);
}

const AIRPORTS: &str = "\
\"id\",\"ident\",\"type\",\"name\",\"latitude_deg\",\"longitude_deg\",\"elevation_ft\",\"iso_country\",\
\"municipality\",\"scheduled_service\",\"gps_code\",\"iata_code\",\"local_code\"
1,\"US-0001\",\"closed\",\"Old Memphis, closed\",1.5,2.5,3,\"US\",\"Memphis\",\"no\",,\"MEM\",\"MEM\"
2,\"KMEM\",\"large_airport\",\"Memphis \"\"Intl\"\", Tennessee\",35.0424,-89.9767,341,\"US\",\"Memphis\",\
\"yes\",\"KMEM\",\"MEM\",\"MEM\"
3,\"KDT\",\"small_airport\",\"Without an IATA code\",41.1,-80.6,1044,\"US\",,\"no\",,,\"DTW\"
4,\"XX-1\",\"heliport\",\"Somewhere\",1,2,3,\"FR\",,\"no\",,,\"LAX\"
";
const CARRIERS: &str =
    "Code,Description\r\n\"AA\",\"American, as BTS calls it\"\r\n\"PA (1)\",\"Pan Am\"\r\n";
const MASTER: &str = "\u{feff}N-NUMBER,SERIAL NUMBER,MFR MDL CODE,YEAR MFR,TYPE AIRCRAFT,TYPE ENGINE,NAME,\n\
    777WN,1,0561556,1999,5, 5,AMERICAN AIRLINES INC         ,\n\
    9876A,2,2072704,    ,4, 1,SMITH \"JOE\" J                 ,\n";
const MODELS: &str = "\u{feff}CODE,MFR,MODEL,TYPE-ACFT,TYPE-ENG,NO-ENG,NO-SEATS,SPEED,\n\
    0561556,BOEING                        ,737-823             ,5,5 ,02,0189,0000,\n\
    2072704,CESSNA                        ,172\"N              ,4,1 ,01,004,0105,\n";

/// Puts what is known of airports, airlines and airplanes on the shelf; their addresses.
fn put_references(server: &Server, files: [&[u8]; 3]) -> [Url; 3] {
    let addresses = REFERENCES.map(|of| server.address.join(of.file).unwrap());
    for (address, bytes) in addresses.iter().zip(files) {
        let file = (bytes.to_vec(), "\"v1\"".to_owned());
        server.shelf.lock().unwrap().files.insert(address.path().to_owned(), file);
    }
    addresses
}

/// Downloads each of them, however small it is; the rows of their relations.
async fn download_references(
    lake: &Lake,
    addresses: &[Url; 3],
    how: &Fetching,
) -> Vec<Option<u64>> {
    let (ctx, mut came) = (session(1), Vec::new());
    for (mut reference, address) in REFERENCES.into_iter().zip(addresses) {
        reference.rows_min = 1;
        let of = (&reference, address);
        came.push(download_reference(&ctx, lake, of, how, now, &|_| {}).await.unwrap());
    }
    came
}

fn aircraft() -> Vec<u8> {
    zip_of(&[("MASTER.txt", MASTER.as_bytes()), ("ACFTREF.txt", MODELS.as_bytes())])
}

#[tokio::test]
async fn pages_show_what_public_sources_say_and_otherwise_what_is_shipped() {
    let (directory, lake) = local_lake();
    ingest_all(&lake, &[fixture("bts_new.csv")], "first").await;
    let store = Store::embedded(&directory.path().join("store.sqlite")).unwrap();
    let publish = async || publish(&session(2), &lake, &store, false, &|_| {}).await.unwrap();
    let named = async |collection: &str, id: &str| {
        let document = store.get(collection, id).await.unwrap();
        document.unwrap_or_else(|| panic!("{collection} {id}"))
    };
    publish().await;
    assert_eq!(named(events::AIRPORTS, "MEM").await["Name"], "Memphis Intl");
    let server = Server::start().await;
    let addresses =
        put_references(&server, [AIRPORTS.as_bytes(), CARRIERS.as_bytes(), &aircraft()]);
    let download = async |how: &Fetching| download_references(&lake, &addresses, how).await;
    let once = fetching(directory.path());
    server.behave(&[Manner::Cut(100)]);
    let came = download(&once).await;
    // with what is shipped: of 1,458 airports 2 are replaced, of 16 airlines 1, of 3,322 airplanes none
    assert_eq!(came, [Some(1_458), Some(17), Some(3_324)]);
    let asked = server.asked().len();
    assert_eq!((asked, download(&once).await), (4, vec![None; 3]));
    assert_eq!(server.asked(), [], "it is there");
    for reference in REFERENCES {
        let record = format!("downloads/references/{}.json", reference.file);
        let record = lake.get(&record, 1 << 16).await.unwrap().unwrap();
        let record: Download = serde_json::from_slice(&record).unwrap();
        assert!(record.address.ends_with(reference.file) && record.rows >= 2, "{record:?}");
    }

    let published = publish().await;
    assert!(published.iter().all(|published| published.is_new));
    let airport = named(events::AIRPORTS, "MEM").await;
    assert_eq!(
        (&airport["Name"], &airport["Latitude"]),
        (&json!("Memphis \"Intl\", Tennessee"), &json!(35.0424))
    );
    assert_eq!(named(events::AIRPORTS, "DTW").await["Name"], "Without an IATA code");
    assert_eq!(named(events::AIRPORTS, "LAX").await["Name"], "Los Angeles Intl");
    assert_eq!(named(events::AIRLINES, "AA").await["Name"], "American, as BTS calls it");
    assert_eq!(named(events::AIRLINES, "DL").await["Name"], "Delta Air Lines Inc.");
    let airplane = named(events::AIRPLANES, "N777WN").await;
    for (field, value) in [
        ("Manufacturer", json!("BOEING")),
        ("Model", json!("737-823")),
        ("ManufacturerYear", json!(1999)),
        ("Type", json!("Fixed wing multi engine")),
        ("Engine", json!("Turbo-fan")),
        ("Seats", json!(189)),
    ] {
        assert_eq!(airplane[field], value, "{airplane}");
    }
    let new = |published: &[Published]| published.iter().filter(|p| p.is_new).count();
    assert_eq!(new(&publish().await), 1, "the models");

    // another version takes the place of the first, whoever reads that
    let again = Fetching { again: true, ..once };
    for name in ["as it was called", "as it is called now"] {
        let renamed = CARRIERS.replace("as BTS calls it", name);
        let files = [AIRPORTS.as_bytes(), renamed.as_bytes(), &aircraft()];
        put_references(&server, files);
        download(&again).await;
        assert!(new(&publish().await) > 1);
        assert_eq!(named(events::AIRLINES, "AA").await["Name"], format!("American, {name}"));
        assert_eq!(lake.list("references/airline_names/").await.unwrap().len(), 2);
    }
    // the same again changes nothing; what was deleted is made of what came
    download(&again).await;
    assert_eq!(new(&publish().await), 1);
    lake.delete_below("references/airline_names/").await.unwrap();
    server.asked();
    assert_eq!(download(&fetching(directory.path())).await, [None, Some(17), None]);
    assert_eq!((new(&publish().await), server.asked()), (1, vec![]));
}

#[tokio::test]
async fn what_is_no_source_of_references_is_refused_and_nothing_is_kept() {
    let page: &[u8] = b"<!DOCTYPE html><title>Down for maintenance</title>";
    let cut = &AIRPORTS.as_bytes()[..AIRPORTS.len() - 40];
    let no_models = zip_of(&[("MASTER.txt", MASTER.as_bytes())]);
    let no_rows =
        zip_of(&[("MASTER.txt", b"N-NUMBER,MFR MDL CODE,YEAR MFR,TYPE AIRCRAFT,TYPE ENGINE\n")]);
    let whole = aircraft();
    let few = "Code,Description\n19031,Trunc\n";
    let odd = zip_of(&[("MASTER.txt", MASTER.replace("JOE", "J,OE").as_bytes())]);
    let cases: [(usize, &[u8], &str); 9] = [
        (0, page, "airports.csv: it has no column ident; is the address right?"),
        (0, cut, "airports.csv: CSV error: record 4 (line: 5, byte:"),
        (1, page, "carriers.csv: it has no column Code"),
        (1, b"Code,Description\n", "carriers.csv: it has no rows"),
        (2, &whole[..whole.len() / 2], "it is no zip archive"),
        (2, &no_models, "no ACFTREF.txt"),
        (2, &no_rows, "MASTER.txt: it has no rows"),
        (2, &odd, "MASTER.txt: 1 of 2 rows have not 8 fields, such as line 3"),
        (1, few.as_bytes(), "1 rows are a part of it: 500 are known"),
    ];
    for (of, bytes, why) in cases {
        let server = Server::start().await;
        let (directory, lake) = local_lake();
        let (reference, address) =
            (&REFERENCES[of], server.address.join(REFERENCES[of].file).unwrap());
        put_references(&server, [bytes; 3]);
        let (ctx, fetching) = (session(1), fetching(directory.path()));
        let of = (reference, &address);
        let error = download_reference(&ctx, &lake, of, &fetching, now, &|_| {}).await.unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(why) && error.contains(reference.file), "{error}");
        assert!(error.contains("given up after 4 attempts"), "{error}");
        assert_eq!(
            lake.list("").await.unwrap().iter().filter(|n| !n.starts_with("work/")).count(),
            0
        );
    }
    let server = Server::start().await;
    let (directory, lake) = local_lake();
    let address = server.address.join("gone.csv").unwrap();
    let of = (&REFERENCES[0], &address);
    let error =
        download_reference(&session(1), &lake, of, &fetching(directory.path()), now, &|_| {}).await;
    let error = format!("{:#}", error.unwrap_err());
    assert!(error.contains("gone.csv: there is no such file"), "{error}");
}

#[tokio::test]
async fn what_a_browser_has_saved_is_taken_as_well() {
    let (directory, lake) = local_lake();
    let files = [AIRPORTS.as_bytes(), CARRIERS.as_bytes(), &aircraft()];
    let mut addresses = Vec::new();
    for (reference, bytes) in REFERENCES.iter().zip(files) {
        let path = directory.path().join(reference.file);
        std::fs::write(&path, bytes).unwrap();
        addresses.push(Url::from_file_path(path).unwrap());
    }
    let addresses: [Url; 3] = addresses.try_into().unwrap();
    let fetching = fetching(directory.path());
    let came = download_references(&lake, &addresses, &fetching).await;
    assert_eq!(came, [Some(1_458), Some(17), Some(3_324)]);
    assert!(directory.path().join("airports.csv").exists(), "it is not moved");
    let other = local_lake().1;
    let bad =
        (&REFERENCES[0], &Url::from_file_path(directory.path().join("carriers.csv")).unwrap());
    let error = download_reference(&session(1), &other, bad, &fetching, now, &|_| {}).await;
    let error = format!("{:#}", error.unwrap_err());
    assert!(
        error
            .ends_with("carriers.csv: airports.csv: it has no column ident; is the address right?"),
        "{error}"
    );
}
