//! Writes the man pages and the shell completions to a directory:
//! `cargo run -p updater --example manual -- DIR`
//!
//! This is an example so that its dependencies are not part of the program on the hosts.

mod pages;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: manual DIR");
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
