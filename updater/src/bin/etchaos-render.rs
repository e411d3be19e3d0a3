//! The program `etchaos-render`, which renders a Pattern for `etchaos-updater`.

use std::process::ExitCode;

use updater::jsonnet::child;

fn main() -> ExitCode {
    match child::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("etchaos-render: {error:#}");
            ExitCode::FAILURE
        }
    }
}
