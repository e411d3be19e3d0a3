//! Finds the data partition in the table of a disk, creates it once, and grows it with the disk.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::disk::{Disk, KernelPartition};
use super::error::DataError;
use super::layout::{TYPE_BYTES, UNFINISHED};
use super::repart;
use super::signature::{at_offset, find_file_system, on_disk};
use super::table::{Copies, Entry, Medium, Table};
use crate::host::Host;
use crate::process::Process;

/// How long the kernel and udev may take for a new partition.
const NODE_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// The type of what is kept free behind the image, in the table that systemd-repart works on. It is no type of a
/// partition, so that no definition matches it.
const END_OF_IMAGE: [u8; 16] = [0xee; 16];
/// The bytes of an empty disk that are compared. Encrypted volumes without a header, and programs that use a whole disk,
/// have no signature. Before it, a power cut may have left a part of a new table, and after it the partition begins.
const BLANK: Range<u64> = 64 << 10..1 << 20;
/// A partition grows only if it gains this many bytes.
const GROWTH_MIN: u64 = 64 << 20;

/// The data partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Partition {
    /// Its number.
    pub(super) number: u32,
    /// Its node below /dev.
    pub(super) node: PathBuf,
    /// Whether its file system is not finished, so that it has no data yet.
    pub(super) is_unfinished: bool,
}

/// Which disk it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The disk that was booted. The partition is created in its free space.
    Booted,
    /// A disk that the configuration names. It has to be empty.
    Named,
}

/// Returns the data partition of a disk. Creates it if there is none, and grows it if there is room after it.
/// Uses `directory` for temporary files.
///
/// # Errors
/// Fails, and changes nothing, if the partition would be where something else is.
pub(super) fn ensure(
    host: &Host,
    disk: &Disk,
    role: Role,
    directory: &Path,
) -> Result<Partition, DataError> {
    let copies = read(disk)?;
    let number = copies.current().map(|table| number_in(disk, table)).transpose()?.flatten();
    let (table, number) = match (copies.current(), number) {
        (Some(table), Some(number)) => (keep(disk, &copies, table, number, directory)?, number),
        _ => create(disk, &copies, role, directory)?,
    };
    partition(host, disk, &table, number)
}

/// Returns whether a disk has a data partition whose file system was finished.
pub(super) fn is_finished(disk: &Disk) -> Result<bool, DataError> {
    let copies = read(disk)?;
    let mut partitions = copies.current().into_iter().flat_map(Table::partitions);
    Ok(partitions.any(|(_, entry)| is_used_for_data(entry)))
}

/// Returns the data partition of a disk, and changes nothing.
pub(super) fn find(host: &Host, disk: &Disk) -> Result<Partition, DataError> {
    let copies = read(disk)?;
    let missing = || DataError::NoPartition(disk.node.clone());
    let table = copies.current().ok_or_else(missing)?;
    let number = number_in(disk, table)?.ok_or_else(missing)?;
    partition(host, disk, table, number)
}

/// Records that the file system of the partition is complete. From now on it is never formatted again.
pub(super) fn finish(disk: &Disk, number: u32) -> Result<(), DataError> {
    let copies = read(disk)?;
    let mut table = copies.current().ok_or_else(|| DataError::NoGpt(disk.node.clone()))?.clone();
    let entry = table.entry_mut(number).filter(|entry| entry.kind() == TYPE_BYTES);
    entry
        .ok_or_else(|| unexpected(disk, "the partition is missing"))?
        .set_attribute(UNFINISHED, false);
    write(disk, &table)
}

/// Reads both copies of the table.
fn read(disk: &Disk) -> Result<Copies, DataError> {
    let copies = Copies::read(&disk.sectors);
    let copies = copies.map_err(DataError::io("read the partition table of", &disk.node))?;
    if let Some(table) = copies.current() {
        table.check_entries().map_err(|error| table_error(disk, error))?;
    }
    Ok(copies)
}

/// Returns the number of the data partition, if the table has one.
fn number_in(disk: &Disk, table: &Table) -> Result<Option<u32>, DataError> {
    match ours(table)[..] {
        [] => Ok(None),
        [number] => Ok(Some(number)),
        ref several => Err(DataError::Several { node: disk.node.clone(), count: several.len() }),
    }
}

/// Returns the partition with this number, which the kernel then knows.
fn partition(host: &Host, disk: &Disk, table: &Table, number: u32) -> Result<Partition, DataError> {
    let entry = table.entry(number).ok_or_else(|| unexpected(disk, "the partition is missing"))?;
    let node = show_to_kernel(host, disk, number, entry)?;
    Ok(Partition { number, node, is_unfinished: entry.has_attribute(UNFINISHED) })
}

/// Returns whether this is a data partition whose file system was finished.
fn is_used_for_data(entry: &Entry) -> bool {
    entry.kind() == TYPE_BYTES && !entry.has_attribute(UNFINISHED)
}

/// Returns the numbers of the data partitions.
fn ours(table: &Table) -> Vec<u32> {
    let is_ours = |(_, entry): &(u32, &Entry)| entry.kind() == TYPE_BYTES;
    table.partitions().filter(is_ours).map(|(number, _)| number).collect()
}

/// Returns the table with its data partition grown if there is room. Writes it if it changed, or if one of the
/// copies is not valid or is another one.
fn keep(
    disk: &Disk,
    copies: &Copies,
    table: &Table,
    number: u32,
    directory: &Path,
) -> Result<Table, DataError> {
    let mut table = table.clone();
    let has_room = table.room_at_end(disk.geometry()) * disk.geometry().sector >= GROWTH_MIN;
    // Without systemd-repart, the data can be used as they are.
    let grown = has_room
        && grow(disk, &mut table, number, directory).unwrap_or_else(|error| {
            log::error!("the data partition was not grown: {error}");
            false
        });
    if grown || !copies.are_same() {
        write(disk, &table)?;
    }
    Ok(table)
}

/// Grows the partition in the table. Returns whether it was grown; it is not if another one follows it.
fn grow(disk: &Disk, table: &mut Table, number: u32, directory: &Path) -> Result<bool, DataError> {
    let plan = repart::plan(disk, Some(table), directory)?;
    let geometry = disk.geometry();
    let new = plan.entry(number).ok_or_else(|| unexpected(disk, "the partition is missing"))?;
    let last = new.last();
    let is_free = |(other, entry): (u32, &Entry)| {
        other == number || entry.last() < new.first() || entry.first() > last
    };
    if !table.partitions().all(is_free) || last > table.last_usable(geometry) {
        return Err(unexpected(disk, "the partition would overlap another one"));
    }
    let Some(entry) = table.entry_mut(number) else { return Ok(false) };
    if entry.first() != new.first() || entry.kind() != new.kind() {
        return Err(unexpected(disk, "the partition would move"));
    }
    let gained = last.saturating_sub(entry.last()) * geometry.sector;
    if gained < GROWTH_MIN {
        return Ok(false);
    }
    log::info!("growing the data partition on {} by {} MiB", disk.node.display(), gained >> 20);
    entry.set_last(last);
    Ok(true)
}

/// Creates the partition. It is marked as unfinished.
fn create(
    disk: &Disk,
    copies: &Copies,
    role: Role,
    directory: &Path,
) -> Result<(Table, u32), DataError> {
    let table = copies.current();
    match (role, table) {
        (Role::Booted, None) => return Err(DataError::NoGpt(disk.node.clone())),
        (Role::Booted, Some(_)) => refuse_earlier_installation(disk, copies)?,
        (Role::Named, _) => refuse_used_disk(disk, table)?,
    }
    let occupied = table.map(|table| table.with_end_of_image(disk.geometry(), END_OF_IMAGE));
    let plan = repart::plan(disk, occupied.as_ref(), directory)?;
    let entry = new_entry(disk, &plan, table)?;
    let mut new = match table {
        Some(table) => table.clone(),
        None => plan.without_partitions(),
    };
    let size = (entry.last() - entry.first() + 1) * disk.geometry().sector;
    let offset = entry.first() * disk.geometry().sector;
    refuse_signatures(disk, role, offset, size)?;
    let number = new.add(entry).map_err(|error| table_error(disk, error))?;
    log::info!("creating a data partition of {} MiB on {}", size >> 20, disk.node.display());
    write(disk, &new)?;
    Ok((new, number))
}

/// Returns the entry that systemd-repart has added, after checking that it is in free space.
fn new_entry(disk: &Disk, plan: &Table, table: Option<&Table>) -> Result<Entry, DataError> {
    let numbers = ours(plan);
    let [number] = numbers[..] else {
        return Err(unexpected(disk, "it does not have one data partition"));
    };
    let mut entry = *plan.entry(number).ok_or_else(|| unexpected(disk, "no partition"))?;
    let others = || table.into_iter().flat_map(Table::partitions);
    let is_free = |other: &Entry| other.last() < entry.first() || other.first() > entry.last();
    let is_inside = plan.first_usable() <= entry.first()
        && entry.first() <= entry.last()
        && entry.last() <= plan.last_usable(disk.geometry());
    if !is_inside || !others().all(|(_, other)| is_free(other)) {
        return Err(unexpected(disk, "the partition would not be in free space"));
    }
    entry.set_attribute(UNFINISHED, true);
    Ok(entry)
}

/// Fails if the end of the disk has the table of an earlier installation with a data partition in use. An image
/// that is written over a disk replaces only the first table.
fn refuse_earlier_installation(disk: &Disk, copies: &Copies) -> Result<(), DataError> {
    let Some(backup) = &copies.backup else { return Ok(()) };
    let Some((_, entry)) = backup.partitions().find(|(_, entry)| is_used_for_data(entry)) else {
        return Ok(());
    };
    let sector = disk.geometry().sector;
    let start = entry.first().saturating_mul(sector);
    let end = entry.last().saturating_add(1).saturating_mul(sector);
    Err(DataError::EarlierInstallation { node: disk.node.clone(), start, end })
}

/// Fails if the space of the partition has remains of something else: any format at its beginning, such as that of a
/// partition whose table is lost, and on the disk that was booted, one of the file systems of a data partition further
/// behind, which an image of another size had.
fn refuse_signatures(disk: &Disk, role: Role, offset: u64, size: u64) -> Result<(), DataError> {
    let used = |found, offset| DataError::FreeSpaceInUse { node: disk.node.clone(), found, offset };
    if let Some(found) = at_offset(&disk.node, offset, size)? {
        return Err(used(found, offset));
    }
    if role == Role::Named {
        return Ok(());
    }
    let found = find_file_system(&disk.sectors, offset..offset + size);
    match found.map_err(DataError::io("read", &disk.node))? {
        Some((found, offset)) => Err(used(found.to_owned(), offset)),
        None => Ok(()),
    }
}

/// Fails unless the disk is empty.
fn refuse_used_disk(disk: &Disk, table: Option<&Table>) -> Result<(), DataError> {
    let found = match (table, on_disk(&disk.node)?) {
        (Some(_), _) => Some("a partition table".to_owned()),
        (None, Some(found)) => Some(found),
        (None, None) if disk.is_in_use() => Some("it is in use".to_owned()),
        (None, None) if !is_blank(disk)? => Some("data of an unknown format".to_owned()),
        (None, None) => None,
    };
    match found {
        Some(found) => Err(DataError::NotEmpty { node: disk.node.clone(), found }),
        None => Ok(()),
    }
}

/// Returns whether the disk has the same byte everywhere in [`BLANK`].
fn is_blank(disk: &Disk) -> Result<bool, DataError> {
    let sector = disk.geometry().sector;
    let bytes = disk.sectors.read(BLANK.start / sector, (BLANK.end - BLANK.start) / sector);
    let bytes = bytes.map_err(DataError::io("read", &disk.node))?;
    Ok(bytes.iter().all(|byte| *byte == bytes[0]))
}

fn write(disk: &Disk, table: &Table) -> Result<(), DataError> {
    table.check(disk.geometry()).map_err(|error| table_error(disk, error))?;
    table.write(&disk.sectors).map_err(DataError::io("write the partition table of", &disk.node))
}

/// Tells the kernel about the partition if it does not know it, or knows another size. Returns its node.
fn show_to_kernel(
    host: &Host,
    disk: &Disk,
    number: u32,
    entry: &Entry,
) -> Result<PathBuf, DataError> {
    let sector = disk.geometry().sector;
    let start = entry.first() * sector;
    let size = (entry.last() + 1) * sector - start;
    let is_known =
        |found: &KernelPartition| (found.start, found.size) == (start, size) && found.node.exists();
    let since = Instant::now();
    let mut is_told = false;
    loop {
        if let Some(found) = disk.kernel_partition(host, number).filter(is_known) {
            return Ok(found.node);
        }
        // The kernel reads a table again only if no partition is in use, so it is told about this one.
        if !is_told {
            let arguments = ["--update".into(), "--nr".into(), number.to_string()];
            let node = disk.node.as_os_str().to_owned();
            Process::new("partx", NODE_TIMEOUT).args(arguments).args([node]).stdout()?;
            is_told = true;
        }
        if since.elapsed() > NODE_TIMEOUT {
            let seconds = NODE_TIMEOUT.as_secs();
            return Err(DataError::NoNode { node: disk.node.clone(), seconds });
        }
        std::thread::sleep(RETRY_INTERVAL);
    }
}

fn unexpected(disk: &Disk, problem: &str) -> DataError {
    DataError::Plan { node: disk.node.clone(), problem: problem.to_owned() }
}

fn table_error(disk: &Disk, error: super::table::TableError) -> DataError {
    DataError::Table { node: disk.node.clone(), error }
}
