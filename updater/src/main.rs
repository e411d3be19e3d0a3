//! The program `etchaos-updater`. The library crate documents how it works, and `--help` how to use it.

use std::process::ExitCode;

use clap::Parser;
use updater::{cli::Cli, commands, interrupt, journal};

fn main() -> ExitCode {
    let cli = Cli::parse();
    journal::init(cli.is_verbose());
    let exit = commands::run(&cli);
    // Ends the process if a signal was received. Everything is flushed and unmounted by now.
    interrupt::end_by_signal();
    exit.into()
}
