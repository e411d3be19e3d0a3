//! A FAT that was not unmounted is repaired before it is written to.
//!
//! Why: after a power cut a directory entry and the file allocation table may not fit together. Linux
//! does not mind until it walks such a chain, to remove or to extend a file; then it reports "invalid
//! cluster chain" or "deleting FAT entry beyond EOF" and makes the file system read-only, and so it
//! would at every later update. fsck.vfat cuts sizes and chains to fit, and clears the mark.
//!
//! The mark: Linux sets bit 0 of a byte of the boot sector while the volume is mounted for writing
//! (`fat_set_state` in fs/fat/inode.c), and leaves it alone if it was set at mount time ("Volume was
//! not properly unmounted. Some data may be corrupt. Please run fsck."). So it is also set while
//! somebody else has it mounted: who looks at it must be the only one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;

const PROGRAM: &str = "fsck.vfat";
/// A FAT of some GiB on a slow card takes some seconds.
pub(crate) const TIME: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(50);
/// As much of what it says is logged.
const OUTPUT_MAX: u64 = 8 * 1024;
const SECTOR: usize = 512;

/// Repairs the volume, if it is a FAT that was not unmounted and nobody has it mounted. Whatever
/// happens is logged, and no reason not to go on: Linux mounts it all the same.
pub fn repair(device: &Path) {
    // Exclusive: nobody has it mounted, and until this is dropped nobody can.
    let flags = (OFlag::O_EXCL | OFlag::O_CLOEXEC).bits();
    let claim = match OpenOptions::new().read(true).custom_flags(flags).open(device) {
        Ok(claim) => claim,
        Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => return,
        Err(error) => return log::warn!("cannot open {}: {error}", device.display()),
    };
    match is_dirty(&claim) {
        Ok(false) => {}
        Ok(true) => {
            log::warn!("{} was not unmounted in order: it is repaired", device.display());
            run(PROGRAM, device);
        }
        Err(error) => log::warn!("cannot read {}: {error}", device.display()),
    }
}

fn is_dirty(device: &File) -> io::Result<bool> {
    let mut sector = [0; SECTOR];
    device.read_exact_at(&mut sector, 0)?;
    Ok(has_mark(&sector))
}

/// Whether the boot sector is one of a FAT and says that it was not unmounted: at 0x41 on FAT32, at
/// 0x25 on FAT12 and FAT16. It is FAT32, as Linux sees it, if the 16 bits for the size of the table
/// are 0.
fn has_mark(sector: &[u8; SECTOR]) -> bool {
    let sector_size = u16::from_le_bytes([sector[11], sector[12]]);
    let (tables, table_size) = (sector[16], u16::from_le_bytes([sector[22], sector[23]]));
    let is_fat = sector[510..] == [0x55, 0xaa]
        && matches!(sector_size, 512 | 1024 | 2048 | 4096)
        && tables != 0;
    let state = if table_size == 0 { sector[0x41] } else { sector[0x25] };
    is_fat && state & 1 != 0
}

/// Runs it, and logs what it says.
fn run(program: &str, device: &Path) {
    let device_name = device.display();
    match output(program, device) {
        Ok((code, said)) => {
            for line in said.lines().filter(|line| !line.trim().is_empty()) {
                log::info!("{program}: {line}");
            }
            match code {
                // 1: there was something to correct.
                Some(0 | 1) => {}
                Some(code) => log::warn!("{program} -a {device_name} failed ({code})"),
                None => log::warn!(
                    "{program} -a {device_name} took more than {} s and was ended",
                    TIME.as_secs()
                ),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => log::warn!(
            "{program} is not installed, so {device_name} is written to as it is: should Linux make it read-only, run \"fsck.vfat -a\" by hand"
        ),
        Err(error) => log::warn!("cannot run {program}: {error}"),
    }
}

/// Its exit code, none if it was killed, and what it said.
fn output(program: &str, device: &Path) -> io::Result<(Option<i32>, String)> {
    let (mut reader, writer) = io::pipe()?;
    let mut command = Command::new(program);
    command.arg("-a").arg(device).stdin(Stdio::null());
    let child = command.stdout(writer.try_clone()?).stderr(writer).spawn()?;
    // It holds the other end of the pipe.
    drop(command);
    let said = std::thread::spawn(move || {
        let mut said = Vec::new();
        let read = (&mut reader).take(OUTPUT_MAX).read_to_end(&mut said);
        // The rest, so that it does not wait for us.
        let _ = read.and_then(|_| io::copy(&mut reader, &mut io::sink()));
        String::from_utf8_lossy(&said).into_owned()
    });
    let code = wait(child, TIME)?;
    Ok((code, said.join().unwrap_or_default()))
}

fn wait(mut child: Child, time: Duration) -> io::Result<Option<i32>> {
    let since = Instant::now();
    while since.elapsed() < time {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        std::thread::sleep(PAUSE);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

#[cfg(test)]
mod tests;
