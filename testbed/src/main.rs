//! The binary `testbed`: see its `--help`.

use std::process::ExitCode;

use clap::Parser;
use testbed::ExitError;
use testbed::cancel::Cancel;
use testbed::cli::Cli;
use testbed::commands;
use testbed::signals::Signals;

fn main() -> ExitCode {
    let cli = Cli::parse();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let cancel = Cancel::default();
    let signals = match Signals::install(cancel.clone()) {
        Ok(signals) => signals,
        Err(error) => {
            log::warn!("cannot handle signals, so Ctrl-C does not clean up: {error}");
            Signals::default()
        }
    };
    match commands::dispatch(cli, cancel) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = error.to_string();
            if !text.is_empty() {
                eprintln!("error: {text}");
            }
            let own = error.downcast_ref::<ExitError>().map(|error| error.code);
            signals.exit_code().or(own).map_or(ExitCode::FAILURE, ExitCode::from)
        }
    }
}
