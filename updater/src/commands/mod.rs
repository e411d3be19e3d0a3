//! The subcommands.

mod apply_delta;
mod confirm;
mod context;
mod data;
mod data_keys;
mod fallback;
mod gather;
mod health;
mod host_settings;
mod listen;
mod metrics_file;
mod output;
mod poll;
mod poll_result;
mod report;
mod rollback;
mod show_config;
mod sources;
mod started;
mod status;
mod verify;

use serde_json::json;

use self::output::print_or_warn;
use self::show_config::exit_of_broken;
use crate::cli::{Cli, Command, Exit, Require};
use crate::clock::now;
use crate::esp::EspError;
use crate::host::Host;
use crate::record::{self, Failure};
use crate::shell_server;

/// Runs the subcommand and reports its error.
pub fn run(cli: &Cli) -> Exit {
    let global = &cli.global;
    let result = match &cli.command {
        Command::Check => poll::check(global),
        Command::Update(arguments) => poll::update(global, arguments),
        Command::Status => status::status(global),
        Command::Verify => verify::verify(global),
        Command::Confirm => confirm::confirm(global),
        Command::Health(arguments) => health::health(global, arguments),
        Command::Rollback(arguments) => rollback::rollback(global, arguments),
        Command::Fallback(arguments) => fallback::fallback(global, arguments),
        Command::Started => started::started(global),
        Command::Data(arguments) => data::data(global, arguments),
        Command::HostSettings(arguments) => host_settings::host_settings(global, arguments),
        Command::Listen => listen::listen(global),
        Command::Sources(arguments) => sources::sources(global, arguments),
        Command::ShellChild => shell_server::child::run(),
        Command::Config(arguments) => show_config::config(global, arguments),
        Command::ApplyDelta(arguments) => apply_delta::apply_delta(arguments),
    };
    result.unwrap_or_else(|error| {
        let text = format!("{error:#}");
        log::error!("{text}");
        let name = recorded_as(&cli.command).filter(|_| !is_expected_busy(&cli.command, &error));
        if let Some(command) = name {
            let host = Host::new(&global.host_root);
            record::write(&host, &Failure::new(now(), command, &text));
            if matches!(&cli.command, Command::Check | Command::Update(_)) {
                metrics_file::after_error(global);
            }
        }
        if global.json {
            print_or_warn(global, &json!({"error": &text}), || text.clone());
        }
        match &cli.command {
            // The error is one of the ESP, or of a file that --config names.
            Command::Config(config) => exit_of_broken(config.require, false),
            _ => Exit::Error,
        }
    })
}

/// Returns the name under which `status` shows the errors of a command. Only commands that units run,
/// and that change something, are recorded.
fn recorded_as(command: &Command) -> Option<&'static str> {
    match command {
        Command::Check => Some("check"),
        Command::Update(update) => (!update.dry_run).then_some("update"),
        Command::Confirm => Some("confirm"),
        Command::Verify => Some("verify"),
        // The update unit runs this first and fails with it.
        Command::Config(config) if config.require == Some(Require::Cdn) => Some("update"),
        Command::Health(_) => Some("health"),
        Command::Rollback(_) => Some("rollback"),
        Command::Fallback(_) => Some("fallback"),
        Command::Started => Some("started"),
        Command::HostSettings(_) => Some("host-settings"),
        Command::Data(data) => data.keys.is_none().then_some("data"),
        Command::Sources(_) => Some("sources"),
        Command::Status
        | Command::Listen
        | Command::ShellChild
        | Command::ApplyDelta(_)
        | Command::Config(_) => None,
    }
}

/// Returns whether a command did nothing because another updater holds the lock, which records its own
/// errors. A confirmation waits for the lock, so its failure is always recorded.
fn is_expected_busy(command: &Command, error: &anyhow::Error) -> bool {
    let is_busy = matches!(error.downcast_ref(), Some(EspError::Busy(_)));
    is_busy && !matches!(command, Command::Confirm)
}
