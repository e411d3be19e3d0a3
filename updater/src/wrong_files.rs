//! Files that a server had with the wrong content.
//!
//! Such a file is known to be wrong only after all of it was downloaded, so a host that tried again with each
//! poll would download hundreds of megabytes four times a day, for nothing. It is left alone for a time that
//! grows with each failure, until the manifest or the file on the server changes. Other mirrors are not
//! affected.
//!
//! The record is lost with a reboot, which costs one more download. Writing to the ESP for that would risk
//! more than it saves.

use std::time::Duration;

use protocol::Role;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::host::Host;
use crate::record::{self, Record};

/// The time until the second download. Polls are six hours apart.
const FIRST_DELAY: Duration = Duration::from_secs(12 * 3600);
/// The longest time until the next download.
const DELAY_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The number of versions that are remembered for each file.
const VERSIONS_MAX: usize = 4;
/// The number of files that are remembered: two for each of some mirrors.
const FILES_MAX: usize = 64;

/// A wrong file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WrongFile {
    /// What the file should be.
    pub role: Role,
    /// The URL, without its query.
    pub url: String,
    /// The digest that the manifest has.
    pub sha256: String,
    /// How many times the wrong file was downloaded.
    pub failures: u32,
    /// The time of the last download, in Unix seconds.
    pub time: u64,
    /// Digests of `ETag` and `Last-Modified` of the wrong file, the newest first. The servers behind an address
    /// may send different ones for the same file.
    pub versions: Vec<String>,
}

impl WrongFile {
    /// Returns when the file may be downloaded again, in Unix seconds.
    pub(crate) fn next(&self) -> u64 {
        let doubled = 1u32.checked_shl(self.failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.time.saturating_add(FIRST_DELAY.saturating_mul(doubled).min(DELAY_MAX).as_secs())
    }

    /// Returns how many times the wrong file was downloaded, as text.
    pub(crate) fn count(failures: u32) -> String {
        if failures == 1 { "once".to_owned() } else { format!("{failures} times") }
    }

    /// Returns the entry as `status --json` has it.
    pub(crate) fn to_json(&self) -> Value {
        let Self { role, url, sha256, failures, time, .. } = self;
        let next = self.next();
        json!({"role": role, "url": url, "sha256": sha256, "failures": failures, "time": time, "next": next})
    }

    /// Returns whether the file must not be downloaded yet. If the clock was set back, it may be.
    fn is_blocked(&self, now: u64) -> bool {
        (self.time..self.next()).contains(&now)
    }
}

/// The wrong files of the manifest that a CDN offers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WrongFiles {
    /// The digest of the manifest.
    manifest: String,
    /// The files.
    pub files: Vec<WrongFile>,
}

impl Record for WrongFiles {
    const FILE: &'static str = "wrong-files.json";
}

/// The wrong files, and the host whose record has them.
pub(crate) struct Memory {
    pub(crate) host: Host,
    pub(crate) files: WrongFiles,
}

impl WrongFiles {
    /// Reads the wrong files of a manifest, which is named by its digest. Forgets those of another one.
    pub(crate) fn read(host: &Host, manifest: &str) -> Self {
        let stored = record::read(host).filter(|stored: &Self| stored.manifest == manifest);
        stored.unwrap_or_else(|| Self { manifest: manifest.to_owned(), files: Vec::new() })
    }

    /// Writes the record, or removes it if no file is wrong.
    pub(crate) fn write(&self, host: &Host) {
        match self.files.is_empty() {
            true => record::remove::<Self>(host),
            false => record::write(host, self),
        }
    }

    /// Returns the files that must not be downloaded yet.
    pub(crate) fn all_blocked(&self, now: u64) -> impl Iterator<Item = &WrongFile> {
        self.files.iter().filter(move |file| file.is_blocked(now))
    }

    /// Returns the entry of a file that must not be downloaded yet.
    pub(crate) fn blocked(&self, url: &str, sha256: &str, now: u64) -> Option<&WrongFile> {
        self.find(url, sha256).filter(|file| file.is_blocked(now))
    }

    /// Adds a wrong file, or counts another failure of it.
    pub(crate) fn add(&mut self, file: WrongFile) {
        let earlier = self.find(&file.url, &file.sha256).cloned();
        let (failures, known) =
            earlier.map_or((0, Vec::new()), |earlier| (earlier.failures, earlier.versions));
        let mut versions = file.versions;
        versions.extend(known);
        versions.truncate(VERSIONS_MAX);
        self.remove(&file.url, &file.sha256);
        self.files.truncate(FILES_MAX - 1);
        let failures = failures.saturating_add(1);
        self.files.insert(0, WrongFile { failures, versions, ..file });
    }

    /// Forgets a file, because it is right or has changed.
    pub(crate) fn remove(&mut self, url: &str, sha256: &str) {
        self.files.retain(|file| file.url != url || file.sha256 != sha256);
    }

    fn find(&self, url: &str, sha256: &str) -> Option<&WrongFile> {
        self.files.iter().find(|file| file.url == url && file.sha256 == sha256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: u64 = 3600;

    fn file(url: &str, time: u64) -> WrongFile {
        let (url, sha256) = (url.to_owned(), "ab".repeat(32));
        WrongFile { role: Role::Initrd, url, sha256, failures: 0, time, versions: Vec::new() }
    }

    #[test]
    fn delay_grows_with_each_failure() {
        let mut files = WrongFiles::default();
        for hours in [12, 24, 48, 96, 168, 168] {
            files.add(file("u", 1000));
            assert_eq!(files.files.len(), 1);
            let next = 1000 + hours * HOUR;
            assert_eq!(files.files[0].next(), next);
            let is_blocked = |now| files.blocked("u", &"ab".repeat(32), now).is_some();
            assert!(is_blocked(1000) && is_blocked(next - 1) && !is_blocked(next));
            // The clock was set back, perhaps from far in the future.
            assert!(!is_blocked(999));
        }
    }

    #[test]
    fn remembers_the_last_versions() {
        let mut files = WrongFiles::default();
        for n in 0..9 {
            files.add(WrongFile { versions: vec![n.to_string()], ..file("u", 1000) });
        }
        assert_eq!(files.files[0].versions, ["8", "7", "6", "5"]);
    }

    #[test]
    fn concerns_one_file_of_one_server_and_manifest() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("run")).unwrap();
        let host = Host::new(directory.path());
        let mut files = WrongFiles::read(&host, "1");
        files.add(file("u", 1000));
        files.write(&host);
        let files = WrongFiles::read(&host, "1");
        let sha256 = "ab".repeat(32);
        assert!(files.blocked("u", &sha256, 1001).is_some());
        assert!(files.blocked("other", &sha256, 1001).is_none());
        assert!(files.blocked("u", "other", 1001).is_none());
        assert!(WrongFiles::read(&host, "2").files.is_empty());
        let mut files = files;
        files.remove("u", &sha256);
        files.write(&host);
        assert!(record::read::<WrongFiles>(&host).is_none());
    }

    proptest! {
        #[test]
        fn is_bounded(failures: u32, time: u64, now: u64, count in 0usize..200) {
            let file = WrongFile { failures, ..file("u", time) };
            let longest = time.saturating_add(DELAY_MAX.as_secs());
            prop_assert!(file.next() <= longest && (!file.is_blocked(now) || now < longest));
            let mut files = WrongFiles::default();
            for n in 0..count {
                files.add(WrongFile { url: n.to_string(), ..file.clone() });
            }
            prop_assert!(files.files.len() <= FILES_MAX);
        }
    }
}
