//! The data partition: what a host keeps over reboots and updates, if its configuration asks for it.
//!
//! Each boot finds the partition by its type in the table of the disk, creates or grows it if necessary, checks
//! its file system and mounts it. Nothing is decided by a label or by what a file system says about itself.
//!
//! A new partition has the attribute [`layout::UNFINISHED`] until its file system is complete and flushed. Only a
//! partition with this attribute is ever formatted.

mod disk;
mod error;
mod file_system;
mod journal;
mod layout;
mod mounts;
mod partition;
mod repart;
mod signature;
mod table;

use std::path::{Path, PathBuf};

use self::disk::Disk;
pub(crate) use self::error::DataError;
pub(crate) use self::layout::MOUNT_POINT;
use self::partition::{Partition, Role};
use crate::boot_disk::BootDisk;
use crate::config::{Data, FileSystem};
use crate::esp::{boot_disk, run_directory};
use crate::host::Host;

/// A data partition that is mounted.
#[derive(Debug)]
pub(crate) struct Mounted {
    /// The node of its device.
    pub(crate) device: PathBuf,
    /// Its file system.
    pub(crate) file_system: FileSystem,
    /// What did not work, although the data can be used.
    pub(crate) problems: Vec<String>,
}

/// Mounts the data partition. Creates and grows it if necessary.
///
/// # Errors
/// Fails if there is no partition that can be used. Nothing is then mounted.
pub(crate) fn mount(host: &Host, settings: &Data) -> Result<Mounted, DataError> {
    let (disk, role) = find_disk(host, settings.disk.as_deref())?;
    let partition = partition::ensure(host, &disk, role, &run_directory(host)?)?;
    // An encrypted partition would be set up and opened here. What follows knows only the resulting device.
    let device = partition.node.clone();
    let file_system = prepare_file_system(&disk, &partition, &device, settings.file_system)?;
    let result = mount_all(host, &device, file_system, settings);
    if result.is_err() {
        unmount(host);
    }
    let problems = result?;
    Ok(Mounted { device, file_system, problems })
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
