//! The structure that the architecture promises, checked over the sources as text.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_CHARS_MAX: usize = 100;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file below `directory` that ends in `ending`, with its text.
fn files(directory: &str, ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![root().join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() && !["target", ".git", "node_modules"].contains(&name) {
                open.push(path);
            } else if name.ends_with(ending) {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

const CRATES: [&str; 9] =
    ["events", "store", "telemetry", "udf", "charts", "jobs", "cluster", "web", "submit-job"];

fn sources() -> impl Iterator<Item = (PathBuf, String)> {
    CRATES.iter().flat_map(|name| files(&format!("{name}/src"), ".rs"))
}

/// Source without the tests at its end.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]").next().unwrap()
}

#[test]
fn files_lines_and_functions_are_short() {
    for (path, text) in sources() {
        let n_lines = without_tests(&text).lines().count();
        assert!(n_lines <= FILE_LINES_MAX, "{}: {n_lines} lines", path.display());
        let mut function: Option<(usize, String)> = None;
        for (i, line) in text.lines().enumerate() {
            let place = format!("{}:{}", path.display(), i + 1);
            assert!(line.chars().count() <= LINE_CHARS_MAX, "{place}: the line is long");
            let indent = line.len() - line.trim_start().len();
            let words: Vec<&str> = line.split_whitespace().collect();
            if function.is_none() && words.contains(&"fn") && !line.trim_end().ends_with(';') {
                function = Some((i, " ".repeat(indent) + "}"));
            }
            if let Some((start, end)) = &function
                && (line == end || (i == *start && line.ends_with('}')))
            {
                let n_lines = i - start + 1;
                assert!(n_lines <= FUNCTION_LINES_MAX, "{place}: {n_lines} lines of function");
                function = None;
            }
        }
    }
}

#[test]
fn crates_depend_only_in_the_direction_of_the_arrows() {
    let forbidden = [
        ("events", &["datafusion", "rdkafka", "mongodb", "rusqlite"][..]),
        ("charts", &["datafusion", "axum"]),
        ("store", &["datafusion", "rdkafka"]),
        ("telemetry", &["datafusion", "rdkafka", "axum"]),
        ("udf", &["tokio", "rdkafka", "mongodb", "store", "events", "jobs", "object_store"]),
        ("jobs", &["ballista", "cluster", "web", "axum", "mongodb", "clap"]),
        ("web", &["datafusion", "udf", "jobs", "cluster"]),
        ("cluster", &["events", "store", "web", "rdkafka"]),
    ];
    for (name, crates) in forbidden {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        let manifest = manifest.split("[dev-dependencies]").next().unwrap();
        // these know nothing of the others
        let is_leaf = ["events", "charts", "store", "telemetry"].contains(&name);
        let others = CRATES.iter().filter(|other| is_leaf && **other != name);
        for other in crates.iter().chain(others) {
            let dependency = |line: &str| {
                line.starts_with(&format!("{other}.")) || line.starts_with(&format!("{other} "))
            };
            assert!(!manifest.lines().any(dependency), "{name} must not depend on {other}");
        }
    }
}

/// Files import each other in one direction: what a module needs can be read without it.
#[test]
fn no_file_imports_another_in_a_circle() {
    let circles: Vec<String> = CRATES.iter().flat_map(|name| circles_of(name)).collect();
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

/// Each circle of a crate, as `name: a -> b -> a`.
fn circles_of(name: &str) -> Vec<String> {
    let source = root().join(name).join("src");
    let modules: BTreeMap<String, String> = files(&format!("{name}/src"), ".rs")
        .into_iter()
        .map(|(path, text)| {
            let path = path.strip_prefix(&source).unwrap().with_extension("");
            let path = path.to_str().unwrap().replace('/', "::");
            let module = path.strip_suffix("::mod").unwrap_or(&path);
            (module.to_owned(), without_tests(&text).to_owned())
        })
        .collect();
    let imports: BTreeMap<&str, BTreeSet<&str>> = modules
        .iter()
        .map(|(module, text)| (module.as_str(), imports(module, text, &modules)))
        .collect();
    let mut found = Vec::new();
    for start in imports.keys() {
        // the shortest way back
        let mut ways = VecDeque::from([vec![*start]]);
        let mut seen = BTreeSet::new();
        while let Some(way) = ways.pop_front() {
            for next in &imports[way[way.len() - 1]] {
                if next == start {
                    found.push(format!("{name}: {} -> {start}", way.join(" -> ")));
                    ways.clear();
                    break;
                }
                if seen.insert(*next) {
                    ways.push_back([&way[..], &[next]].concat());
                }
            }
        }
    }
    found
}

/// The modules that a file imports: the longest beginning of each `crate::…` that is a file.
fn imports<'a>(
    module: &str,
    text: &str,
    modules: &'a BTreeMap<String, String>,
) -> BTreeSet<&'a str> {
    let code: Vec<&str> =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let mut found = BTreeSet::new();
    for rest in code.join("").split("crate::").skip(1) {
        let is_path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let (path, after) = rest.split_at(rest.find(|c| !is_path(c)).unwrap_or(rest.len()));
        // a group of imports, of which each is a path
        let group = after.strip_prefix('{').map_or("", |group| group.split('}').next().unwrap());
        for item in group.split(',') {
            let path = format!("{path}{}", item.trim());
            let mut parts: Vec<&str> = path.split("::").collect();
            while !parts.is_empty() && !modules.contains_key(&parts.join("::")) {
                parts.pop();
            }
            // what is in no file of its own stands in that of the crate
            let target = if parts.is_empty() { "lib".to_owned() } else { parts.join("::") };
            let target = modules.get_key_value(&target).map(|(target, _)| target.as_str());
            found.extend(target.filter(|target| *target != module));
        }
    }
    found
}

#[test]
fn udf_has_no_io_clock_environment_or_async() {
    for (path, text) in files("udf/src", ".rs") {
        for word in ["std::fs", "std::net", "std::env", "std::time", "async ", "SystemTime"] {
            assert!(!text.contains(word), "{} uses {word}", path.display());
        }
    }
}

#[test]
fn no_sql_is_written_in_rust() {
    // the embedded store speaks SQL to SQLite: there it is the protocol
    for (path, text) in sources().filter(|(path, _)| !path.ends_with("store/src/embedded.rs")) {
        for (i, line) in without_tests(&text).lines().enumerate() {
            let code = line.split("//").next().unwrap();
            let is_sql = ["\"SELECT ", "\"COPY ", "\"INSERT ", "\"CREATE "].iter();
            for start in is_sql {
                assert!(!code.contains(start), "{}:{}: SQL", path.display(), i + 1);
            }
        }
    }
}

#[test]
fn each_sql_file_has_a_header_is_a_step_and_has_a_test() {
    let steps = fs::read_to_string(root().join("jobs/src/sql.rs")).unwrap();
    for (path, text) in files("sql", ".sql") {
        // of the pages' steps with their directory
        let name = path.strip_prefix(root().join("sql")).unwrap().to_str().unwrap();
        let mut lines = text.lines();
        for start in ["-- reads: ", "-- makes: ", "-- grain: "] {
            let line = lines.next().unwrap();
            assert!(line.starts_with(start), "{name}: {line:?} should start with {start:?}");
        }
        assert!(steps.contains(&format!("\"sql/{name}\"")), "{name} is no step of jobs/src/sql.rs");
        let test = root().join("sql/tests").join(name.replace(".sql", ".slt"));
        assert!(test.is_file(), "{name} has no {}", test.display());
    }
}

#[test]
fn environment_and_clock_are_read_at_the_edge_only() {
    for (path, text) in sources() {
        let is_edge = path.ends_with("config.rs") || path.ends_with("main.rs");
        let words = ["env::var", "env::args", "SystemTime::now", "Utc::now", "Local::now"];
        for word in words.iter().filter(|_| !is_edge) {
            assert!(!without_tests(&text).contains(word), "{} uses {word}", path.display());
        }
    }
}

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    let documents: Vec<(PathBuf, String)> = ["data", "bench", "docs"]
        .iter()
        .flat_map(|directory| files(directory, ".md"))
        .chain(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| {
            let path = root().join(name);
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        }))
        .collect();
    assert!(documents.len() > 10, "they are found");
    for (path, text) in documents {
        let inline = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        // `[name]: target`, to which `[name]` refers
        let defined = text.lines().filter_map(|line| line.strip_prefix('[')?.split("]: ").nth(1));
        for link in inline.chain(defined) {
            let target = link.split('#').next().unwrap();
            if target.is_empty() || target.starts_with("http") {
                continue;
            }
            let target = path.parent().unwrap().join(target);
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
        }
    }
}

/// The products of whole numbers in a text, as `8 * 1024 * 1024` or `10_000`.
fn products(text: &str) -> Vec<u64> {
    let text = text.replace("MIB", "1048576").replace('_', "");
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '*');
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let number = |i: usize| words.get(i).and_then(|word| word.parse::<u64>().ok());
    let mut found = Vec::new();
    for i in 0..words.len() {
        let Some(factor) = number(i) else { continue };
        match found.last_mut() {
            Some(product) if i > 1 && words[i - 1] == "*" && number(i - 2).is_some() => {
                *product *= factor;
            }
            _ => found.push(factor),
        }
    }
    found
}

#[test]
fn the_limits_in_the_documents_are_those_of_the_code() {
    let code = "const A: [u64; 2] = [8 * 1_024 * 4, 7]; const B: u64 = A[0] * N * 3;";
    assert_eq!(products(code), [2, 32_768, 7, 0, 3]);
    let path = root().join("docs/limits.md");
    let text = fs::read_to_string(&path).unwrap();
    let rows: Vec<&str> = text.lines().filter(|line| line.contains("](")).collect();
    assert!(rows.len() > 60, "they are found");
    for row in rows {
        let (limit, rest) = row.strip_prefix("| ").unwrap().split_once(" | ").unwrap();
        let value = rest.split(" | ").next().unwrap();
        let links = limit.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let sources = links.map(|link| fs::read_to_string(path.with_file_name(link)).unwrap());
        let numbers: Vec<u64> = sources.flat_map(|code| products(without_tests(&code))).collect();
        // flags are no limits
        let said = value.split('`').step_by(2).collect::<String>().replace(',', "");
        let words: Vec<&str> = said.split_whitespace().collect();
        for (i, word) in words.iter().enumerate() {
            let Ok(number) = word.trim_end_matches(';').parse::<u64>() else { continue };
            let unit = match words.get(i + 1).map(|unit| unit.trim_end_matches([';', ')'])) {
                Some("KiB") => 1 << 10,
                Some("MiB") => 1 << 20,
                Some("GiB") => 1 << 30,
                _ => 1,
            };
            // what a flag takes in MiB is a plain number in the code
            let is_there = numbers.contains(&(number * unit)) || numbers.contains(&number);
            assert!(is_there, "{limit}: {number} is not in the code");
        }
    }
}
