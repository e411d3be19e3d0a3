//! Repairs the FAT of an ESP that was not unmounted cleanly, before it is written to.
//!
//! After a power cut a directory entry and the file allocation table may contradict each other. Linux
//! notices only when it follows such a chain to remove or extend a file. Then it reports "invalid cluster
//! chain" or "deleting FAT entry beyond EOF" and makes the file system read-only, and it would do so at
//! every later update. fsck.vfat corrects sizes and chains and clears the dirty bit.
//!
//! Linux sets the dirty bit, bit 0 of a byte of the boot sector, while the volume is mounted for writing
//! (`fat_set_state` in fs/fat/inode.c), and does not clear it if it was set at mount time ("Volume was not
//! properly unmounted. Some data may be corrupt. Please run fsck."). The bit is therefore also set while
//! another process has the volume mounted, so it is meaningful only while this process has exclusive access.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::process::{Finished, Process};

const PROGRAM: &str = "fsck.vfat";
/// Checking a FAT of some GiB on a slow card takes some seconds.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);
/// How much of the output is logged.
const OUTPUT_MAX: usize = 8 * 1024;
const SECTOR: usize = 512;

/// Repairs the volume if it is a FAT that was not unmounted cleanly and is not mounted now.
///
/// Problems are logged and not returned, because Linux can mount the volume in any case.
pub(crate) fn repair(device: &Path) {
    // O_EXCL on a block device fails if the device is mounted, and prevents mounting until it is closed.
    let flags = (OFlag::O_EXCL | OFlag::O_CLOEXEC).bits();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(device) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => return,
        Err(error) => return log::warn!("cannot open {}: {error}", device.display()),
    };
    match is_dirty(&file) {
        Ok(false) => {}
        Ok(true) => {
            log::warn!("{} was not unmounted cleanly: repairing it", device.display());
            run(PROGRAM, device, TIMEOUT);
        }
        Err(error) => log::warn!("cannot read {}: {error}", device.display()),
    }
}

fn is_dirty(device: &File) -> io::Result<bool> {
    let mut sector = [0; SECTOR];
    device.read_exact_at(&mut sector, 0)?;
    Ok(has_dirty_bit(&sector))
}

/// Returns whether the sector is the boot sector of a FAT whose dirty bit is set. The bit is at 0x41 on
/// FAT32 and at 0x25 on FAT12 and FAT16. Linux treats a volume as FAT32 if the 16-bit size of the table
/// is 0.
fn has_dirty_bit(sector: &[u8; SECTOR]) -> bool {
    let sector_size = u16::from_le_bytes([sector[11], sector[12]]);
    let (tables, table_size) = (sector[16], u16::from_le_bytes([sector[22], sector[23]]));
    let is_fat = sector[510..] == [0x55, 0xaa]
        && matches!(sector_size, 512 | 1024 | 2048 | 4096)
        && tables != 0;
    let state = if table_size == 0 { sector[0x41] } else { sector[0x25] };
    is_fat && state & 1 != 0
}

/// Runs `fsck.vfat -a` and logs its output.
fn run(program: &str, device: &Path, timeout: Duration) {
    let arguments = ["-a".as_ref(), device.as_os_str()];
    let process = Process::new(program, timeout).args(arguments).output_max(OUTPUT_MAX);
    let device = device.display();
    match process.run_merged() {
        Ok(Finished { status, output }) => {
            for line in output.lines().filter(|line| !line.trim().is_empty()) {
                log::info!("{program}: {line}");
            }
            match status.map(|status| status.code()) {
                // Exit code 1: errors were found and corrected.
                Some(Some(0 | 1)) => {}
                Some(Some(code)) => {
                    log::warn!("{program} -a {device} failed with exit code {code}")
                }
                Some(None) => log::warn!("{program} -a {device} was killed by a signal"),
                None => log::warn!(
                    "{program} -a {device} did not end within {} s and was killed",
                    timeout.as_secs()
                ),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => log::warn!(
            "{program} is not installed, so {device} is not repaired: if Linux makes it read-only, run \"fsck.vfat -a\" by hand"
        ),
        Err(error) => log::warn!("cannot run {program}: {error}"),
    }
}

#[cfg(test)]
mod tests;
