//! The command `builder`; see `builder --help`.

use std::process::ExitCode;

use builder::cli::{self, Cli};
use builder::output::{self, BROKEN_PIPE_EXIT};
use builder::{environment, progress, signals};
use clap::Parser;

fn main() -> ExitCode {
    environment::fix_umask();
    if let Err(error) = signals::exit_on_signals() {
        progress::message(&format!("warning: Ctrl-C may not end this program: {error:#}"));
    }
    match Cli::parse().run() {
        Ok(code) => ExitCode::from(code),
        Err(error) if output::is_closed(&error) => ExitCode::from(BROKEN_PIPE_EXIT),
        Err(error) => {
            cli::report(&error);
            ExitCode::FAILURE
        }
    }
}
