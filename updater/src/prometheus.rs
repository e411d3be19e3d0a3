//! Formats the status of the host as Prometheus metrics, for the textfile collector of node-exporter.

use std::fmt::Write;

use protocol::esp::Slot;

use crate::host_status::{Records, Status};
use crate::install::FileOrigin;
use crate::record::HealthState;
use crate::traffic::Traffic;

/// Returns the metrics as text. Omits unknown values.
pub(crate) fn text(status: &Status) -> String {
    let mut metrics = Metrics::default();
    let Records { poll, error, health, checked, data, .. } = &status.records;
    let disk = status.disk.as_ref().ok();

    let release = status.release();
    let version = release.map(|r| r.version.as_str()).or(status.image.as_deref());
    let labels = [
        ("version", version.unwrap_or_default().to_owned()),
        ("build", release.map(|r| r.build.to_string()).unwrap_or_default()),
        ("slot", status.running.map(|slot| slot.to_string()).unwrap_or_default()),
        ("updater", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    metrics.gauge("info", "The running release.", [(labels.as_slice(), 1)]);
    metrics.value(
        "written_timestamp_seconds",
        "When these metrics were written.",
        Some(status.now),
    );
    metrics.value(
        "last_poll_timestamp_seconds",
        "When a CDN last offered a release that verified.",
        poll.as_ref().map(|poll| poll.time),
    );
    metrics.value(
        "last_error_timestamp_seconds",
        "When a command last ended with an error.",
        error.as_ref().map(|error| error.time),
    );
    metrics.value(
        "update_available",
        "Whether the last poll found a release to install or to reboot into.",
        poll.as_ref().and_then(|poll| is_available(&poll.outcome)).map(u64::from),
    );
    metrics.value(
        "reboot_outstanding",
        "Whether a release is installed and waits for a reboot.",
        disk.map(|disk| disk.pending(status.running).is_some().into()),
    );
    metrics.value(
        "confirmed",
        "Whether the running release is confirmed.",
        status.is_confirmed().map(u64::from),
    );
    metrics.value(
        "healthy",
        "Whether the running release was last found healthy.",
        health.as_ref().map(|health| (health.state == HealthState::Healthy).into()),
    );
    metrics.value(
        "trial_tries_left",
        "How many tries the release on trial has left; absent if no release is on trial.",
        disk.and_then(|disk| disk.boot.trial).map(|trial| trial.tries.into()),
    );
    metrics.value(
        "failed_release",
        "Whether a release failed its trial or was rolled back and is not installed again.",
        disk.map(|disk| disk.failed(status.running).is_some().into()),
    );
    let of = |slot: Slot| [("slot", slot.to_string())];
    let (a, b) = (of(Slot::A), of(Slot::B));
    let complete = checked.iter().flat_map(|checked| [(&a, checked.a), (&b, checked.b)]);
    let complete =
        complete.filter_map(|(slot, is_complete)| Some((slot.as_slice(), u64::from(is_complete?))));
    metrics.gauge(
        "slot_whole",
        "Whether the slot was complete when it was last verified.",
        complete,
    );
    add_transfers(&mut metrics, status);
    metrics.value(
        "verified_timestamp_seconds",
        "When the slots were last verified.",
        checked.as_ref().map(|checked| checked.time),
    );
    metrics.value(
        "data_mounted",
        "Whether the data partition is mounted; absent if none is configured.",
        data.as_ref().map(|data| data.mounted.into()),
    );
    metrics.value(
        "config_broken",
        "Whether a source of the configuration is broken.",
        status.policy.as_ref().map(|_| status.problem.is_some().into()),
    );
    metrics.0
}

/// Adds what updates have fetched and saved.
fn add_transfers(metrics: &mut Metrics, status: &Status) {
    let files =
        status.disk.iter().flat_map(|disk| Slot::ALL.map(|slot| (slot, disk.origins(slot))));
    let files: Vec<_> = files
        .flat_map(|(slot, origins)| origins.iter().map(move |origin| fetched(slot, origin)))
        .collect();
    metrics.gauge(
        "slot_fetched_bytes",
        "Bytes fetched for a file of the slot, by how the file was obtained.",
        files.iter().map(|(labels, bytes)| (labels.as_slice(), *bytes)),
    );
    let Traffic { fetched, saved_by_copy, saved_by_delta } = status.records.traffic;
    let (copy, delta) = ([("by", "copy".to_owned())], [("by", "delta".to_owned())]);
    metrics.counter(
        "fetched_bytes_total",
        "Bytes of kernels, initrds and deltas that updates have fetched since the boot.",
        [(&[][..], fetched)],
    );
    metrics.counter(
        "saved_bytes_total",
        "Bytes that updates did not have to fetch since the boot.",
        [(&copy[..], saved_by_copy), (&delta[..], saved_by_delta)],
    );
}

/// Returns the labels and the bytes of a file of a slot.
fn fetched(slot: Slot, origin: &FileOrigin) -> ([(&'static str, String); 3], u64) {
    let FileOrigin { role, way, bytes, .. } = origin;
    let labels =
        [("slot", slot.to_string()), ("role", role.to_string()), ("from", way.name().to_owned())];
    (labels, *bytes)
}

/// Returns whether the outcome of a poll means that there is a release to install or to reboot into. A
/// release that has to wait or is withdrawn is not available. Returns `None` for an unknown outcome, which
/// another version of the updater recorded.
fn is_available(outcome: &str) -> Option<bool> {
    match outcome {
        "install" | "activate" | "repair" | "pending" | "notTried" | "return" => Some(true),
        "upToDate" | "unconfirmed" | "failedBefore" | "downgrade" | "withdraw" => Some(false),
        _ => None,
    }
}

#[derive(Default)]
struct Metrics(String);

/// The labels of a sample, and its value.
type Sample<'a> = (&'a [(&'a str, String)], u64);

impl Metrics {
    fn value(&mut self, name: &str, help: &str, value: Option<u64>) {
        self.gauge(name, help, value.map(|value| (&[][..], value)));
    }

    fn gauge<'a>(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = Sample<'a>>) {
        self.add("gauge", name, help, samples);
    }

    fn counter<'a>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<'a>>,
    ) {
        self.add("counter", name, help, samples);
    }

    /// Adds all samples of a metric, with its help and type. Adds nothing if there are no samples.
    fn add<'a>(
        &mut self,
        kind: &str,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = Sample<'a>>,
    ) {
        for (index, (labels, value)) in samples.into_iter().enumerate() {
            let mut line = String::new();
            if index == 0 {
                line = format!("# HELP etchaos_{name} {help}\n# TYPE etchaos_{name} {kind}\n");
            }
            line.push_str(&format!("etchaos_{name}"));
            for (index, (label, text)) in labels.iter().enumerate() {
                let before = if index == 0 { '{' } else { ',' };
                // Writing into a String cannot fail.
                let _ = write!(line, "{before}{label}=\"{}\"", escaped(text));
            }
            let end = if labels.is_empty() { "" } else { "}" };
            self.0.push_str(&format!("{line}{end} {value}\n"));
        }
    }
}

/// Escapes the value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests;
