//! What shells and `man` know of the command line, and what a container asks by it.

use std::io::{Read, Write};
use std::net::TcpListener;
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

#[test]
fn a_program_is_asked_whether_it_is_well() {
    let data = tempfile::tempdir().unwrap();
    let healthy = |url: &str, proxy: &str| {
        let mut command = submit_job(data.path());
        let output = command.args(["healthy", url]).env("http_proxy", proxy).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        for (status, body) in
            [("200 OK", "ready"), ("503 Unavailable", "Kafka is away"), ("302 Found", "")]
        {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 1024];
            assert!(stream.read(&mut head).unwrap() > 0);
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {status}\r\nlocation: /\r\ncontent-length: {length}\r\n\r\n{body}"
            )
            .unwrap();
        }
    });
    let url = format!("http://{address}/readyz");
    // whatever proxy there is
    assert_eq!(healthy(&url, "http://127.0.0.1:1"), (0, String::new()));
    let (code, said) = healthy(&url, "");
    assert!(code == 1 && said.contains("503 Service Unavailable: Kafka is away"), "{said}");
    let (code, said) = healthy(&url, "");
    assert!(code == 1 && said.contains("302 Found"), "{said}");
    server.join().unwrap();
    let (code, said) = healthy(&url, "");
    assert!(code == 1 && said.contains(&url) && said.contains("Connection refused"), "{said}");
    let (code, said) = healthy("ftp://127.0.0.1/readyz", "");
    assert!(code == 1 && said.contains("is no address as http://"), "{said}");
}
