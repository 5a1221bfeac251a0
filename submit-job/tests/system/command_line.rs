//! What shells and `man` know of the command line.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::setup::{run, submit_job};

/// What bash completes a line with.
fn completed(script: &str, words: &[&str]) -> String {
    let (line, last) = (words.join(" "), words.len() - 1);
    let ask = format!(
        "\nset -- $(complete -p submit-job)\n\
         while [ $# -gt 1 ] && [ \"$1\" != -F ]; do shift; done\n\
         COMP_WORDS=({line}) COMP_CWORD={last}\n\
         \"$2\" submit-job \"${{COMP_WORDS[{last}]}}\"\n\
         echo \"${{COMPREPLY[@]}}\"\n"
    );
    let mut bash = Command::new("bash")
        .args(["--norc", "-s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    bash.stdin.take().unwrap().write_all(format!("{script}{ask}").as_bytes()).unwrap();
    String::from_utf8(bash.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn commands_and_options_are_completed_in_a_shell() {
    let data = tempfile::tempdir().unwrap();
    let script = |shell| run(submit_job(data.path()).args(["completions", shell]));
    let bash = script("bash");
    assert_eq!(completed(&bash, &["submit-job", "imp"]).trim(), "import-distances");
    assert_eq!(completed(&bash, &["submit-job", "train", "--holdout-b"]).trim(), "--holdout-by");
    for shell in ["zsh", "fish"] {
        let script = script(shell);
        assert!(script.contains("import-distances") && script.contains("holdout-by"), "{shell}");
    }
}

#[test]
fn each_command_has_a_page_for_man() {
    let data = tempfile::tempdir().unwrap();
    let pages = data.path().join("man/man1");
    run(submit_job(data.path()).arg("man").arg(&pages));
    for (page, text) in [
        ("submit-job.1", "Exit codes"),
        ("submit-job-train.1", "holdout"),
        ("submit-job-stream-offsets-reset.1", "offset"),
    ] {
        let page = std::fs::read_to_string(pages.join(page)).unwrap();
        assert!(page.contains(text) && page.contains(".SH NAME"), "{page}");
    }
}
