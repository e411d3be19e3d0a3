//! The binary `builder`: see its `--help`.

use std::process::ExitCode;

use builder::cli::Cli;
use clap::Parser;

/// What shells say of a program that Ctrl-C ended: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    // Nothing to clean up: processes, mounts and containers end with this one by the kernel's doing.
    // The handler is there for who starts it with SIGINT ignored, as shells do in the background.
    let told = ctrlc::set_handler(|| {
        eprintln!("\ninterrupted");
        std::process::exit(INTERRUPTED);
    });
    if let Err(error) = told {
        eprintln!("warning: Ctrl-C may not end this program: {error}");
    }
    match Cli::parse().run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
