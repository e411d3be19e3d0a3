//! Why the disk that was booted is not known.

use std::io;
use std::path::{Path, PathBuf};

/// A search that found no disk, or too many.
#[derive(Debug, thiserror::Error)]
pub enum BootDiskError {
    /// No device has the UUID.
    #[error(
        "no disk has a FAT file system with the UUID {0}, which the kernel command line names as the ESP: give --esp DIR to use a directory"
    )]
    Missing(String),
    /// There are only disks that were not booted.
    #[error(
        "the disk that this host was booted from is missing; found only {}, and nothing is written there: attach the boot disk, or reboot to boot from another one",
        disks.join(" and ")
    )]
    OnlyOthers {
        /// The other disks with the same ESP.
        disks: Vec<String>,
    },
    /// It is not known which of several disks was booted.
    #[error(
        "this host was booted from one of {} disks with the same ESP, and it is not known which: {}; nothing is written to any of them: reboot, because the boot loader marks the disk at each boot, or detach all but the disk to boot from and reboot",
        disks.len(), disks.join(" and ")
    )]
    Copies {
        /// The disks.
        disks: Vec<String>,
    },
    /// It is not proven that the only disk is the one that was booted.
    #[error(
        "it is not certain that this host was booted from {0}: GRUB's count of this boot is missing, or cannot be read; nothing is written to it. Reboot; if that does not help, check that GRUB can write to the disk and that nothing else has its ESP mounted"
    )]
    NotProven(String),
    /// Only root may read this device.
    #[error("reading {} needs root: run this with sudo, or give --esp DIR to use a directory", .0.display())]
    NotRoot(PathBuf),
    /// A system call failed.
    #[error("cannot {operation} {}: {error}", path.display())]
    Io {
        /// The operation, as a verb.
        operation: &'static str,
        /// The path that it was applied to.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
}

/// Returns a function that turns an I/O error into a [`BootDiskError`].
pub(super) fn io_error(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> BootDiskError + use<> {
    let path = path.to_owned();
    move |error| match error.kind() {
        io::ErrorKind::PermissionDenied => BootDiskError::NotRoot(path),
        _ => BootDiskError::Io { operation, path, error },
    }
}
