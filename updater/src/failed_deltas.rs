//! Deltas that failed on this host, which are not tried again.
//!
//! A delta has the same content wherever it comes from, because its digest is in the manifest. So it fails again
//! as long as the host has the same file to apply it to.
//!
//! The record is lost with a reboot, which costs one more download of a delta.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::host::Host;
use crate::record::{self, Record};

/// The number of deltas that are remembered. A release has two for a host.
const DELTAS_MAX: usize = 16;
/// The number of attempts after which a delta is not tried again, if the process was terminated in each of them. The
/// kernel kills a process that takes too much memory; a single termination may have another cause.
const ENDS_MAX: u32 = 2;
/// How many characters of a reason are kept.
const REASON_MAX: usize = 512;

/// The attempts to apply a delta.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Attempts {
    /// The SHA-256 of the delta.
    sha256: String,
    /// The number of attempts that began and have no result.
    unfinished: u32,
    /// Why the delta failed.
    reason: Option<String>,
}

impl Attempts {
    /// Returns why the delta is not tried again, or `None` if it may be tried.
    fn blocked(&self) -> Option<String> {
        let ended = self.unfinished >= ENDS_MAX;
        let ended = ended.then(|| format!("{ENDS_MAX} updates were terminated while applying it"));
        self.reason.clone().or(ended)
    }
}

/// The deltas that failed, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FailedDeltas {
    deltas: Vec<Attempts>,
}

impl Record for FailedDeltas {
    const FILE: &'static str = "failed-deltas.json";
}

impl FailedDeltas {
    /// Reads the record of a host.
    pub(crate) fn read(host: &Host) -> Self {
        record::read(host).unwrap_or_default()
    }

    /// Returns why a delta is not tried again, or `None` if it may be tried.
    pub(crate) fn reason(&self, sha256: &str) -> Option<String> {
        self.deltas.iter().find(|attempts| attempts.sha256 == sha256)?.blocked()
    }

    /// Returns the deltas that are not tried again, as `status --json` has them.
    pub(crate) fn to_json(&self) -> Vec<Value> {
        let shown = |(sha256, reason)| json!({"sha256": sha256, "reason": reason});
        self.all().map(shown).collect()
    }

    /// Returns the SHA-256 of each delta that is not tried again, and the reason.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, String)> {
        self.deltas.iter().filter_map(|it| Some((it.sha256.as_str(), it.blocked()?)))
    }

    fn remove(&mut self, sha256: &str) -> Option<Attempts> {
        let index = self.deltas.iter().position(|attempts| attempts.sha256 == sha256)?;
        Some(self.deltas.remove(index))
    }

    fn add(&mut self, attempts: Attempts) {
        self.deltas.truncate(DELTAS_MAX - 1);
        self.deltas.insert(0, attempts);
    }
}

/// Records that an attempt to apply a delta begins.
pub(crate) fn begin(host: &Host, sha256: &str) {
    let mut failed = FailedDeltas::read(host);
    let unfinished = failed.remove(sha256).map_or(0, |attempts| attempts.unfinished);
    let unfinished = unfinished.saturating_add(1);
    failed.add(Attempts { sha256: sha256.to_owned(), unfinished, reason: None });
    record::write(host, &failed);
}

/// Records the result of the attempt that began: why the delta failed, or `None` if the delta is not at fault.
pub(crate) fn end(host: &Host, sha256: &str, reason: Option<&str>) {
    let mut failed = FailedDeltas::read(host);
    failed.remove(sha256);
    if let Some(reason) = reason {
        let reason = Some(reason.chars().take(REASON_MAX).collect());
        failed.add(Attempts { sha256: sha256.to_owned(), unfinished: 0, reason });
    }
    match failed.deltas.is_empty() {
        true => record::remove::<FailedDeltas>(host),
        false => record::write(host, &failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> (tempfile::TempDir, Host) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("run")).unwrap();
        let host = Host::new(directory.path());
        (directory, host)
    }

    fn reason(host: &Host, sha256: &str) -> Option<String> {
        FailedDeltas::read(host).reason(sha256)
    }

    #[test]
    fn remembers_why_a_delta_failed() {
        let (_directory, host) = host();
        begin(&host, "a");
        end(&host, "a", Some(&"x".repeat(9999)));
        assert_eq!(reason(&host, "a").unwrap().len(), REASON_MAX);
        assert_eq!(reason(&host, "b"), None);
        record::remove::<FailedDeltas>(&host);
        assert_eq!(reason(&host, "a"), None);
    }

    #[test]
    fn a_delta_that_ends_the_process_is_not_tried_a_third_time() {
        let (_directory, host) = host();
        begin(&host, "a");
        assert_eq!(reason(&host, "a"), None);
        begin(&host, "a");
        assert!(reason(&host, "a").unwrap().contains("2 updates were terminated"));
        // An attempt without a failure of the delta does not count.
        end(&host, "a", None);
        begin(&host, "a");
        assert_eq!(reason(&host, "a"), None);
        end(&host, "a", None);
        assert_eq!(FailedDeltas::read(&host), FailedDeltas::default());
    }

    #[test]
    fn is_bounded() {
        let (_directory, host) = host();
        for index in 0..100 {
            end(&host, &index.to_string(), Some("x"));
        }
        assert_eq!(FailedDeltas::read(&host).deltas.len(), DELTAS_MAX);
        assert!(reason(&host, "99").is_some() && reason(&host, "0").is_none());
    }
}
