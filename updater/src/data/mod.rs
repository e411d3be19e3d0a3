//! The data partition: what a host keeps over reboots and updates, if its configuration asks for it.
//!
//! Each boot finds the partition by its type in the table of the disk, creates or grows it if necessary, checks
//! its file system and mounts it. Nothing is decided by a label or by what a file system says about itself.
//!
//! A new partition has the attribute [`layout::UNFINISHED`] until its file system is complete and flushed. Only a
//! partition with this attribute is ever formatted.

mod disk;
mod encryption;
mod error;
mod file_system;
mod journal;
mod key;
mod layout;
mod mounts;
mod partition;
mod programs;
mod repart;
mod sectors;
mod signature;
mod table;
mod tpm;

use std::path::{Path, PathBuf};

use self::disk::Disk;
pub(crate) use self::error::DataError;
pub(crate) use self::key::Key;
pub(crate) use self::layout::MOUNT_POINT;
use self::partition::{Partition, Role};
use crate::boot_disk::BootDisk;
use crate::config::{Data, FileSystem};
use crate::esp::{boot_disk, run_directory};
use crate::host::Host;

/// What is wrong with an encrypted partition that only the TPM unlocks.
pub(crate) const NO_RECOVERY_KEY: &str = "the data partition has no recovery key: if the TPM does not unlock it any more, the data are lost; give it one with \"etchaos-updater data recovery-key\"";

/// A data partition that is mounted.
#[derive(Debug)]
pub(crate) struct Mounted {
    /// The node of its device.
    pub(crate) device: PathBuf,
    /// Its file system.
    pub(crate) file_system: FileSystem,
    /// Whether a recovery key unlocks it; `None` if it is not encrypted.
    pub(crate) recovery_key: Option<bool>,
    /// What did not work, although the data can be used.
    pub(crate) problems: Vec<String>,
}

/// Mounts the data partition. Creates and grows it if necessary.
///
/// # Errors
/// Fails if there is no partition that can be used. Nothing is then mounted.
pub(crate) fn mount(host: &Host, settings: &Data) -> Result<Mounted, DataError> {
    let (disk, role) = find_disk(host, settings.disk.as_deref())?;
    if !partition::is_finished(&disk)? {
        programs::check(settings)?;
    }
    let partition = partition::ensure(host, &disk, role, &run_directory(host)?)?;
    let Opened { device, recovery_key } = open(host, &partition, settings.encrypt)?;
    let file_system = prepare_file_system(&disk, &partition, &device, settings.file_system)?;
    let result = mount_all(host, &device, file_system, settings);
    if result.is_err() {
        unmount(host);
    }
    let mut problems = result?;
    if recovery_key == Some(false) {
        problems.push(NO_RECOVERY_KEY.to_owned());
    }
    Ok(Mounted { device: partition.node, file_system, recovery_key, problems })
}

/// Unmounts the data partition. Logs why it cannot be unmounted.
pub(crate) fn unmount(host: &Host) {
    if !mounts::is_data_mounted(host) {
        return;
    }
    journal::stop(host);
    if let Err(error) = mounts::unmount_all(host) {
        log::warn!("{error}");
    }
    if let Err(error) = encryption::close(host) {
        log::warn!("{error}");
    }
}

/// Unlocks the data partition with the recovery key, and lets the TPM of this machine unlock it from now on.
/// [`mount`] then uses it. Returns why the TPM will not unlock it, if it will not.
///
/// # Errors
/// Fails if there is no encrypted partition, or if the key is not the right one.
pub(crate) fn unlock(host: &Host, settings: &Data, key: &Key) -> Result<Option<String>, DataError> {
    let node = encrypted_partition(host, settings)?;
    encryption::check_key(&node, key)?;
    let enrolled = encryption::enroll_again(host, &node, key);
    encryption::open_with_key(host, &node, key)?;
    Ok(enrolled.err().map(|error| format!("the TPM will not unlock {}: {error}", node.display())))
}

/// Lets a recovery key unlock the data partition, in place of an earlier one. The TPM has to unlock it now.
pub(crate) fn set_recovery_key(host: &Host, settings: &Data, key: &Key) -> Result<(), DataError> {
    encryption::set_recovery_key(host, &encrypted_partition(host, settings)?, key)
}

fn encrypted_partition(host: &Host, settings: &Data) -> Result<PathBuf, DataError> {
    let (disk, _) = find_disk(host, settings.disk.as_deref())?;
    let Partition { node, .. } = partition::find(host, &disk)?;
    match signature::of_partition(&node)?.as_deref() {
        Some(signature::LUKS) => Ok(node),
        _ => Err(DataError::NothingToUnlock(node)),
    }
}

/// Returns whether the data partition is mounted.
pub(crate) fn is_mounted(host: &Host) -> bool {
    mounts::is_data_mounted(host)
}

fn find_disk(host: &Host, name: Option<&Path>) -> Result<(Disk, Role), DataError> {
    if let Some(name) = name {
        return Ok((Disk::named(host, name)?, Role::Named));
    }
    let BootDisk { node, is_proven, .. } = boot_disk(host)?.ok_or(DataError::NotBootedFromDisk)?;
    if !is_proven {
        return Err(DataError::NotProven(node));
    }
    Ok((Disk::of_partition(host, &node)?, Role::Booted))
}

/// The device with the file system.
struct Opened {
    device: PathBuf,
    /// Whether a recovery key unlocks the partition; `None` if it is not encrypted.
    recovery_key: Option<bool>,
}

/// Unlocks the partition if it is encrypted. Encrypts it first if it is new.
fn open(host: &Host, partition: &Partition, encrypt: bool) -> Result<Opened, DataError> {
    let node = &partition.node;
    let plain = || Opened { device: node.clone(), recovery_key: None };
    if partition.is_unfinished {
        encryption::close(host)?;
        signature::wipe(node)?;
        if !encrypt {
            return Ok(plain());
        }
        encryption::create(host, node)?;
    } else {
        match signature::of_partition(node)?.as_deref() {
            Some(signature::LUKS) if encrypt => {}
            Some(signature::LUKS) => {
                log::warn!(
                    "the data partition stays encrypted although \"data.encrypt\" is not set"
                );
            }
            // An attacker may have replaced the encrypted partition.
            Some(_) if encrypt => return Err(DataError::NotEncrypted(node.clone())),
            None if encrypt => return Err(DataError::Lost(node.clone())),
            _ => return Ok(plain()),
        }
    }
    let device = encryption::open(host, node)?;
    Ok(Opened { device, recovery_key: Some(encryption::has_recovery_key(node)?) })
}

/// Makes the file system if the partition is new. Returns its type.
fn prepare_file_system(
    disk: &Disk,
    partition: &Partition,
    device: &Path,
    wanted: FileSystem,
) -> Result<FileSystem, DataError> {
    if partition.is_unfinished {
        file_system::make(wanted, device)?;
        partition::finish(disk, partition.number)?;
    }
    let found = file_system::check(device)?;
    if found != wanted {
        log::warn!(
            "the data partition has {found}, and stays as it is although \"data.fileSystem\" is {wanted}"
        );
    }
    Ok(found)
}

/// Mounts the device and everything that is kept on it. Returns what did not work, although the data can be
/// used.
fn mount_all(
    host: &Host,
    device: &Path,
    file_system: FileSystem,
    settings: &Data,
) -> Result<Vec<String>, DataError> {
    mounts::mount_device(host, device, file_system)?;
    let mut problems = Vec::new();
    if let Err(error) = file_system::grow(&host.path(MOUNT_POINT)) {
        problems.push(format!("the file system was not grown: {error}"));
    }
    for bind in mounts::binds(&settings.paths) {
        mounts::mount_bind(host, &bind)?;
    }
    if settings.journal
        && let Err(error) = keep_journal(host)
    {
        problems.push(format!("the journal is not kept: {error}"));
    }
    Ok(problems)
}

fn keep_journal(host: &Host) -> Result<(), DataError> {
    let Some(bind) = journal::bind(host) else { return Ok(()) };
    mounts::mount_bind(host, &bind)?;
    journal::start(host)
}
