//! Writes the metrics to the file of the configuration, for the textfile collector of node-exporter.

use super::context::Context;
use super::gather::gather;
use crate::cli::Global;
use crate::config::Settings;
use crate::esp::Access;
use crate::host_status::Status;
use crate::prometheus::text;
use crate::record::{create_directory, replace};

/// Replaces the file after a command that opened the ESP.
pub(super) fn refresh(global: &Global, context: &Context) {
    if context.settings.metrics.is_none() {
        return;
    }
    match gather(global, context) {
        Ok(status) => write(&context.settings, &status),
        Err(error) => log::warn!("no metrics are written: {error:#}"),
    }
}

/// Replaces the file after a command that failed, so that the metrics show the error, if the
/// configuration can be read.
pub(super) fn after_error(global: &Global) {
    if let Ok(context) = Context::new(global, Access::Read) {
        refresh(global, &context);
    }
}

/// Replaces the file and creates its directory if necessary. Errors are logged and not returned, because
/// the host works without metrics.
pub(super) fn write(settings: &Settings, status: &Status) {
    let Some(path) = &settings.metrics else { return };
    let directory = path.parent().map_or(Ok(()), create_directory);
    if let Err(error) = directory.and_then(|()| replace(path, text(status).as_bytes())) {
        log::warn!(
            "cannot write the metrics to {}: {error}; the systemd units of the updater may only write below /run",
            path.display()
        );
    }
}
