//! The programs with which a data partition is created. Not every image has all of them.

use std::ffi::OsStr;

use super::error::DataError;
use crate::config::{Data, FileSystem};

/// What every data partition needs.
const ALWAYS: [&str; 4] = ["systemd-repart", "partx", "wipefs", "blkid"];
/// What an encrypted one needs.
const ENCRYPTION: [&str; 2] = ["cryptsetup", "systemd-cryptenroll"];

/// Checks that the programs that create the data partition are installed.
///
/// # Errors
/// Fails with the names of those that are not.
pub(super) fn check(settings: &Data) -> Result<(), DataError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing: Vec<&str> =
        needed(settings).into_iter().filter(|program| !is_in(&path, program)).collect();
    if missing.is_empty() { Ok(()) } else { Err(DataError::NoPrograms(missing.join(", "))) }
}

fn needed(settings: &Data) -> Vec<&'static str> {
    let file_system: &[&str] = match settings.file_system {
        FileSystem::Ext4 => &["mkfs.ext4", "fsck.ext4"],
        FileSystem::Xfs => &["mkfs.xfs"],
        FileSystem::Btrfs => &["mkfs.btrfs"],
    };
    let encryption: &[&str] = if settings.encrypt { &ENCRYPTION } else { &[] };
    [&ALWAYS, file_system, encryption].concat()
}

fn is_in(path: &OsStr, program: &str) -> bool {
    std::env::split_paths(path).any(|directory| directory.join(program).is_file())
}
