//! `submit-job config`: what options are set to and by what, and a file of all of them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use clap::builder::Command;
use clap::{Arg, ArgAction, Args, Subcommand};
use cluster::settings::{Setting, is_secret};

use crate::config::{Environment, KAFKA_PREFIX};
use crate::config_file::{
    ConfigFile, FILE, FromFile, TABLES, configurable_commands, configurable_options, nearest,
    shared_option,
};
use crate::driver::{STRUCK_OUT, without_user};
use crate::progress::print;

/// Column at which origins stand, where there is room.
const ORIGIN_AT: usize = 44;
/// Columns of a comment.
const COMMENT_COLUMNS: usize = 96;

/// Arguments of `config`.
#[derive(Debug, Args)]
pub struct Config {
    /// What to do.
    #[command(subcommand)]
    pub action: ConfigAction,
}

/// What to do with options.
#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Print what each option is set to and by what: the environment, the file, or nothing
    Show,
    /// Print a file with all options, explained: the beginning of a tarmac.toml
    Example,
}

/// Prints what was asked for, which is a file of options itself. `root` is the command line, and
/// `given` what it says of options that all commands have.
pub fn run_config(
    args: &Config,
    root: &Command,
    given: &[Setting],
    around: &Environment,
) -> Result<()> {
    match args.action {
        ConfigAction::Show => print(&shown(root, given, around)?),
        ConfigAction::Example => print(&example(root)?),
    }
}

/// All options, each once: those that are shared at the top, then those of each command.
fn sections(root: &Command) -> Vec<(Vec<&str>, Vec<&Arg>)> {
    let mut sections = Vec::new();
    fn below<'a>(
        command: &'a Command,
        words: &[&'a str],
        sections: &mut Vec<(Vec<&'a str>, Vec<&'a Arg>)>,
    ) {
        let options = configurable_options(command).map(|(_, arg)| arg).collect();
        sections.push((words.to_vec(), options));
        for command in configurable_commands(command) {
            let words: Vec<&str> = words.iter().copied().chain([command.get_name()]).collect();
            below(command, &words, sections);
        }
    }
    below(root, &[], &mut sections);
    // what several commands have, and is the same for them, stands at the top
    let (mut seen, mut twice) = (BTreeSet::new(), Vec::new());
    for (_, options) in sections.iter().skip(1) {
        for arg in options {
            let long = arg.get_long().unwrap_or_default();
            if !seen.insert(long)
                && let Ok(first) = shared_option(root, long)
                && !twice.iter().any(|arg: &&Arg| arg.get_long() == Some(long))
            {
                twice.push(first);
            }
        }
    }
    for (_, options) in sections.iter_mut().skip(1) {
        options.retain(|arg| !twice.iter().any(|shared| shared.get_long() == arg.get_long()));
    }
    sections[0].1.extend(twice);
    sections.retain(|(_, options)| !options.is_empty());
    sections
}

/// A value as TOML.
fn toml_of(text: &str, arg: &Arg) -> String {
    let is_bare = matches!(text, "true" | "false") && !arg.get_action().takes_values();
    let is_number = text.parse::<i64>().is_ok_and(|number| number.to_string() == text);
    match is_bare || is_number {
        true => text.to_owned(),
        false => toml_edit::value(text).to_string().trim().to_owned(),
    }
}

fn line_of(long: &str, values: &[String], arg: &Arg) -> String {
    let values: Vec<String> = values.iter().map(|text| toml_of(text, arg)).collect();
    match (arg.get_action(), values.as_slice()) {
        (ArgAction::Append, values) => format!("{long} = [{}]", values.join(", ")),
        (_, [value]) => format!("{long} = {value}"),
        (_, _) => format!("# {long} ="),
    }
}

/// What an option has when nobody says anything.
fn defaults_of(arg: &Arg) -> Vec<String> {
    if !arg.get_action().takes_values() {
        return vec!["false".to_owned()];
    }
    arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect()
}

/// Words of keys whose values may be seen, of settings that are passed on: a key that is not known
/// may name a secret.
const HARMLESS: [&str; 16] = [
    "allow_http",
    "batch_size",
    "bucket",
    "compression",
    "datafusion.",
    "endpoint",
    "interval",
    "location",
    "max",
    "mechanism",
    "min",
    "protocol",
    "region",
    "timeout",
    "username",
    "virtual",
];

/// What a file says of an option, and where.
fn said_in(path: &Path, from: &FromFile) -> (Vec<String>, String) {
    let values = match from.values.is_empty() {
        true => vec!["false".to_owned()],
        false => from.values.clone(),
    };
    (values, format!("{}:{}", path.display(), from.line))
}

/// Adds the line of an option, with what has set it.
fn show(text: &mut String, arg: &Arg, values: &[String], origin: &str) -> Result<()> {
    let values: Vec<String> = values.iter().map(|value| without_user(value)).collect();
    let line = line_of(arg.get_long().unwrap_or_default(), &values, arg);
    Ok(writeln!(text, "{line:ORIGIN_AT$} # {origin}")?)
}

fn shown(root: &Command, given: &[Setting], around: &Environment) -> Result<String> {
    let ConfigFile { path, .. } = &around.file;
    let mut text = match path.as_os_str().is_empty() {
        true => format!("# there is no {FILE} here, and no --config FILE\n"),
        false => format!("# {}\n", path.display()),
    };
    for (words, options) in sections(root) {
        if !words.is_empty() {
            write!(text, "\n[{}]\n", words.join("."))?;
        }
        let of_file = around.file.options(&words);
        let options_are: Vec<&str> = options.iter().filter_map(|arg| arg.get_long()).collect();
        for arg in options {
            let long = arg.get_long().unwrap_or_default();
            let variable = arg.get_env().and_then(|name| name.to_str());
            let said = around.variables.iter().find(|(name, _)| Some(name.as_str()) == variable);
            let from = of_file.get(long);
            let given = given.iter().find(|(name, _)| name == long);
            let (values, origin) = match (given, said, from) {
                (Some((_, value)), _, _) => (vec![value.clone()], "the command line".to_owned()),
                (None, Some((name, value)), _) => (vec![value.clone()], name.clone()),
                (None, None, Some(from)) => said_in(path, from),
                (None, None, None) => (defaults_of(arg), "default".to_owned()),
            };
            show(&mut text, arg, &values, &origin)?;
        }
        // what a command has for itself of that which stands at the top
        let is_own = |from: &FromFile| !words.is_empty() && from.is_of(&words);
        for (long, from) in of_file.iter().filter(|(_, from)| is_own(from)) {
            if let Ok(arg) = shared_option(root, long)
                && !options_are.contains(long)
            {
                let (values, origin) = said_in(path, from);
                show(&mut text, arg, &values, &origin)?;
            }
        }
    }
    tables(&mut text, around)?;
    for (name, nearest) in unknown_variables(root, around) {
        let nearest = nearest.map(|nearest| format!("; {nearest}?")).unwrap_or_default();
        write!(text, "\n# no option is set by the variable {name}{nearest}")?;
    }
    Ok(text.trim_end().to_owned())
}

/// Variables that look like ours and set nothing, each with the nearest one that does.
pub fn unknown_variables(root: &Command, around: &Environment) -> Vec<(String, Option<String>)> {
    let mut known = Vec::new();
    variables(root, &mut known);
    let of_kafka = |name: &str| name.starts_with(KAFKA_PREFIX);
    let names = around.variables.iter().map(|(name, _)| name);
    names
        .filter(|name| !of_kafka(name) && !known.contains(&name.as_str()))
        .map(|name| (name.clone(), nearest(name, &known).map(str::to_owned)))
        .collect()
}

fn variables<'a>(command: &'a Command, known: &mut Vec<&'a str>) {
    let names = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str());
    known.extend(names);
    for below in command.get_subcommands() {
        variables(below, known);
    }
}

/// The settings that are passed on, with their origins.
fn tables(text: &mut String, around: &Environment) -> Result<()> {
    for name in TABLES {
        let of_file = around.file.table(name);
        let of_environment = match name {
            "kafka-conf" => around.kafka_properties.as_slice(),
            "object-store" => around.store_options.as_slice(),
            _ => &[],
        };
        let is_of_environment = |key: &str| {
            of_environment.iter().any(|(said, value)| {
                said == key && !of_file.contains(&(said.clone(), value.clone()))
            })
        };
        let beaten = of_file.iter().filter(|(key, _)| !is_of_environment(key));
        let path = around.file.path.display().to_string();
        let mut rows: Vec<(&str, &str, &str)> =
            beaten.map(|(key, value)| (key.as_str(), value.as_str(), path.as_str())).collect();
        let of_environment = of_environment.iter().filter(|(key, _)| is_of_environment(key));
        rows.extend(of_environment.map(|(k, v)| (k.as_str(), v.as_str(), "the environment")));
        if rows.is_empty() {
            continue;
        }
        write!(text, "\n[{name}]\n")?;
        for (key, value, origin) in rows {
            let is_harmless = HARMLESS.iter().any(|word| key.contains(word)) && !is_secret(key);
            let value = if is_harmless { without_user(value) } else { STRUCK_OUT.to_owned() };
            let (key, value) = (toml_edit::value(key), toml_edit::value(value));
            let line = format!("{} = {}", key.to_string().trim(), value.to_string().trim());
            writeln!(text, "{line:ORIGIN_AT$} # {origin}")?;
        }
    }
    Ok(())
}

/// A file of all options as they are by themselves, each explained and none set.
fn example(root: &Command) -> Result<String> {
    let mut text = String::from(EXAMPLE_HEAD);
    for (words, options) in sections(root) {
        if let Some(command) = words.iter().try_fold(root, |command, word| {
            command.get_subcommands().find(|below| below.get_name() == *word)
        }) && !words.is_empty()
        {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            write!(text, "\n[{}]\n", words.join("."))?;
            comment(&mut text, &about)?;
        }
        for arg in options {
            let long = arg.get_long().unwrap_or_default();
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let help = help.replace("; may be repeated", "");
            text.push('\n');
            match arg.get_env().and_then(|name| name.to_str()) {
                Some(variable) => comment(&mut text, &format!("{help} ({variable})"))?,
                None => comment(&mut text, &help)?,
            }
            let line = line_of(long, &defaults_of(arg), arg);
            writeln!(text, "# {}", line.trim_start_matches("# "))?;
        }
    }
    text += EXAMPLE_TABLES;
    Ok(text.trim_end().to_owned())
}

/// What a file begins with.
const EXAMPLE_HEAD: &str = "\
# Options of `submit-job`, for the file tarmac.toml in the directory that it is started in, or for
# --config FILE. The command line beats the environment, which beats this file. What stands at the
# top is for all commands that have the option; the table of a command beats it there.
# What is not set here is as it says. `submit-job config show` says what is set, and by what.
#
# A file that holds secrets should be readable by its owner alone.
";

/// What a file ends with.
const EXAMPLE_TABLES: &str = "
# Settings of the engine, as --conf takes them
[conf]
# \"datafusion.execution.batch_size\" = 8192

# Properties of librdkafka, as --kafka-conf takes them, and secrets too
[kafka-conf]
# \"security.protocol\" = \"SASL_SSL\"

# Options of object stores, as the variables AWS_…, GOOGLE_… and AZURE_… have them, in lower case
[object-store]
# aws_region = \"eu-central-1\"
";

/// A text as lines of a comment.
fn comment(text: &mut String, words: &str) -> Result<()> {
    let mut line = String::from("#");
    for word in words.split_whitespace() {
        if line.len() + 1 + word.len() > COMMENT_COLUMNS {
            writeln!(text, "{line}")?;
            line = String::from("#");
        }
        write!(line, " {word}")?;
    }
    Ok(writeln!(text, "{line}")?)
}
