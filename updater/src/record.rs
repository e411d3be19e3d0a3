//! What the last runs did, for `status`: until the next boot, in files that everybody may read.
//!
//! A file for each kind of record, each replaced whole: runs at the same time cannot undo each other's
//! records, and nobody needs a lock. They hold no secrets. They lie apart from our other directory in
//! `/run`, which is a lock and so must not be opened by everybody.
//!
//! Nothing is decided by them: what can be wrong, lost or forged here is what is shown.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use protocol::esp::Slot;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::host::{Host, read_limited};

/// Where they are.
pub const DIRECTORY: &str = "/run/etchaos-updater";
/// They take some hundred bytes.
const FILE_MAX: u64 = 64 * 1024;
/// As much of an error's text as is kept.
const TEXT_MAX: usize = 4096;

/// One kind of record. Times are Unix seconds.
pub trait Record: Serialize + DeserializeOwned {
    /// The name of its file.
    const FILE: &'static str;
}

/// What the CDN said last, to `check` or `update`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poll {
    /// When.
    pub time: u64,
    /// What followed: the step of [`crate::plan`], as `check --json` has it.
    pub outcome: String,
    /// The version of the release that is offered.
    pub version: String,
    /// Its build.
    pub build: u64,
    /// The CDN that offers it, or its mirror, without credentials and query.
    pub cdn: String,
}

/// The last command that ended with an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When.
    pub time: u64,
    /// The command, such as `update`.
    pub command: String,
    /// What it said.
    pub error: String,
}

/// How healthy the running release was found to be by `health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthFound {
    /// When.
    pub time: u64,
    /// The slot that runs.
    pub slot: Slot,
    /// What is known.
    pub state: HealthState,
    /// What was not as it should be, a line each.
    pub problems: Vec<String>,
}

/// See [`HealthFound`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// Not everything is as it should be, and there is time left.
    Waiting,
    /// Everything is.
    Healthy,
    /// The time is over.
    Unhealthy,
}

/// A download that is going on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Download {
    /// When this was so.
    pub time: u64,
    /// `kernel` or `initrd`.
    pub role: String,
    /// Bytes that came.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What `verify` found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// When.
    pub time: u64,
    /// Whether slot a is whole; unknown, if it is empty.
    pub a: Option<bool>,
    /// The same of slot b.
    pub b: Option<bool>,
}

/// A reboot that is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Since when.
    pub time: u64,
    /// What for.
    pub why: String,
    /// When it is decided again; never, if somebody else has to reboot.
    pub next: Option<u64>,
}

impl Record for Poll {
    const FILE: &'static str = "poll.json";
}
impl Record for Failure {
    const FILE: &'static str = "error.json";
}
impl Record for HealthFound {
    const FILE: &'static str = "health.json";
}
impl Record for Download {
    const FILE: &'static str = "download.json";
}
impl Record for Checked {
    const FILE: &'static str = "verify.json";
}
impl Record for Waiting {
    const FILE: &'static str = "reboot.json";
}

impl Failure {
    /// An error, cut to what is worth keeping.
    pub fn new(time: u64, command: &str, error: &str) -> Self {
        let error = error.chars().take(TEXT_MAX).collect();
        Self { time, command: command.to_owned(), error }
    }
}

/// The record of a kind, if there is one that can be read.
pub fn read<R: Record>(host: &Host) -> Option<R> {
    let path = host.path(DIRECTORY).join(R::FILE);
    // Looked at first: opening a pipe would wait for ever.
    if !std::fs::symlink_metadata(&path).is_ok_and(|data| data.is_file()) {
        return None;
    }
    let bytes = read_limited(&path, FILE_MAX).ok().flatten()?;
    serde_json::from_slice(&bytes).ok()
}

/// Replaces the record of a kind. What cannot be recorded stops nobody.
pub fn write<R: Record>(host: &Host, record: &R) {
    let directory = host.path(DIRECTORY);
    // A tree that is no running system gets no records.
    if !host.path("/run").is_dir() {
        return;
    }
    let json = serde_json::to_vec(record).map_err(io::Error::other);
    let written = json.and_then(|json| {
        create_directory(&directory)?;
        replace(&directory.join(R::FILE), &json)
    });
    report(written, "record", &directory);
}

/// Removes the record of a kind, if there is one.
pub fn forget<R: Record>(host: &Host) {
    let path = host.path(DIRECTORY).join(R::FILE);
    let removed = match std::fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    report(removed, "remove", &path);
}

fn report(done: io::Result<()>, doing: &str, path: &Path) {
    match done {
        Ok(()) => {}
        // `check` may be run by anybody.
        Err(why) if why.kind() == io::ErrorKind::PermissionDenied => {}
        Err(why) => log::warn!("cannot {doing} {} for \"status\": {why}", path.display()),
    }
}

/// Makes a directory that everybody may look into, if it is not there.
pub(crate) fn create_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    // The umask of our units is strict.
    std::fs::set_permissions(directory, Permissions::from_mode(0o755))
}

/// Puts a file that everybody may read in the place of another one. Who reads sees the old one or the
/// new one. It does not promise that either is there after a power cut.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // Hidden, so that who collects `*.prom` does not take it.
    let new = path.with_file_name(format!(".{name}.{}", std::process::id()));
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&new)?;
    let written = file
        .set_permissions(Permissions::from_mode(0o644))
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        // The first error is the one to be told.
        let _ = std::fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host() -> (tempfile::TempDir, Host) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("run")).unwrap();
        let host = Host::new(directory.path());
        (directory, host)
    }

    fn poll(time: u64) -> Poll {
        let (outcome, version, cdn) = ("upToDate".into(), "13.1".into(), "https://x".into());
        Poll { time, outcome, version, build: 7, cdn }
    }

    #[test]
    fn records_are_replaced_read_and_forgotten() {
        let (directory, host) = host();
        assert_eq!(read::<Poll>(&host), None);
        forget::<Poll>(&host);
        for time in [1, 2] {
            write(&host, &poll(time));
            assert_eq!(read(&host), Some(poll(time)));
        }
        write(&host, &Failure::new(3, "update", &"x".repeat(100_000)));
        assert_eq!(read::<Failure>(&host).unwrap().error.len(), TEXT_MAX);
        let path = directory.path().join("run/etchaos-updater");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("poll.json"))), (0o755, 0o644));
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 2);
        forget::<Poll>(&host);
        assert_eq!(read::<Poll>(&host), None);
    }

    #[test]
    fn what_is_no_record_counts_as_none() {
        let (directory, host) = host();
        write(&host, &poll(1));
        let path = directory.path().join("run/etchaos-updater/poll.json");
        for bad in ["", "null", "[]", r#"{"time": -1}"#, &format!("\"{}\"", "x".repeat(100_000))] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(read::<Poll>(&host), None, "{bad:.40}");
        }
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read::<Poll>(&host), None);
        // A later version may say more.
        std::fs::remove_file(&path).unwrap();
        let mut json = serde_json::to_value(poll(1)).unwrap();
        json["more"] = 1.into();
        std::fs::write(&path, json.to_string()).unwrap();
        assert_eq!(read(&host), Some(poll(1)));
    }

    #[test]
    fn what_cannot_be_recorded_stops_nobody() {
        let (directory, host) = host();
        std::fs::write(directory.path().join("run/etchaos-updater"), "a file").unwrap();
        write(&host, &poll(1));
        forget::<Poll>(&host);
        assert_eq!(read::<Poll>(&host), None);
        // Where no system runs, nothing is left behind.
        let tree = tempfile::tempdir().unwrap();
        write(&Host::new(tree.path().join("x")), &poll(1));
        assert_eq!(std::fs::read_dir(tree.path()).unwrap().count(), 0);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (directory, host) = host();
            let path = directory.path().join("run/etchaos-updater");
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("health.json"), &bytes).unwrap();
            let _ = read::<HealthFound>(&host);
        }
    }
}
