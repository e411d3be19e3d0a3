//! Records of the last runs, which `status` shows. They are kept until the next boot, in files that every
//! user may read.
//!
//! Each kind of record has its own file, which is replaced as a whole, so that concurrent runs need no lock.
//! Records contain no secrets. They are not in `/run/etchaos`, which also serves as a lock and therefore
//! must not be accessible to every user.
//!
//! Records are only shown; no decision depends on them. There are three exceptions: that of [`crate::wrong_files`]
//! can delay a download, that of [`crate::failed_deltas`] keeps a delta from being used, and that of
//! [`crate::sources`] says when a source is due and whether it failed.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use protocol::esp::Slot;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::host::{Host, read_limited};

/// The directory of the records.
pub(crate) const DIRECTORY: &str = "/run/etchaos-updater";
/// The limit on the size of a record. Most have some hundred bytes, and that of the sources up to 8 KiB for each.
const FILE_MAX: u64 = 1024 * 1024;
/// How many characters of an error message are kept.
const TEXT_MAX: usize = 4096;

/// One kind of record. Times are Unix seconds.
pub(crate) trait Record: Serialize + DeserializeOwned {
    /// The name of the file.
    const FILE: &'static str;
}

/// The result of the last poll of the CDN by `check` or `update`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Poll {
    /// The time of the event.
    pub time: u64,
    /// The resulting step of [`crate::plan`], named as in `check --json`.
    pub outcome: String,
    /// The version of the offered release.
    pub version: String,
    /// The build of the offered release.
    pub build: u64,
    /// The URL of the CDN or mirror, without credentials and query.
    pub cdn: String,
}

/// The last command that ended with an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// The time of the event.
    pub time: u64,
    /// The command, such as `update`.
    pub command: String,
    /// The message.
    pub error: String,
}

/// The last result of `health` for the running release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HealthResult {
    /// The time of the event.
    pub time: u64,
    /// The running slot.
    pub slot: Slot,
    /// The result.
    pub state: HealthState,
    /// The problems, one line each.
    pub problems: Vec<String>,
}

/// The health of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HealthState {
    /// There are problems, and the deadline has not passed.
    Waiting,
    /// There are no problems.
    Healthy,
    /// There are problems, and the deadline has passed.
    Unhealthy,
}

/// A running download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Download {
    /// The time of this record.
    pub time: u64,
    /// `kernel` or `initrd`.
    pub role: String,
    /// The number of bytes received.
    pub done: u64,
    /// The total number of bytes.
    pub total: u64,
}

/// The last result of `verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checked {
    /// The time of the event.
    pub time: u64,
    /// Whether slot a is undamaged; `None` if it is empty or partial.
    pub a: Option<bool>,
    /// Whether slot b is undamaged; `None` if it is empty or partial.
    pub b: Option<bool>,
}

/// A reboot that was postponed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Waiting {
    /// The time of the decision.
    pub time: u64,
    /// The reason.
    #[serde(rename = "why")]
    pub reason: String,
    /// When the next decision is due; `None` if the operator has to reboot.
    pub next: Option<u64>,
}

/// The server for pushes, when it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listening {
    /// The time of the event.
    pub time: u64,
    /// The address and the port.
    pub address: String,
    /// The SHA-256 of the certificate; `None` without TLS.
    pub certificate: Option<String>,
    /// The SHA-256 of its public key in curl's form; `None` without TLS.
    pub public_key: Option<String>,
}

/// The data partition after the last `data`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DataResult {
    /// The time of the event.
    pub time: u64,
    /// Whether the partition is mounted.
    pub mounted: bool,
    /// The node of its device.
    pub device: Option<String>,
    /// Its file system.
    pub file_system: Option<String>,
    /// Whether it is encrypted, if it is mounted.
    pub encrypted: Option<bool>,
    /// Whether a recovery key unlocks it, if it is encrypted.
    pub recovery_key: Option<bool>,
    /// Why it is not mounted, or what else did not work.
    pub problems: Vec<String>,
}

impl Record for Poll {
    const FILE: &'static str = "poll.json";
}
impl Record for Failure {
    const FILE: &'static str = "error.json";
}
impl Record for HealthResult {
    const FILE: &'static str = "health.json";
}
impl Record for Download {
    const FILE: &'static str = "download.json";
}
impl Record for Checked {
    const FILE: &'static str = "verify.json";
}
impl Record for DataResult {
    const FILE: &'static str = "data.json";
}
impl Record for Waiting {
    const FILE: &'static str = "reboot.json";
}
impl Record for Listening {
    const FILE: &'static str = "listen.json";
}

impl Failure {
    /// Creates a record of an error, with its text cut to [`TEXT_MAX`] characters.
    pub(crate) fn new(time: u64, command: &str, error: &str) -> Self {
        let error = error.chars().take(TEXT_MAX).collect();
        Self { time, command: command.to_owned(), error }
    }
}

/// Reads the record of a kind. Returns `None` if there is none or it cannot be read.
pub(crate) fn read<R: Record>(host: &Host) -> Option<R> {
    let path = host.path(DIRECTORY).join(R::FILE);
    // Opening a named pipe would block.
    if !std::fs::symlink_metadata(&path).is_ok_and(|data| data.is_file()) {
        return None;
    }
    let bytes = read_limited(&path, FILE_MAX).ok().flatten()?;
    serde_json::from_slice(&bytes).ok()
}

/// Replaces the record of a kind. Errors are logged and not returned.
pub(crate) fn write<R: Record>(host: &Host, record: &R) {
    let directory = host.path(DIRECTORY);
    // A directory tree that is not a running system gets no records.
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
pub(crate) fn remove<R: Record>(host: &Host) {
    let path = host.path(DIRECTORY).join(R::FILE);
    let removed = match std::fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    report(removed, "remove", &path);
}

fn report(result: io::Result<()>, operation: &str, path: &Path) {
    match result {
        Ok(()) => {}
        // Every user may run `check`, but only root may write records.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) => log::warn!("cannot {operation} {} for \"status\": {error}", path.display()),
    }
}

/// Creates a directory that every user may read, if it does not exist.
pub(crate) fn create_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    // The units of the updater have a strict umask.
    std::fs::set_permissions(directory, Permissions::from_mode(0o755))
}

/// Replaces a file atomically with one that every user may read. The new file is not flushed, so neither
/// file may exist after a power cut.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // The name is hidden, so that a collector of `*.prom` does not read the temporary file.
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
        // The error that is reported is the first one.
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
    fn replaces_reads_and_removes_records() {
        let (directory, host) = host();
        assert_eq!(read::<Poll>(&host), None);
        remove::<Poll>(&host);
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
        remove::<Poll>(&host);
        assert_eq!(read::<Poll>(&host), None);
    }

    #[test]
    fn ignores_invalid_records() {
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
        // A record that a later version wrote may have more keys.
        std::fs::remove_file(&path).unwrap();
        let mut json = serde_json::to_value(poll(1)).unwrap();
        json["more"] = 1.into();
        std::fs::write(&path, json.to_string()).unwrap();
        assert_eq!(read(&host), Some(poll(1)));
    }

    #[test]
    fn ignores_write_errors() {
        let (directory, host) = host();
        std::fs::write(directory.path().join("run/etchaos-updater"), "a file").unwrap();
        write(&host, &poll(1));
        remove::<Poll>(&host);
        assert_eq!(read::<Poll>(&host), None);
        // No directory is created if there is no /run.
        let tree = tempfile::tempdir().unwrap();
        write(&Host::new(tree.path().join("x")), &poll(1));
        assert_eq!(std::fs::read_dir(tree.path()).unwrap().count(), 0);
    }

    proptest! {
        #[test]
        fn reads_arbitrary_bytes_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (directory, host) = host();
            let path = directory.path().join("run/etchaos-updater");
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("health.json"), &bytes).unwrap();
            let _ = read::<HealthResult>(&host);
        }
    }
}
