//! Builds, tests and publishes EtchaOS; see [`stages::run`].

mod cdn;
mod cli;
mod command;
mod download;
mod host;
mod image;
#[cfg(test)]
#[path = "../tests/judge/mod.rs"]
mod judge;
mod log_file;
mod progress;
mod sandbox;
mod signing;
mod stages;
mod summary;
mod updater_binary;
mod variant;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
