//! Errors of the data partition.

use std::io;
use std::path::{Path, PathBuf};

use super::table::TableError;
use crate::esp::EspError;
use crate::process::ProcessError;

/// Why there is no data partition.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataError {
    /// The disk that was booted is not known.
    #[error(transparent)]
    BootDisk(#[from] EspError),
    /// The host was booted from the network.
    #[error(
        "this host was not booted from an EtchaOS disk: name a disk for the data in \"data.disk\""
    )]
    NotBootedFromDisk,
    /// It is not proven which disk was booted.
    #[error(
        "{} is only probably the disk that was booted, so it gets no data partition: see \"status\"",
        .0.display()
    )]
    NotProven(PathBuf),
    /// Programs that create a data partition are not installed.
    #[error(
        "\"data\" needs programs that this image does not have ({0}): nothing was changed; remove \"data\", or use settings or a variant that need none of them"
    )]
    NoPrograms(String),
    /// The ESP is not on a partition.
    #[error("{} is not a partition of a disk with a partition table", .0.display())]
    NoPartitionTable(PathBuf),
    /// The named disk does not exist.
    #[error("\"data.disk\" names {}, which does not exist: attach the disk, or correct the name", .0.display())]
    NoDisk(PathBuf),
    /// The named device is not a whole disk.
    #[error("\"data.disk\" names {}, which is not a whole disk", .0.display())]
    NotWhole(PathBuf),
    /// The disk has sectors of an unusual size.
    #[error("{} has sectors of {sector} bytes, expected 512 or 4096", node.display())]
    SectorSize {
        node: PathBuf,
        /// The size in bytes.
        sector: u64,
    },
    /// Neither copy of the table of the disk that was booted is valid.
    #[error("{} has no valid GPT", .0.display())]
    NoGpt(PathBuf),
    /// The named disk is not empty.
    #[error(
        "{} is not empty ({found}) and has no data partition of EtchaOS: nothing was changed; if its content is not needed, clear the disk as docs/operators.md shows, then reboot",
        node.display()
    )]
    NotEmpty {
        node: PathBuf,
        /// What is on it.
        found: String,
    },
    /// The free space has a file system.
    #[error(
        "the free space of {} has {found} at byte {offset}: nothing was changed; it may be the data of an earlier installation; if it is not needed, overwrite it as docs/operators.md shows, then reboot",
        node.display()
    )]
    FreeSpaceInUse {
        node: PathBuf,
        /// The type of the file system.
        found: String,
        /// Where it begins.
        offset: u64,
    },
    /// The table at the end of the disk is that of an earlier installation.
    #[error(
        "the backup partition table at the end of {} lists a data partition from byte {start} to {end}, which the partition table does not have: nothing was changed; the disk was probably installed again, see \"Data that lasts\" in docs/operators.md",
        node.display()
    )]
    EarlierInstallation {
        node: PathBuf,
        /// The offset of the partition.
        start: u64,
        /// The offset after the partition.
        end: u64,
    },
    /// There are several data partitions.
    #[error("{} has {count} data partitions, expected one: remove the others", node.display())]
    Several {
        node: PathBuf,
        /// Their number.
        count: usize,
    },
    /// systemd-repart did something else than asked for.
    #[error("systemd-repart returned an unexpected partition table for {}: {problem}", node.display())]
    Plan {
        node: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The kernel did not accept the partition.
    #[error("{} did not appear within {seconds} s after it was added to the partition table", node.display())]
    NoNode {
        node: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The partition was finished before and has no file system.
    #[error(
        "{} has no file system although it had one before: its content is damaged; it is not formatted again: see \"Data that lasts\" in docs/operators.md",
        .0.display()
    )]
    Lost(PathBuf),
    /// There is no TPM.
    #[error(
        "\"data.encrypt\" needs a TPM 2.0, and Linux has found none: enable it in the settings of the firmware, or remove \"data.encrypt\"; nothing was stored without encryption"
    )]
    NoTpm,
    /// The partition is encrypted, and the TPM does not unlock it.
    #[error(
        "{} is encrypted, and the TPM does not unlock it ({reason}): run \"etchaos-updater data unlock\" with the recovery key",
        node.display()
    )]
    Locked {
        node: PathBuf,
        /// What failed.
        reason: String,
    },
    /// The partition is not encrypted, although it should be.
    #[error(
        "{} is not encrypted although \"data.encrypt\" is set: data that exist are not encrypted later; remove \"data.encrypt\", or give the data up as docs/operators.md shows",
        .0.display()
    )]
    NotEncrypted(PathBuf),
    /// A key was given for a partition without encryption.
    #[error("{} is not encrypted, so it has no keys", .0.display())]
    NothingToUnlock(PathBuf),
    /// The key does not unlock the partition.
    #[error("the recovery key does not unlock {}", .0.display())]
    WrongKey(PathBuf),
    /// The disk has no data partition.
    #[error("{} has no data partition", .0.display())]
    NoPartition(PathBuf),
    /// The header of the encrypted partition cannot be read.
    #[error("cannot read the LUKS header of {}: {error}", node.display())]
    Header { node: PathBuf, error: serde_json::Error },
    /// The name of the decrypted device is used for something else.
    #[error("{} is not a device on {}: close it with \"cryptsetup close\"", mapping.display(), node.display())]
    OtherMapping {
        /// The decrypted device.
        mapping: PathBuf,
        node: PathBuf,
    },
    /// The partition has another file system.
    #[error("{} has {found}, expected ext4, xfs or btrfs", node.display())]
    FileSystem {
        node: PathBuf,
        /// Its type.
        found: String,
    },
    /// The file system is damaged, and was not repaired.
    #[error(
        "the file system of {} is damaged and cannot be repaired without a decision: {output}",
        node.display()
    )]
    Damaged {
        node: PathBuf,
        /// The last line of fsck.
        output: String,
    },
    /// A path of the data partition is no directory.
    #[error("{} on the data partition is not a directory", .0.display())]
    NotDirectory(PathBuf),
    /// The table cannot be changed.
    #[error("cannot change the partition table of {}: {error}", node.display())]
    Table { node: PathBuf, error: TableError },
    /// A program failed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A system call failed.
    #[error("cannot {operation} {}: {error}", path.display())]
    Io {
        /// The operation, as a verb.
        operation: &'static str,
        /// The path that it was applied to.
        path: PathBuf,
        error: io::Error,
    },
}

impl DataError {
    /// Returns a function that turns an I/O error into an error of an operation on a path.
    pub(super) fn io(
        operation: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |error| Self::Io { operation, path, error }
    }
}
