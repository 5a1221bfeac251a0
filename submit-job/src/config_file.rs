//! `tarmac.toml`: what options are set to unless the command line or the environment says else.
//!
//! An option is named as on the command line. At the top it is meant for all commands that have it;
//! in a table such as `[stream]` for that command, and weightier. The tables of [`TABLES`] hold
//! settings of engines that Tarmac passes on.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::builder::Command;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Id};
use cluster::settings::{Setting, is_secret};
use jobs::stream::kafka;
use toml_edit::{Document, Item, TableLike, Value};

/// The file that is read when no other is named, where there is one.
pub const FILE: &str = "tarmac.toml";
/// Bytes of the file at most.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Below it a name is not like another one.
const LIKENESS_MIN: f64 = 0.7;

/// Options that are of one run, not of an installation. What cannot be taken back on the command
/// line, because it is a flag, is among them where it can do harm.
const OF_ONE_RUN: [&str; 31] = [
    "again",
    "append",
    "auto-rollback",
    "command",
    "config",
    "day",
    "distinct",
    "file",
    "force",
    "from",
    "help",
    "job-id",
    "json",
    "kill",
    "list",
    "live",
    "name",
    "new",
    "no-promote",
    "no-wait",
    "once",
    "only",
    "references",
    "replace",
    "resume",
    "since",
    "status",
    "to",
    "until",
    "version",
    "wait",
];

/// Tables of settings: of DataFusion, of librdkafka, and of the drivers of object stores.
pub const TABLES: [&str; 3] = ["conf", "kafka-conf", "object-store"];

/// What a file says. Without a file, nothing.
#[derive(Debug, Clone, Default)]
pub struct ConfigFile {
    /// The file, as it was named.
    pub path: PathBuf,
    options: Vec<FromFile>,
    tables: [Vec<Setting>; TABLES.len()],
}

/// What a file says of an option.
#[derive(Debug, Clone)]
pub struct FromFile {
    /// The command that is meant, word by word; none for all that have the option.
    command: Vec<String>,
    option: String,
    /// None for a flag that is off.
    pub values: Vec<String>,
    /// Its line, from 1.
    pub line: usize,
}

impl FromFile {
    /// Whether it stands in the table of the command of these words.
    pub fn is_of(&self, words: &[&str]) -> bool {
        self.command == words
    }
}

impl ConfigFile {
    /// Reads the file at `named`, or else [`FILE`] in this directory, where there is one, for the
    /// options of `command`. Errors name the file and the line, and the nearest name for one that
    /// is not known; they repeat no value of a table of settings.
    pub fn find(named: Option<&Path>, command: &Command) -> Result<Self> {
        match named {
            Some(path) => Self::read(path, command),
            // a link that leads nowhere is a file that was meant to be there
            None if Path::new(FILE).symlink_metadata().is_ok() => {
                Self::read(Path::new(FILE), command)
            }
            None => Ok(Self::default()),
        }
    }

    fn read(path: &Path, command: &Command) -> Result<Self> {
        let place = || path.display().to_string();
        let mut text = String::new();
        let file = File::open(path).with_context(place)?;
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).with_context(place)?;
        let is_small = text.len() as u64 <= FILE_BYTES_MAX;
        ensure!(is_small, "{}: more than {FILE_BYTES_MAX} bytes", path.display());
        let line_at = |at: usize| 1 + text[..at].matches('\n').count();
        let document = Document::parse(text.as_str()).map_err(|error| {
            let line = line_at(error.span().map_or(0, |span| span.start));
            anyhow!("{}:{line}: {}", path.display(), error.message().replace('\n', ", "))
        })?;
        let mut file = Self { path: path.to_owned(), ..Self::default() };
        let mut words = Vec::new();
        file.take(document.as_table(), &mut words, command, command, &line_at)?;
        Ok(file)
    }

    /// Takes what a table says of the options of `command`, which `words` name below `root`.
    fn take(
        &mut self,
        table: &dyn TableLike,
        words: &mut Vec<String>,
        command: &Command,
        root: &Command,
        line_at: &dyn Fn(usize) -> usize,
    ) -> Result<()> {
        for (name, item) in table.iter() {
            let span = table.key(name).and_then(|key| key.span()).or_else(|| item.span());
            let line = line_at(span.map_or(0, |span| span.start));
            let place = || format!("{}:{line}", self.path.display());
            let mut commands = configurable_commands(command);
            let below = commands.find(|command| command.get_name() == name);
            let settings = TABLES.iter().position(|known| words.is_empty() && *known == name);
            match (item.as_table_like(), settings, below) {
                (Some(table), Some(at), _) => {
                    let settings = settings_in(table, name).with_context(place)?;
                    self.tables[at] = settings;
                }
                (Some(table), None, Some(below)) => {
                    words.push(name.to_owned());
                    self.take(table, words, below, root, line_at)?;
                    words.pop();
                }
                _ => {
                    let arg = match words.is_empty() {
                        true => shared_option(root, name),
                        false => own_option(root, command, name),
                    };
                    let values = arg.and_then(|arg| values_of(item, arg)).with_context(place)?;
                    let (command, option) = (words.clone(), name.to_owned());
                    self.options.push(FromFile { command, option, values, line });
                }
            }
        }
        Ok(())
    }

    /// What the file says to the command of these words, by option.
    pub fn options(&self, words: &[&str]) -> BTreeMap<&str, &FromFile> {
        let is_meant = |from: &&FromFile| {
            from.command.len() <= words.len() && from.command.iter().zip(words).all(|(a, b)| a == b)
        };
        let mut meant: Vec<&FromFile> = self.options.iter().filter(is_meant).collect();
        meant.sort_by_key(|from| from.command.len());
        meant.into_iter().map(|from| (from.option.as_str(), from)).collect()
    }

    /// The settings of a table of [`TABLES`].
    pub fn table(&self, name: &str) -> &[Setting] {
        let at = TABLES.iter().position(|known| *known == name);
        at.map_or(&[], |at| self.tables[at].as_slice())
    }

    /// Whether it says what others should not know.
    pub fn has_secrets(&self) -> bool {
        let is_url = |text: &String| text.contains('@');
        // keys of object stores are many, and most of them secrets
        let of_stores = !self.table("object-store").is_empty();
        of_stores
            || self.tables.iter().flatten().any(|(name, _)| is_secret(name))
            || self.options.iter().flat_map(|from| &from.values).any(is_url)
    }

    /// The command line with what the file says as the defaults of the command that is `asked` for.
    /// What was said there or by the environment beats it, also what it excludes. Errors when the
    /// file says what excludes each other.
    pub fn apply(&self, command: Command, asked: &ArgMatches) -> Result<Command> {
        let words = words_of(asked);
        let (options, file) = (self.options(&words), self.path.display());
        set_defaults(command, &options, &words, asked).map_err(|(one, other)| {
            let line = options.get(other.as_str()).map_or(0, |from| from.line);
            anyhow!("{file}:{line}: {other} and {one} exclude each other")
        })
    }
}

/// The words of the command that is asked for.
pub fn words_of(asked: &ArgMatches) -> Vec<&str> {
    std::iter::successors(asked.subcommand(), |(_, below)| below.subcommand())
        .map(|(name, _)| name)
        .collect()
}

/// Errors with two options that exclude each other.
fn set_defaults(
    command: Command,
    options: &BTreeMap<&str, &FromFile>,
    words: &[&str],
    asked: &ArgMatches,
) -> Result<Command, (String, String)> {
    let is_said = |id: &Id| {
        let is_known = asked.try_contains_id(id.as_str()).is_ok();
        let source = is_known.then(|| asked.value_source(id.as_str())).flatten();
        matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    };
    let in_file = |arg: &Arg| {
        let from = arg.get_long().and_then(|long| options.get(long).copied());
        from.filter(|from| !from.values.is_empty())
    };
    let mut beaten = HashSet::new();
    for arg in command.get_arguments() {
        for other in command.get_arg_conflicts_with(arg) {
            for (arg, other) in [(arg, other), (other, arg)] {
                if is_said(other.get_id()) {
                    beaten.insert(arg.get_id().clone());
                }
            }
            let is_beaten = |arg: &Arg| beaten.contains(arg.get_id());
            if let (Some(one), Some(two)) = (in_file(arg), in_file(other))
                && !is_beaten(arg)
                && !is_beaten(other)
            {
                return Err((one.option.clone(), two.option.clone()));
            }
        }
    }
    let command =
        command.mut_args(|arg| match in_file(&arg).filter(|_| !beaten.contains(arg.get_id())) {
            Some(from) => arg.required(false).default_values(from.values.clone()),
            None => arg,
        });
    let (Some((word, rest)), Some((_, asked))) = (words.split_first(), asked.subcommand()) else {
        return Ok(command);
    };
    let mut conflict = None;
    let command = command.mut_subcommand(word, |below| {
        set_defaults(below.clone(), options, rest, asked).unwrap_or_else(|found| {
            conflict = Some(found);
            below
        })
    });
    conflict.map_or(Ok(command), Err)
}

/// The commands below that a file can speak to: not those that are hidden from it.
pub fn configurable_commands(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|below| !below.is_hide_set())
}

/// The options of a command itself that a file can set.
pub fn configurable_options(command: &Command) -> impl Iterator<Item = (&str, &Arg)> {
    let options = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let named = options.filter_map(|arg| Some((arg.get_long()?, arg)));
    named.filter(|(long, _)| !OF_ONE_RUN.contains(long) && !TABLES.contains(long))
}

/// All options of a name, with the commands that have them.
fn everywhere<'a>(command: &'a Command, name: &str, found: &mut Vec<(&'a str, &'a Arg)>) {
    let options = configurable_options(command).filter(|(long, _)| *long == name);
    found.extend(options.map(|(_, arg)| (command.get_name(), arg)));
    for below in command.get_subcommands() {
        everywhere(below, name, found);
    }
}

/// The option of this name, when it means the same wherever it is.
pub fn shared_option<'a>(root: &'a Command, name: &str) -> Result<&'a Arg> {
    let mut found = Vec::new();
    everywhere(root, name, &mut found);
    let Some((_, first)) = found.first().copied() else {
        let mut known: Vec<&str> = TABLES.to_vec();
        all_names(root, &mut known);
        return Err(unknown(name, &known));
    };
    let is_same = |arg: &Arg| match (arg.get_env(), first.get_env()) {
        (None, None) => {
            arg.get_help().map(ToString::to_string) == first.get_help().map(ToString::to_string)
        }
        (a, b) => a == b,
    };
    if !found.iter().all(|(_, arg)| is_same(arg)) {
        let commands: Vec<String> = found.iter().map(|(name, _)| format!("[{name}]")).collect();
        bail!("{name} is not the same for all commands: it stands in {}", commands.join(" or "));
    }
    // one that is only for some says more than the others
    let help = |arg: &&Arg| arg.get_help().map_or(0, |help| help.to_string().len());
    Ok(found.into_iter().map(|(_, arg)| arg).min_by_key(help).unwrap_or(first))
}

fn all_names<'a>(command: &'a Command, names: &mut Vec<&'a str>) {
    names.extend(configurable_options(command).map(|(long, _)| long));
    for below in configurable_commands(command) {
        names.push(below.get_name());
        all_names(below, names);
    }
}

/// The option of this name that a command has, be it of all commands.
fn own_option<'a>(root: &'a Command, command: &'a Command, name: &str) -> Result<&'a Arg> {
    let of_all = || configurable_options(root).filter(|(_, arg)| arg.is_global_set());
    let mut options = configurable_options(command).chain(of_all());
    if let Some((_, arg)) = options.find(|(long, _)| *long == name) {
        return Ok(arg);
    }
    let mut known: Vec<&str> = of_all().map(|(long, _)| long).collect();
    all_names(command, &mut known);
    Err(unknown(name, &known))
}

/// The known name that is most like this one, if one is.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |known: &&&str| strsim::jaro_winkler(name, known);
    let nearest = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    Some(*nearest).filter(|nearest| likeness(&nearest) > LIKENESS_MIN)
}

fn unknown(name: &str, known: &[&str]) -> anyhow::Error {
    if OF_ONE_RUN.contains(&name) {
        return anyhow!("{name} is of one run: it stands on the command line");
    }
    match nearest(name, known) {
        Some(nearest) if nearest == name => anyhow!("{name} cannot stand here, or not so"),
        Some(nearest) => anyhow!("nothing is called {name:?} here; {nearest}?"),
        None => {
            anyhow!("nothing is called {name:?} here; `submit-job config example` says what is")
        }
    }
}

/// A value as it would stand on the command line.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.value().clone()),
        Value::Integer(number) => Some(number.value().to_string()),
        Value::Float(number) => Some(number.value().to_string()),
        Value::Boolean(is) => Some(is.value().to_string()),
        Value::Datetime(at) => Some(at.value().to_string()),
        Value::Array(_) | Value::InlineTable(_) => None,
    }
}

/// The values that an item gives an option, which takes them. Empty for a flag that is off.
fn values_of(item: &Item, arg: &Arg) -> Result<Vec<String>> {
    let name = arg.get_long().unwrap_or_default();
    let value = item.as_value().with_context(|| format!("{name} is no table"))?;
    if !arg.get_action().takes_values() {
        let is_on = value.as_bool().with_context(|| format!("{name} is true or false"))?;
        return Ok(if is_on { vec!["true".to_owned()] } else { vec![] });
    }
    let is_list = matches!(arg.get_action(), ArgAction::Append);
    let texts = match value {
        Value::Array(values) if is_list => values.iter().map(text_of).collect(),
        Value::Array(_) => bail!("{name} has one value"),
        value => text_of(value).map(|text| vec![text]),
    };
    let texts = texts.with_context(|| format!("{name} is a text, a number or a list of them"))?;
    // as the option itself would take them, by itself
    let alone = Arg::new(name.to_owned())
        .long(name.to_owned())
        .action(arg.get_action().clone())
        .value_parser(arg.get_value_parser().clone())
        .default_values(texts.clone());
    let command = Command::new("").no_binary_name(true).arg(alone);
    if let Err(error) = command.try_get_matches_from([""; 0]) {
        let why = std::error::Error::source(&error).map(ToString::to_string);
        // of a choice clap says what there is
        let said = error.to_string();
        let choice = said.lines().map(str::trim).find(|line| line.starts_with("[possible values"));
        let why = why.or_else(|| choice.map(str::to_owned)).unwrap_or_default();
        bail!("{name} cannot be {:?}: {why}", texts.join(", "));
    }
    Ok(texts)
}

/// The settings of a table of [`TABLES`].
fn settings_in(table: &dyn TableLike, name: &str) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for (key, item) in table.iter() {
        let text = item.as_value().and_then(text_of);
        let text = text.with_context(|| {
            format!("{key} in [{name}] is a text or a number; a key with dots stands in quotes")
        })?;
        settings.push((key.to_owned(), text));
    }
    if name == "kafka-conf" {
        kafka::check(&settings)?;
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use crate::cli::Cli;

    use super::*;

    fn file(text: &str) -> Result<ConfigFile> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("a.toml");
        std::fs::write(&path, text)?;
        ConfigFile::read(&path, &Cli::configurable())
    }

    /// The command line with this file, and what the environment would say as options behind it.
    fn parsed(text: &str, line: &str) -> Cli {
        let words = std::iter::once("submit-job").chain(line.split_whitespace());
        Cli::parse_with(words, &file(text).unwrap()).unwrap().0
    }

    #[test]
    fn the_command_line_beats_the_table_of_a_command_which_beats_the_top() {
        let text = "data = 'top'\nmemory = 7\nkafka = 'k:1'\n[stream]\nkafka = 'k:2'\n\
                    archive = true\nmax-rows = 5\n[train]\nmemory = 9\ndata='x'";
        // [train] data: a table may set what all commands have
        let cli = parsed(text, "train");
        assert_eq!((cli.session.memory, cli.session.data.as_str()), (9, "x"));
        let cli = parsed(text, "train --memory 11");
        assert_eq!((cli.session.memory, cli.session.data.as_str()), (11, "x"));
        let stream = format!("{:?}", parsed(text, "stream").command);
        for said in ["kafka: \"k:2\"", "archive: true", "max_rows: 5"] {
            assert!(stream.contains(said), "{stream}");
        }
        let stream = format!("{:?}", parsed(text, "stream --kafka k:3 --max-rows 6").command);
        assert!(stream.contains("kafka: \"k:3\"") && stream.contains("max_rows: 6"), "{stream}");
        let web = format!("{:?}", parsed(text, "web").command);
        assert!(web.contains("kafka: \"k:1\""), "{web}");
    }

    #[test]
    fn what_is_said_beats_what_the_file_says_of_what_it_excludes() {
        let text = "mongo = 'mongodb://of-the-file'";
        let publish = format!("{:?}", parsed(text, "publish --mongo-file f").command);
        assert!(!publish.contains("of-the-file"), "{publish}");
        let both = file(&format!("{text}\nmongo-file = 'f'")).unwrap();
        let asked = |line: &str| {
            let words = ["submit-job"].into_iter().chain(line.split(' '));
            Cli::parse_with(words, &both).map(|_| ()).map_err(|error| error.to_string())
        };
        let error = asked("publish").unwrap_err();
        assert!(error.contains("a.toml:") && error.contains("exclude each other"), "{error}");
        assert_eq!(asked("publish --mongo mongodb://h"), Ok(()), "the command line decides");
        let publish = format!("{:?}", parsed(text, "publish --database d").command);
        assert!(publish.contains("of-the-file"), "{publish}");
    }

    #[test]
    fn what_a_file_should_not_say_is_refused_with_its_line() {
        for (text, said) in [
            ("kakfa = 'a:1'", ["a.toml:1", "nothing is called \"kakfa\"", "kafka?"]),
            ("\n[stram]\nx = 1", ["a.toml:2", "\"stram\"", "stream?"]),
            ("[stream]\n\ntriger = 'once'", ["a.toml:3", "\"triger\"", "trigger?"]),
            ("[stream]\ntrigger = 'now'", ["a.toml:2", "trigger cannot be \"now\"", "now"]),
            ("log-format = 'xml'", ["a.toml:1", "log-format cannot be \"xml\"", "json"]),
            ("memory = [1, 2]", ["a.toml:1", "memory has one value", ""]),
            ("[stream]\narchive = 'yes'", ["a.toml:2", "archive is true or false", ""]),
            ("listen = '127.0.0.1:1'", ["a.toml:1", "[web]", "[stream]"]),
            ("zzz = 1", ["a.toml:1", "\"zzz\"", "config example"]),
            ("data = 'a'\ndata = 'b'", ["a.toml:2", "duplicate key", ""]),
            ("data = ", ["a.toml:1", "", ""]),
            ("status = 'x'", ["a.toml:1", "status is of one run", ""]),
            ("[[stream]]", ["a.toml:1", "stream cannot stand here", ""]),
            ("[dlq]\nx = 1", ["a.toml:1", "\"dlq\"", ""]),
            ("[kafka-conf]\nacks = 0", ["a.toml:1", "acks cannot be set", ""]),
            ("[conf]\na.b = 1", ["a.toml:1", "in quotes", ""]),
        ] {
            let error = format!("{:#}", file(text).unwrap_err());
            assert!(said.iter().all(|said| error.contains(said)), "{text:?}: {error}");
        }
        let secret = "[kafka-conf]\n'sasl.password' = 'hunter2'\n'no.such' = 'hunter2'";
        let error = format!("{:#}", file(secret).unwrap_err());
        assert!(error.contains("no.such") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn settings_of_engines_are_passed_on() {
        let text = "[conf]\n'datafusion.execution.batch_size' = 4096\n[kafka-conf]\n\
                    'sasl.password' = 'x'\n[object-store]\naws_region = 'r'";
        let file = file(text).unwrap();
        let of = |name: &str| file.table(name)[0].clone();
        assert_eq!(of("conf"), ("datafusion.execution.batch_size".into(), "4096".into()));
        assert_eq!(of("kafka-conf"), ("sasl.password".into(), "x".into()));
        assert_eq!(of("object-store"), ("aws_region".into(), "r".into()));
        let cli = parsed(text, "train --conf a.b=1");
        let settings = cli.session.settings().unwrap();
        assert_eq!(settings.len(), 2, "{settings:?}");
        assert_eq!(settings[1].0, "a.b", "later ones take precedence");
    }
}
