//! The textfile for node-exporter, if the operator asked for one.

use super::context::Context;
use super::status;
use crate::cli::Global;
use crate::config::Settings;
use crate::esp::Access;
use crate::metrics::text;
use crate::record::{create_directory, replace};
use crate::status::Status;

/// Replaces it after a command that context the ESP.
pub(super) fn refresh(global: &Global, context: &Context) {
    if context.settings.metrics.is_none() {
        return;
    }
    match status::gather(global, context) {
        Ok(status) => write(&context.settings, &status),
        Err(error) => log::warn!("no metrics are written: {error:#}"),
    }
}

/// Replaces it after a command that failed, if the configuration says where it is: who watches it has to
/// see the error.
pub(super) fn after_error(global: &Global) {
    if let Ok(context) = Context::new(global, Access::Read) {
        refresh(global, &context);
    }
}

/// Replaces it, and makes its directory. A host without metrics is still a host.
pub(super) fn write(settings: &Settings, status: &Status) {
    let Some(path) = &settings.metrics else { return };
    let directory = path.parent().map_or(Ok(()), create_directory);
    if let Err(why) = directory.and_then(|()| replace(path, text(status).as_bytes())) {
        log::warn!(
            "cannot write the metrics to {}: {why}; our units may write below /run only",
            path.display()
        );
    }
}
