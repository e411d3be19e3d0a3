//! The command `status`.

use anyhow::Result;

use super::context::Context;
use super::gather::{gather, without_esp};
use super::metrics_file;
use super::output::print;
use crate::cli::{Exit, Global};
use crate::config::ConfigError;
use crate::esp::{Access, EspError};

pub(super) fn status(global: &Global) -> Result<Exit> {
    let (status, exit) = match Context::new(global, Access::Read) {
        Ok(context) => {
            let status = gather(global, &context)?;
            metrics_file::write(&context.settings, &status);
            (status, if context.config_problem().is_some() { Exit::Error } else { Exit::Ok })
        }
        // Other users than root get what can be read without the ESP.
        Err(error) if needs_root(&error) => (without_esp(global, format!("{error:#}"))?, Exit::Ok),
        // With a missing or broken file of --config, or an unknown boot disk, the slots cannot be read, but the
        // rest can be shown.
        Err(error) if error.is::<ConfigError>() || is_without_disk(&error) => {
            log::error!("{error:#}");
            (without_esp(global, format!("{error:#}"))?, Exit::Error)
        }
        Err(error) => return Err(error),
    };
    print(global, &status.to_json(), || status.table())?;
    Ok(exit)
}

/// Returns whether the disk that was booted is missing, or cannot be told from a copy.
fn is_without_disk(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(EspError::Disk(_)))
}

fn needs_root(error: &anyhow::Error) -> bool {
    let of_esp = |error: &EspError| matches!(error, EspError::NotRoot(_));
    error.downcast_ref::<EspError>().is_some_and(of_esp)
        || matches!(error.downcast_ref(), Some(ConfigError::NotRoot { .. }))
}
