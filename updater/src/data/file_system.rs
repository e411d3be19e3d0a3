//! The file system on the data partition: made once, checked before each mount, and grown after it.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::error::DataError;
use super::layout::LABEL;
use super::signature::of_partition;
use crate::config::FileSystem;
use crate::process::{Finished, Process};

/// The timeout of mkfs, which discards the blocks of the whole partition.
const MAKE_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// The timeout of fsck, which reads all metadata if the journal does not suffice.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2 * 3600);
const GROW_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// The program that grows a mounted file system, whatever its type is (systemd-growfs(8)).
const GROW: [&str; 2] = ["/usr/lib/systemd/systemd-growfs", "/lib/systemd/systemd-growfs"];
/// The exit codes of fsck.ext4 from which on errors are left (e2fsck(8)).
const ERRORS_LEFT: i32 = 4;

/// Makes a file system and flushes it.
pub(super) fn make(kind: FileSystem, device: &Path) -> Result<(), DataError> {
    // Without -F or -f, the programs ask what to do about a file system that was not finished.
    let arguments: &[&str] = match kind {
        FileSystem::Ext4 => &["mkfs.ext4", "-q", "-F", "-m", "1", "-L", LABEL],
        FileSystem::Xfs => &["mkfs.xfs", "-q", "-f", "-L", LABEL],
        FileSystem::Btrfs => &["mkfs.btrfs", "-q", "-f", "-L", LABEL],
    };
    log::info!("making a file system ({kind}) on {}", device.display());
    let process = Process::new(arguments[0], MAKE_TIMEOUT);
    process.args(&arguments[1..]).args([device.as_os_str()]).stdout()?;
    let flushed = File::open(device).and_then(|file| file.sync_all());
    flushed.map_err(DataError::io("flush", device))
}

/// Returns the type of the file system on a device, after repairing what can be repaired without a decision.
pub(super) fn check(device: &Path) -> Result<FileSystem, DataError> {
    let found = of_partition(device)?.ok_or_else(|| DataError::Lost(device.to_owned()))?;
    let kind = FileSystem::from_name(&found);
    let kind = kind.ok_or_else(|| DataError::FileSystem { node: device.to_owned(), found })?;
    // XFS and btrfs repair themselves when they are mounted.
    if kind == FileSystem::Ext4 {
        check_ext4(device)?;
    }
    Ok(kind)
}

fn check_ext4(device: &Path) -> Result<(), DataError> {
    let process = Process::new("fsck.ext4", CHECK_TIMEOUT).args(["-p"]).args([device.as_os_str()]);
    let Finished { status, output } =
        process.run_merged().map_err(DataError::io("run fsck.ext4 on", device))?;
    for line in output.lines().filter(|line| !line.trim().is_empty()) {
        log::info!("fsck.ext4: {line}");
    }
    match status.and_then(|status| status.code()) {
        Some(..ERRORS_LEFT) => Ok(()),
        _ => {
            let last = output.lines().rfind(|line| !line.trim().is_empty());
            let output = last.unwrap_or("no output of fsck.ext4").trim().to_owned();
            Err(DataError::Damaged { node: device.to_owned(), output })
        }
    }
}

/// Grows a mounted file system to the size of its partition.
pub(super) fn grow(mount_point: &Path) -> Result<(), DataError> {
    let program = GROW.into_iter().find(|path| Path::new(path).exists()).unwrap_or(GROW[0]);
    Process::new(program, GROW_TIMEOUT).args([mount_point.as_os_str()]).stdout()?;
    Ok(())
}
