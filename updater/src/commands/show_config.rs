//! The command `config`.

use anyhow::Result;

use super::context::Context;
use super::output::print;
use crate::cli::{Config, Exit, Global, Require};
use crate::clock::now;
use crate::config::Reboot;
use crate::esp::Access;
use crate::host::Host;
use crate::reboot::{CalendarError, Opening, opening};
use crate::record::{self, Failure};

pub(super) fn config(global: &Global, arguments: &Config) -> Result<Exit> {
    let context = Context::new(global, Access::Read)?;
    let is_set = match arguments.require {
        Some(Require::Cdn) => {
            !context.settings.cdn.is_empty() && context.merged.source_of_unknown_cdn().is_none()
        }
        Some(Require::Listen) => context.settings.listen.is_some(),
        None => {
            let rows = context.merged.rows();
            print(global, &context.merged.to_json(), || table(&rows))?;
            check_window(&context.settings.reboot)?;
            context.config_problem().is_none()
        }
    };
    if is_set {
        return Ok(Exit::Ok);
    }
    // systemd skips a unit whose ExecCondition exits with 1.
    let Some(problem) = context.config_problem() else { return Ok(Exit::Error) };
    let is_permanent = context.merged.is_permanently_broken();
    if arguments.require == Some(Require::Cdn) {
        // The update unit runs this first and fails with it.
        record::write(&Host::new(&global.host_root), &Failure::new(now(), "update", &problem));
    }
    Ok(exit_of_broken(arguments.require, is_permanent))
}

/// Returns the exit code of `config` if a value is unknown because a source that may have it is broken.
///
/// With `--require`, the exit code decides what systemd does with the unit: it skips the unit for
/// `Exit::Error`, and lets it fail for `Exit::Unknown`. A timer starts the unit of updates, so that unit may
/// fail. The unit of the listener is part of the boot, and a failed unit makes the boot unhealthy: a typing
/// error of an operator would roll back an update. Therefore the listener is skipped if the error is permanent,
/// and fails, to be started again, only if the error may pass, such as a disk that appears late.
pub(super) fn exit_of_broken(require: Option<Require>, is_permanent: bool) -> Exit {
    match require {
        Some(Require::Listen) if is_permanent => Exit::Error,
        Some(Require::Cdn | Require::Listen) => Exit::Unknown,
        None => Exit::Error,
    }
}

/// Returns an error if systemd rejects the reboot window. Only systemd can parse it, so the check is
/// skipped with a warning if systemd is not available, for example while an image is built.
fn check_window(policy: &Reboot) -> Result<()> {
    let Reboot::Window(window) = policy else { return Ok(()) };
    match opening(window, now()) {
        Err(CalendarError::Run(error)) => log::warn!("the reboot window is not checked: {error}"),
        Err(error) => return Err(error.into()),
        Ok(Opening::Never) => log::warn!("the reboot window never opens again"),
        Ok(Opening::Open | Opening::At(_)) => {}
    }
    Ok(())
}

fn table(rows: &[[String; 3]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let (key_width, value_width) = (width(0).unwrap_or(0), width(1).unwrap_or(0));
    let lines = rows.iter().map(|[key, value, source]| {
        format!("{key:key_width$}  {value:value_width$}  {source}").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}
