//! `etchaos-updater`: see the library for how it works, and `--help` for what it does.

use std::process::ExitCode;

use clap::Parser;
use updater::{cli::Cli, commands, journal};

fn main() -> ExitCode {
    let cli = Cli::parse();
    journal::init();
    commands::run(&cli).into()
}
