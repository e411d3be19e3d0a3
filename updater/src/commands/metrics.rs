//! The textfile for node-exporter, if the operator asked for one.

use super::{Opened, status};
use crate::cli::Global;
use crate::config::Settings;
use crate::metrics::text;
use crate::record::replace;
use crate::status::Status;

/// Replaces it after a command that opened the ESP.
pub(super) fn refresh(global: &Global, opened: &Opened) {
    if opened.settings.metrics.is_none() {
        return;
    }
    match status::gather(global, opened) {
        Ok(status) => write(&opened.settings, &status),
        Err(error) => log::warn!("no metrics are written: {error:#}"),
    }
}

/// Replaces it. A host without metrics is still a host.
pub(super) fn write(settings: &Settings, status: &Status) {
    let Some(path) = &settings.metrics else { return };
    if let Err(why) = replace(path, text(status).as_bytes()) {
        log::warn!("cannot write the metrics to {}: {why}; is there the folder?", path.display());
    }
}
