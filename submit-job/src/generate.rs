//! `submit-job completions` and `submit-job man`: what shells and `man` know of the command line.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_complete::Shell;

use crate::progress::print;

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell that reads it
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Directory that the pages are written into, one for each command; it is made
    pub directory: PathBuf,
}

/// Prints a script that completes commands and options in a shell.
pub fn run_completions(args: &Completions, mut command: Command) -> Result<()> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    print(String::from_utf8(script)?.trim_end())
}

/// Writes the pages for `man`.
pub fn run_man(args: &Man, command: Command) -> Result<()> {
    let place = || format!("cannot write to {}", args.directory.display());
    std::fs::create_dir_all(&args.directory).with_context(place)?;
    clap_mangen::generate_to(command, &args.directory).with_context(place)
}
