//! `etchaos-updater`: see the library for how it works, and `--help` for what it does.

use std::process::ExitCode;

use clap::Parser;
use updater::{cli::Cli, commands, interrupt, journal};

fn main() -> ExitCode {
    let cli = Cli::parse();
    journal::init(cli.global.verbose);
    let exit = commands::run(&cli);
    // After everything was flushed and unmounted.
    interrupt::end();
    exit.into()
}
