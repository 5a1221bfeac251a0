//! Where options come from: the command line, the environment, the file; and what is said as JSON.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::setup::{repository, run, submit_job};

/// The program in a directory, which may hold a `tarmac.toml`, with nothing else around it.
fn program(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_submit-job"));
    command.current_dir(directory).env_clear();
    command
}

#[test]
fn what_is_set_is_shown_with_what_has_set_it_and_without_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let file = "memory = 512\nmongo = 'mongodb://me:hun@://ter2@h:1/?replicaSet=s'\nkafka = 'f:1'\n\
                group = 'of-the-file'\n[stream]\nkafka = 'own:1'\ntrigger = 'arrival'\narchive = true\n\
                [kafka-conf]\n'sasl.username' = 'me'\n'sasl.password' = 'hunter2'\n\
                [object-store]\naws_region = 'north'\naws_secret_access_key = 'hunter2'\n\
                azure_storage_sas_key = 'hunter2'\naws_endpoint = 'http://me:hunter2@h'";
    std::fs::write(directory.path().join("tarmac.toml"), file).unwrap();
    let mut show = program(directory.path());
    show.args(["config", "show", "--memory", "256"]);
    show.env("TARMAC_KAFKA", "e:1").env("TARMAC_GRUOP", "x").env("AWS_REGION", "south");
    let shown = run(&mut show);
    let line = |start: &str| {
        let found = shown.lines().find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("no line {start} in {shown}")).to_owned()
    };
    for (option, value, origin) in [
        ("data = ", "\"tarmac-data\"", "# default"),
        ("memory = ", "256", "# the command line"),
        ("kafka = ", "\"e:1\"", "# TARMAC_KAFKA"),
        ("group = ", "\"of-the-file\"", "# tarmac.toml:4"),
        ("mongo = ", "\"mongodb://***@h:1/?replicaSet=s\"", "# tarmac.toml:2"),
        ("trigger = ", "\"arrival\"", "# tarmac.toml:7"),
        ("archive = ", "true", "# tarmac.toml:8"),
        ("max-rows = ", "50000", "# default"),
        ("# shadow =", "", "# default"),
        ("trusted-proxy = ", "[]", "# default"),
        ("\"sasl.password\" = ", "\"***\"", "# tarmac.toml"),
        ("\"sasl.username\" = ", "\"me\"", "# tarmac.toml"),
        ("\"aws_region\" = ", "\"south\"", "# the environment"),
        ("\"azure_storage_sas_key\" = ", "\"***\"", "# tarmac.toml"),
        ("\"aws_endpoint\" = ", "\"http://***@h\"", "# tarmac.toml"),
        ("\"aws_secret_access_key\" = ", "\"***\"", "# tarmac.toml"),
        ("# no option is set by ", "the variable TARMAC_GRUOP; TARMAC_GROUP?", ""),
    ] {
        let line = line(option);
        assert!(line.contains(&format!("{option}{value}")) && line.ends_with(origin), "{line}");
    }
    assert!(!shown.contains("hunter2") && !shown.contains("ter2"), "{shown}");
    assert!(shown.lines().any(|l| l.starts_with("kafka = \"own:1\"") && l.ends_with(":6")));
    // what is shown can be a file of options itself
    let again = directory.path().join("again.toml");
    std::fs::write(&again, &shown).unwrap();
    let shown = run(program(directory.path()).args(["config", "show", "--config"]).arg(&again));
    let memory = shown.lines().find(|line| line.starts_with("memory = 256")).unwrap();
    assert!(memory.contains("again.toml:"), "{memory}");
}

#[test]
fn a_file_of_options_is_heeded_and_one_that_is_wrong_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (data, file) = (directory.path().join("root"), directory.path().join("tarmac.toml"));
    std::fs::write(&file, format!("data = '{}'\n", data.display())).unwrap();
    let import = ["import-distances", "distances.jsonl"];
    let line = r#"{"Origin":"EWR","Dest":"IAH","Distance":1400}"#;
    std::fs::write(directory.path().join("distances.jsonl"), line).unwrap();
    run(program(directory.path()).args(import));
    assert!(data.join("distances").is_dir(), "the data root of the file");
    let ended = |command: &mut Command| {
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    std::fs::write(&file, "[train]\ndepth = 'deep'\n").unwrap();
    let (code, said) = ended(program(directory.path()).arg("--list"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("tarmac.toml:2: depth cannot be \"deep\""), "{said}");
    let (code, said) = ended(program(directory.path()).args(["--list", "--config", "none.toml"]));
    assert!(code == Some(2) && said.contains("none.toml"), "{said}");
    // a part of what a connection with certificates needs would be one without
    std::fs::write(&file, "tls-ca = 'ca.pem'\n").unwrap();
    let (code, said) = ended(program(directory.path()).args(["sql", "-c", "SELECT 1"]));
    assert!(code == Some(2) && said.contains("go together"), "{said}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test is told whether to write what it expects")]
fn the_documented_file_has_all_options_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let example = run(program(directory.path()).args(["config", "example"]));
    let path = repository().join("docs/tarmac.toml");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &example).unwrap();
    }
    let documented = std::fs::read_to_string(&path).unwrap();
    assert!(documented == example, "docs/tarmac.toml is old: run this test with UPDATE=1");
    run(program(directory.path()).args(["config", "show", "--config"]).arg(&path));
    // each of its lines may be put to use
    let options = example.lines().filter_map(|line| {
        let line = line.strip_prefix("# ")?;
        let (name, value) = line.split_once(" = ")?;
        let is_name = name.chars().all(|c| c.is_ascii_lowercase() || "-\"._".contains(c));
        (is_name && !value.is_empty()).then(|| format!("{line}\n"))
    });
    let tables = example.lines().filter(|line| line.starts_with('[')).count();
    assert!(tables > 10 && options.count() > 40, "{example}");
    let used: String = example
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split_once(" = ").is_some_and(|(name, _)| !name.contains(' ')) => {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let file = directory.path().join("used.toml");
    std::fs::write(&file, used).unwrap();
    run(program(directory.path()).args(["config", "show", "--config"]).arg(&file));
}

#[test]
fn as_json_each_line_is_an_object() {
    let data = tempfile::tempdir().unwrap();
    let json = ["--log-format", "json"];
    let import = ["import-distances", "data/nycflights13/no-such-file.jsonl"];
    let output = submit_job(data.path()).args(json).args(import).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!(last["level"], "ERROR", "{said}");
    assert!(last["message"].as_str().unwrap().contains("no-such-file.jsonl"), "{said}");
    assert!(last["timestamp"].is_string() && last["target"] == "said", "{said}");
    // what is said to people is a line too, whatever the log shows
    let ingest = ["ingest", "--rejects-max", "0.5", "data/fixtures/bts_new.csv"];
    let mut ingest_so = submit_job(data.path());
    let output = ingest_so.args(json).args(ingest).env("RUST_LOG", "error").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.lines().count() > 0, "{said}");
    for line in said.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert_eq!(line["level"], "INFO", "{said}");
    }
}
