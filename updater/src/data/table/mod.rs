//! The GUID partition table (GPT) of a disk: a codec, and the order of writes that changes a table without a
//! moment at which a power cut leaves none (UEFI specification, section 5.3).
//!
//! A disk has two copies of the table, each with a header of one sector and an array of entries. Firmware uses
//! the primary copy, whose header is in the second sector, if both of its checksums are right, and otherwise
//! the backup, whose header is in the last sector. libfdisk writes both without a flush between them, so a
//! power cut could leave neither. GRUB and Linux need the primary copy in any case. [`Table::steps`] therefore
//! writes the new array to a place that the primary header does not name, and then replaces this header, which
//! is a single sector: a disk writes a sector completely or not at all.

mod bytes;
#[cfg(test)]
mod tests;

use std::io;

pub(super) use self::bytes::Entry;
use self::bytes::{ENTRY_SIZE, Header, checksum, put};

/// The sector of the primary header.
const PRIMARY: u64 = 1;
/// The first place of the primary array. The second follows it.
const ARRAY: u64 = 2;
/// The limit on the number of entries. Tools create 128.
const ENTRIES_MAX: u32 = 1024;
/// More sectors than any disk has. With sectors of 4096 bytes, the size in bytes still fits into 63 bits.
const SECTORS_MAX: u64 = 1 << 51;
/// The size in bytes of what an image has behind its last partition (`builder/src/image/disk.rs`: `TAIL`).
const END_OF_IMAGE: u64 = 1 << 20;
/// The type of the protective entry in the first sector.
const PROTECTIVE: u8 = 0xee;
/// The first of the four entries in the first sector (UEFI specification, section 5.2.3).
const MBR_ENTRY: usize = 446;
const MBR_ENTRY_SIZE: usize = 16;
/// The size of the partition table in the first sector, with its signature, on disks with any sector size.
const MBR_SIZE: usize = 512;

/// A disk that consists of sectors.
///
/// There are two implementations: a file, such as a block device, and the tests' disk in memory.
pub(super) trait Medium {
    /// Returns the size of a sector in bytes, and the number of sectors.
    fn geometry(&self) -> Geometry;
    /// Reads sectors.
    fn read(&self, first: u64, count: u64) -> io::Result<Vec<u8>>;
    /// Writes sectors. They are on the disk only after a flush.
    fn write(&self, first: u64, bytes: &[u8]) -> io::Result<()>;
    /// Flushes what was written.
    fn flush(&self) -> io::Result<()>;
}

/// The size of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    /// The size of a sector in bytes: 512 or 4096.
    pub(super) sector: u64,
    /// The number of sectors.
    pub(super) sectors: u64,
}

impl Geometry {
    /// Returns the last sector.
    fn last(self) -> u64 {
        self.sectors.saturating_sub(1)
    }

    /// Returns the number of sectors that this many bytes need.
    fn count(self, bytes: usize) -> u64 {
        (bytes as u64).div_ceil(self.sector)
    }
}

/// A partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// The GUID of the disk.
    disk: [u8; 16],
    /// The first sector that a partition may use.
    first_usable: u64,
    /// All entries, used or not.
    entries: Vec<Entry>,
    /// The place of the array of the primary copy; `None` if the disk has no valid primary copy.
    array: Option<u64>,
}

/// Both copies of a table, as far as they are valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copies {
    /// The primary copy.
    pub(super) primary: Option<Table>,
    /// The copy in the last sectors of the disk. It may be of an earlier installation.
    pub(super) backup: Option<Table>,
}

/// A table that cannot be written to this disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TableError {
    /// A second array does not fit before the first partition.
    #[error(
        "the first partition begins at sector {first}, expected {expected} or more: there is no room for a second partition table"
    )]
    NoRoom {
        /// The first sector of the first partition.
        first: u64,
        /// The first possible sector.
        expected: u64,
    },
    /// A partition ends beyond the disk.
    #[error(
        "a partition ends at sector {last}, but the last sector that a partition can have is {usable}: has the disk become smaller?"
    )]
    TooSmall {
        /// The last sector of the partition.
        last: u64,
        /// The last sector that a partition can have.
        usable: u64,
    },
    /// The array is where it leaves no room for another one.
    #[error(
        "the partition table begins at sector {0}, which leaves no room for a second one before the first partition"
    )]
    Place(u64),
    /// An entry has an impossible place.
    #[error(
        "the entry of partition {0} is not valid: it ends before it begins, or where no disk has a sector"
    )]
    Entry(u32),
    /// All entries are in use.
    #[error("all {0} entries of the partition table are in use")]
    Full(usize),
}

/// Sectors to write, by the first one.
pub(super) type Write = (u64, Vec<u8>);

impl Copies {
    /// Reads both copies.
    pub(super) fn read(disk: &dyn Medium) -> io::Result<Self> {
        let last = disk.geometry().last();
        if last <= PRIMARY {
            return Ok(Self { primary: None, backup: None });
        }
        let backup = read_copy(disk, last)?.map(|(table, _)| Table { array: None, ..table });
        let primary = read_copy(disk, PRIMARY)?;
        let primary = primary.map(|(table, array)| Table { array: Some(array), ..table });
        Ok(Self { primary, backup })
    }

    /// Returns whether both copies are valid and list the same partitions.
    pub(super) fn are_same(&self) -> bool {
        let entries = |table: &Option<Table>| table.as_ref().map(|table| table.entries.clone());
        self.primary.is_some() && entries(&self.primary) == entries(&self.backup)
    }

    /// Returns the table that firmware uses.
    pub(super) fn current(&self) -> Option<&Table> {
        self.primary.as_ref().or(self.backup.as_ref())
    }
}

/// Reads the copy whose header is in this sector, and the place of its array. Returns `None` if it is not valid.
fn read_copy(disk: &dyn Medium, at: u64) -> io::Result<Option<(Table, u64)>> {
    let geometry = disk.geometry();
    let Some(header) = Header::parse(&disk.read(at, 1)?) else { return Ok(None) };
    let (count, size) = (header.entries, header.entry_size);
    let is_supported = size == ENTRY_SIZE as u32 && (1..=ENTRIES_MAX).contains(&count);
    if header.own != at || !is_supported {
        return Ok(None);
    }
    let length = count as usize * ENTRY_SIZE;
    let sectors = geometry.count(length);
    let is_inside = header.array > 0
        && header.array.checked_add(sectors).is_some_and(|end| end <= geometry.sectors);
    if !is_inside {
        return Ok(None);
    }
    let array = disk.read(header.array, sectors)?;
    let Some(array) = array.get(..length).filter(|array| checksum(array) == header.array_checksum)
    else {
        return Ok(None);
    };
    let entries = array.as_chunks::<ENTRY_SIZE>().0.iter().map(|bytes| Entry(*bytes)).collect();
    let (disk, first_usable) = (header.disk, header.first_usable);
    Ok(Some((Table { disk, first_usable, entries, array: None }, header.array)))
}

impl Table {
    /// Returns the used entries with the numbers of their partitions, which begin with 1.
    pub(super) fn partitions(&self) -> impl Iterator<Item = (u32, &Entry)> {
        (1..).zip(&self.entries).filter(|(_, entry)| entry.is_used())
    }

    /// Returns the entry of a partition.
    pub(super) fn entry(&self, number: u32) -> Option<&Entry> {
        self.partitions().find(|(own, _)| *own == number).map(|(_, entry)| entry)
    }

    /// Returns the first sector that a partition may use.
    pub(super) fn first_usable(&self) -> u64 {
        self.first_usable
    }

    /// Returns the table with a partition of this type in the first MiB behind the last partition. An image that is
    /// written to a disk ends there with its backup of the table, so a new installation overwrites this space.
    pub(super) fn with_end_of_image(&self, geometry: Geometry, kind: [u8; 16]) -> Self {
        let mut table = self.clone();
        let last = self.partitions().map(|(_, entry)| entry.last()).max().unwrap_or(0);
        let end = last + END_OF_IMAGE / geometry.sector;
        if end < self.last_usable(geometry) {
            // A table without an unused entry gets no data partition either.
            let _ = table.add(Entry::new(kind, last + 1, end));
        }
        table
    }

    /// Returns the table for a disk that has none yet.
    pub(super) fn as_new(&self) -> Self {
        Self { array: None, ..self.clone() }
    }

    /// Returns the table for a disk that has none yet, without any partition.
    pub(super) fn without_partitions(&self) -> Self {
        let unused = Entry([0; ENTRY_SIZE]);
        Self { entries: vec![unused; self.entries.len()], ..self.as_new() }
    }

    /// Returns the entry of a partition for a change.
    pub(super) fn entry_mut(&mut self, number: u32) -> Option<&mut Entry> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.entries.get_mut(index).filter(|entry| entry.is_used())
    }

    /// Adds a partition in the first unused entry and returns its number.
    pub(super) fn add(&mut self, entry: Entry) -> Result<u32, TableError> {
        let full = TableError::Full(self.entries.len());
        let (number, unused) =
            (1..).zip(&mut self.entries).find(|(_, entry)| !entry.is_used()).ok_or(full)?;
        *unused = entry;
        Ok(number)
    }

    /// Returns the last sector that a partition can have on a disk of this size.
    pub(super) fn last_usable(&self, geometry: Geometry) -> u64 {
        geometry.last().saturating_sub(self.array_sectors(geometry) + 1)
    }

    /// Returns the number of sectors after the last partition.
    pub(super) fn room_at_end(&self, geometry: Geometry) -> u64 {
        let last = self.partitions().map(|(_, entry)| entry.last()).max().unwrap_or(0);
        self.last_usable(geometry).saturating_sub(last)
    }

    /// Returns what has to be written so that the disk has this table, in steps. Each step has to be flushed
    /// before the next one is written; the sectors of a step may get to the disk in any order. `first` is the
    /// first sector of the disk.
    ///
    /// If the primary copy is valid, it is valid at every moment. Otherwise, the backup stays as it is until the
    /// primary copy is complete.
    pub(super) fn steps(
        &self,
        geometry: Geometry,
        first: &[u8],
    ) -> Result<Vec<Vec<Write>>, TableError> {
        let sectors = self.array_sectors(geometry);
        let place = self.free_place(sectors)?;
        self.check_ends(geometry)?;
        let array = self.array_bytes(geometry);
        let primary = self.header(geometry, PRIMARY, place, &array);
        let backup = self.header(geometry, geometry.last(), geometry.last() - sectors, &array);
        let backup = vec![(geometry.last() - sectors, array.clone()), (geometry.last(), backup)];
        let array = vec![(place, array)];
        let header = vec![(PRIMARY, primary)];
        let mbr = protective(geometry, first).map(|sector| vec![(0, sector)]);
        let mut steps = match self.array {
            Some(_) => vec![[backup, array].concat(), header],
            None => vec![array, header, backup],
        };
        steps.extend(mbr);
        Ok(steps)
    }

    /// Checks whether the places of all partitions can be used for calculations, whatever else is wrong with them.
    pub(super) fn check_entries(&self) -> Result<(), TableError> {
        let is_valid = |entry: &Entry| entry.first() <= entry.last() && entry.last() < SECTORS_MAX;
        match self.partitions().find(|(_, entry)| !is_valid(entry)) {
            Some((number, _)) => Err(TableError::Entry(number)),
            None => Ok(()),
        }
    }

    /// Checks whether the table can be written to a disk of this size.
    pub(super) fn check(&self, geometry: Geometry) -> Result<(), TableError> {
        self.free_place(self.array_sectors(geometry))?;
        self.check_ends(geometry)
    }

    /// Writes the table, and flushes after each step.
    pub(super) fn write(&self, disk: &dyn Medium) -> io::Result<()> {
        let steps = self.steps(disk.geometry(), &disk.read(0, 1)?).map_err(io::Error::other)?;
        for step in steps {
            for (first, bytes) in step {
                disk.write(first, &bytes)?;
            }
            disk.flush()?;
        }
        Ok(())
    }

    fn array_sectors(&self, geometry: Geometry) -> u64 {
        geometry.count(self.entries.len() * ENTRY_SIZE)
    }

    /// Returns a place for the array of the primary copy that the present one does not use.
    fn free_place(&self, sectors: u64) -> Result<u64, TableError> {
        let first = self.partitions().map(|(_, entry)| entry.first()).min();
        let end = ARRAY + 2 * sectors;
        if let Some(first) = first.filter(|first| *first < end) {
            return Err(TableError::NoRoom { first, expected: end });
        }
        // The array may be elsewhere, if another program has created the table.
        let is_free = |place: &u64| {
            self.array.is_none_or(|array| place + sectors <= array || array + sectors <= *place)
        };
        let places = [ARRAY, ARRAY + sectors];
        places.into_iter().find(is_free).ok_or(TableError::Place(self.array.unwrap_or_default()))
    }

    fn check_ends(&self, geometry: Geometry) -> Result<(), TableError> {
        let usable = self.last_usable(geometry);
        let mut lasts = self.partitions().map(|(_, entry)| entry.last());
        match lasts.find(|last| *last > usable) {
            Some(last) => Err(TableError::TooSmall { last, usable }),
            None => Ok(()),
        }
    }

    /// Returns the array, padded to whole sectors.
    fn array_bytes(&self, geometry: Geometry) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.entries.iter().flat_map(|entry| entry.0).collect();
        bytes.resize((self.array_sectors(geometry) * geometry.sector) as usize, 0);
        bytes
    }

    /// Returns the header of the copy in the sector `own`.
    fn header(&self, geometry: Geometry, own: u64, array: u64, bytes: &[u8]) -> Vec<u8> {
        let length = self.entries.len() * ENTRY_SIZE;
        // Other programs must not put a partition where the array will be next.
        let first_usable = self.first_usable.max(ARRAY + 2 * self.array_sectors(geometry));
        let header = Header {
            own,
            other: if own == PRIMARY { geometry.last() } else { PRIMARY },
            first_usable,
            last_usable: self.last_usable(geometry),
            disk: self.disk,
            array,
            entries: self.entries.len() as u32,
            entry_size: ENTRY_SIZE as u32,
            array_checksum: checksum(&bytes[..length]),
        };
        header.to_sector(geometry.sector as usize)
    }
}

/// Returns the first sector with a protective entry for a disk of this size, or `None` if it needs no change.
/// Boot code stays as it is. Other partitions in the first sector stay, too (a hybrid MBR).
fn protective(geometry: Geometry, sector: &[u8]) -> Option<Vec<u8>> {
    let mut new = sector.to_vec();
    let size = u32::try_from(geometry.last()).unwrap_or(u32::MAX).to_le_bytes();
    let table = new.get_mut(..MBR_SIZE)?;
    if table.ends_with(&[0x55, 0xaa]) {
        let entries = &mut table[MBR_ENTRY..MBR_SIZE - 2];
        let entry = entries.as_chunks_mut::<MBR_ENTRY_SIZE>().0.first_mut()?;
        if entry[4] != PROTECTIVE || entry[8..12] != 1_u32.to_le_bytes() {
            return None;
        }
        put(entry, 12, &size);
    } else {
        // The sectors in cylinders, heads and sectors are those of the specification.
        put(table, MBR_ENTRY, &[0, 0, 2, 0, PROTECTIVE, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
        put(table, MBR_ENTRY + 12, &size);
        put(table, MBR_SIZE - 2, &[0x55, 0xaa]);
    }
    (new != sector).then_some(new)
}
