//! Progress on a terminal as a bar, elsewhere as plain lines.

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use cluster::remote::Tasks;
use indicatif::{ProgressBar, ProgressStyle};
use jobs::progress::Progress;
use parking_lot::Mutex;

/// What lines of the log are of that are said to people.
pub const SAID: &str = "said";
/// Whether what is said is a line of the log.
static SAYS_JSON: AtomicBool = AtomicBool::new(false);

/// Shows the progress of a job.
pub struct Shown {
    bar: Option<ProgressBar>,
    /// The last line, so that none is repeated.
    last: Mutex<String>,
}

impl Default for Shown {
    fn default() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("  {bar:20} {percent:>3} %  {prefix}{msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style)
        });
        Self { bar, last: Mutex::new(String::new()) }
    }
}

impl Shown {
    /// Shows a step.
    pub fn show(&self, progress: Progress) {
        match (&self.bar, progress) {
            (Some(bar), Progress::Notice(text)) => bar.println(format!("  {}", printable(&text))),
            (None, Progress::Notice(text)) => self.line(text),
            (Some(bar), Progress::Stage(stage)) => {
                bar.println(format!("  {stage}"));
                // how far the stage before was says nothing about this one
                bar.set_length(1);
                bar.set_position(0);
                bar.set_message("");
            }
            (Some(bar), Progress::Bytes { done, total }) => {
                bar.set_length(total);
                bar.set_position(done);
                bar.set_message("bytes read");
            }
            (Some(bar), Progress::Level { n_trees, done, total }) => {
                bar.set_length(total.into());
                bar.set_position(done.into());
                bar.set_message(format!("{done} of {total} levels, {n_trees} trees"));
            }
            (Some(bar), Progress::Published { collection, n_documents }) => {
                bar.println(format!("  {collection}: {n_documents} documents"));
            }
            (None, Progress::Published { collection, n_documents }) => {
                self.line(format!("{collection}: {n_documents} documents"));
            }
            (None, Progress::Stage(stage)) => self.line(stage.to_owned()),
            (None, Progress::Bytes { done, total }) => {
                // whole quarters only: a log needs no more
                let quarters = 4 * done / total.max(1);
                self.line(format!("{} % read", 25 * quarters));
            }
            (None, Progress::Level { n_trees, done, total }) => {
                self.line(format!("{done} of {total} levels of {n_trees} trees grown"));
            }
        }
    }

    /// Shows how far the queries are that run on a cluster; a terminal's bar only.
    pub fn tasks(&self, tasks: Tasks) {
        if let (Some(bar), true) = (&self.bar, tasks.total > 0) {
            bar.set_prefix(format!("{} of {} tasks  ", tasks.done, tasks.total));
        }
    }

    /// Removes the bar.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, line: String) {
        let mut last = self.last.lock();
        if *last != line {
            say(&format!("  {line}"));
            *last = line;
        }
    }
}

/// Says something to the person who started the program.
#[expect(clippy::print_stderr, reason = "the one place that talks to the terminal")]
pub fn say(text: &str) {
    match SAYS_JSON.load(Ordering::Relaxed) {
        true => tracing::info!(target: SAID, "{}", printable(text.trim())),
        false => eprintln!("{}", printable(text)),
    }
}

/// Says why the program ends before it has done what it should.
pub fn say_error(text: &str) {
    match SAYS_JSON.load(Ordering::Relaxed) {
        true => tracing::error!(target: SAID, "{}", printable(text)),
        false => say(&format!("error: {text}")),
    }
}

/// From now on what is said is a line of the log, whose format must have been set.
pub fn say_as_json() {
    SAYS_JSON.store(true, Ordering::Relaxed);
}

/// A text without what would steer a terminal: names in archives and answers of servers are
/// whatever somebody made them.
fn printable(text: &str) -> String {
    let is_steering = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    text.replace(is_steering, "\u{fffd}")
}

/// Prints a result, for people or for a pipe; errors when it is lost, on a full disk.
pub fn print(text: &str) -> Result<()> {
    written(&format!("{text}\n")).map(|_| ())
}

/// Prints text as it is; whether somebody reads on.
pub fn written(text: &str) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // a reader that has seen enough closes its end; that is no error of ours
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).context("cannot write the output"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_named_does_not_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2J\u{9b}b\r\n\tc é"), "a\u{fffd}[2J\u{fffd}b\u{fffd}\n\tc é");
    }
}
