//! Writes the man pages and the shells' completions into a directory:
//! `cargo run -p updater --example manual -- DIR`
//!
//! An example, so that what makes them is not in the program that hosts run.

mod pages;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("expected the directory to write to");
        return ExitCode::from(2);
    };
    match pages::write(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write the manual to {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}
