//! The binary `testbed`: see its `--help`.

use std::process::ExitCode;

use clap::Parser;
use testbed::cli::Cli;
use testbed::commands;
use testbed::guest::Cancel;

fn main() -> ExitCode {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let cancel = Cancel::default();
    let wish = cancel.clone();
    if let Err(error) = ctrlc::set_handler(move || wish.cancel()) {
        log::warn!("Ctrl-C will not clean up: {error}");
    }
    match commands::dispatch(cli, cancel) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
