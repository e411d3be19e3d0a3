//! A host's status for Prometheus, in the format of node-exporter's textfile collector.

use std::fmt::Write;

use protocol::esp::Slot;

use crate::record::HealthState;
use crate::status::{Records, Status};

/// The text of the file: what is not known is left out.
pub fn text(status: &Status) -> String {
    let mut metrics = Metrics::default();
    let Records { poll, error, health, checked, .. } = &status.records;
    let disk = status.disk.as_ref().ok();

    let release = status.release();
    let version = release.map(|r| r.version.as_str()).or(status.image.as_deref());
    let labels = [
        ("version", version.unwrap_or_default().to_owned()),
        ("build", release.map(|r| r.build.to_string()).unwrap_or_default()),
        ("slot", status.running.map(|slot| slot.to_string()).unwrap_or_default()),
        ("updater", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    metrics.gauge("info", "The release that runs.", [(labels.as_slice(), 1)]);
    metrics.value("written_timestamp_seconds", "When this was written.", Some(status.now));
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
        "Whether the last poll found something to install, or to reboot into.",
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
        "How often the boot loader will still try the release on trial; none is on trial, if absent.",
        disk.and_then(|disk| disk.boot.trial).map(|trial| trial.tries.into()),
    );
    metrics.value(
        "failed_release",
        "Whether a release failed its trial and is not tried again.",
        disk.map(|disk| disk.failed(status.running).is_some().into()),
    );
    let of = |slot: Slot| [("slot", slot.to_string())];
    let (a, b) = (of(Slot::A), of(Slot::B));
    let whole = checked.iter().flat_map(|checked| [(&a, checked.a), (&b, checked.b)]);
    let whole = whole.filter_map(|(slot, whole)| Some((slot.as_slice(), u64::from(whole?))));
    metrics.gauge("slot_whole", "Whether the slot was whole when it was last verified.", whole);
    metrics.value(
        "verified_timestamp_seconds",
        "When the slots were last verified.",
        checked.as_ref().map(|checked| checked.time),
    );
    metrics.0
}

/// Whether a step is about something to install, or to reboot into. What an update has to wait with is
/// not available, and what it calls off even less. A record may be of an updater with other steps.
fn is_available(outcome: &str) -> Option<bool> {
    match outcome {
        "install" | "activate" | "repair" | "pending" | "notTried" | "return" => Some(true),
        "upToDate" | "unconfirmed" | "failedBefore" | "downgrade" | "withdraw" => Some(false),
        _ => None,
    }
}

#[derive(Default)]
struct Metrics(String);

/// A sample's labels, and its value.
type Sample<'a> = (&'a [(&'a str, String)], u64);

impl Metrics {
    fn value(&mut self, name: &str, help: &str, value: Option<u64>) {
        self.gauge(name, help, value.map(|value| (&[][..], value)));
    }

    /// All samples of a metric, which have to come together. None, and it is not named.
    fn gauge<'a>(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = Sample<'a>>) {
        for (index, (labels, value)) in samples.into_iter().enumerate() {
            let mut line = String::new();
            if index == 0 {
                line = format!("# HELP etchaos_{name} {help}\n# TYPE etchaos_{name} gauge\n");
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

/// As the format wants a label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests;
