//! Keeps the journal on the data partition.
//!
//! journald stores the journal in a directory that is named by the machine ID, and each boot has another machine
//! ID. The same directory of the data partition is therefore mounted at this path: journald then finds, shows
//! and limits the journals of all boots.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::error::DataError;
use super::mounts::Bind;
use crate::host::{Host, read_limited};
use crate::process::systemd_stdout;

/// The configuration of journald, which the image tells to store nothing.
const CONFIG: &str = "/run/systemd/journald.conf.d/90-etchaos-data.conf";
const TEXT: &str = "[Journal]\nStorage=persistent\n";
const TIMEOUT: Duration = Duration::from_secs(120);
/// A machine ID is 32 hexadecimal digits (machine-id(5)).
const ID_LENGTH: usize = 32;

/// Returns the mount of the journal's directory, or `None` if this boot has no machine ID.
pub(super) fn bind(host: &Host) -> Option<Bind> {
    let bytes = read_limited(&host.path("/etc/machine-id"), 4096).ok()??;
    let id = String::from_utf8(bytes).ok()?.trim().to_owned();
    let is_id = id.len() == ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let target = PathBuf::from("/var/log/journal").join(&id);
    is_id.then(|| Bind { directory: "journal".into(), target })
}

/// Tells journald to store the journal, and to move there what it has in memory.
pub(super) fn start(host: &Host) -> Result<(), DataError> {
    let path = host.path(CONFIG);
    let directory = path.parent().unwrap_or(&path);
    fs::create_dir_all(directory).map_err(DataError::io("create", directory))?;
    fs::write(&path, TEXT).map_err(DataError::io("write", &path))?;
    if host.is_running_host() {
        systemd_stdout(&["systemctl", "restart", "systemd-journald.service"], TIMEOUT)?;
        systemd_stdout(&["journalctl", "--flush"], TIMEOUT)?;
    }
    Ok(())
}

/// Tells journald to close its files, so that the data partition can be unmounted.
pub(super) fn stop(host: &Host) {
    if host.is_running_host()
        && let Err(error) = systemd_stdout(&["journalctl", "--relinquish-var"], TIMEOUT)
    {
        log::warn!("cannot move the journal back to memory: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_the_same_directory_for_each_machine_id() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path());
        assert_eq!(bind(&host), None);
        fs::create_dir(root.path().join("etc")).unwrap();
        let id = "0123456789abcdef0123456789abcdef";
        for (text, is_valid) in [(format!("{id}\n"), true), ("../x".into(), false)] {
            fs::write(root.path().join("etc/machine-id"), text).unwrap();
            let found = bind(&host);
            assert_eq!(found.is_some(), is_valid);
            if let Some(Bind { directory, target }) = found {
                assert_eq!(directory, PathBuf::from("journal"));
                assert_eq!(target, PathBuf::from(format!("/var/log/journal/{id}")));
            }
        }
    }
}
