//! The bytes of a GPT's header and entries (UEFI specification, section 5.3). Numbers are little-endian.

use flate2::Crc;

/// The size of an entry in bytes. The specification allows larger ones, which no program creates.
pub(super) const ENTRY_SIZE: usize = 128;
const SIGNATURE: &[u8; 8] = b"EFI PART";
/// Version 1.0.
const REVISION: u32 = 0x0001_0000;
/// The size of the header in bytes.
const HEADER_SIZE: usize = 92;
/// The offset of the header's own checksum.
const CHECKSUM: usize = 16;
/// The length of a name in UTF-16 code units.
const NAME_MAX: usize = 36;

/// The header of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    /// The sector of this header.
    pub(super) own: u64,
    /// The sector of the header of the other copy.
    pub(super) other: u64,
    /// The first and the last sector that partitions may use.
    pub(super) first_usable: u64,
    pub(super) last_usable: u64,
    /// The GUID of the disk.
    pub(super) disk: [u8; 16],
    /// The first sector of the array.
    pub(super) array: u64,
    /// The number of entries.
    pub(super) entries: u32,
    /// The size of an entry in bytes.
    pub(super) entry_size: u32,
    /// The checksum of the array.
    pub(super) array_checksum: u32,
}

impl Header {
    /// Parses a sector. Returns `None` if it has no header with a correct checksum.
    pub(super) fn parse(sector: &[u8]) -> Option<Self> {
        if !sector.starts_with(SIGNATURE) || u32_at(sector, 8)? != REVISION {
            return None;
        }
        let size = usize::try_from(u32_at(sector, 12)?).ok()?;
        if size < HEADER_SIZE {
            return None;
        }
        let mut header = sector.get(..size)?.to_vec();
        put(&mut header, CHECKSUM, &[0; 4]);
        if checksum(&header) != u32_at(sector, CHECKSUM)? {
            return None;
        }
        Some(Self {
            own: u64_at(sector, 24)?,
            other: u64_at(sector, 32)?,
            first_usable: u64_at(sector, 40)?,
            last_usable: u64_at(sector, 48)?,
            disk: sector.get(56..72)?.try_into().ok()?,
            array: u64_at(sector, 72)?,
            entries: u32_at(sector, 80)?,
            entry_size: u32_at(sector, 84)?,
            array_checksum: u32_at(sector, 88)?,
        })
    }

    /// Returns a sector of this many bytes with the header.
    pub(super) fn to_sector(&self, size: usize) -> Vec<u8> {
        let mut sector = Vec::with_capacity(size);
        sector.extend_from_slice(SIGNATURE);
        sector.extend_from_slice(&REVISION.to_le_bytes());
        sector.extend_from_slice(&(HEADER_SIZE as u32).to_le_bytes());
        // The checksum of the header, and four reserved bytes.
        sector.extend_from_slice(&[0; 8]);
        for number in [self.own, self.other, self.first_usable, self.last_usable] {
            sector.extend_from_slice(&number.to_le_bytes());
        }
        sector.extend_from_slice(&self.disk);
        sector.extend_from_slice(&self.array.to_le_bytes());
        for number in [self.entries, self.entry_size, self.array_checksum] {
            sector.extend_from_slice(&number.to_le_bytes());
        }
        let sum = checksum(&sector);
        put(&mut sector, CHECKSUM, &sum.to_le_bytes());
        sector.resize(size, 0);
        sector
    }
}

/// An entry of the array.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry(pub(super) [u8; ENTRY_SIZE]);

impl Entry {
    /// Returns an entry of this type, in the byte order of the disk.
    pub(super) fn new(kind: [u8; 16], first: u64, last: u64) -> Self {
        let mut entry = Self([0; ENTRY_SIZE]);
        put(&mut entry.0, 0, &kind);
        // A GUID that is unique enough for a table that is never written to a disk.
        put(&mut entry.0, 16, &kind);
        put(&mut entry.0, 32, &first.to_le_bytes());
        entry.set_last(last);
        entry
    }

    /// Returns whether the entry has a partition.
    pub(super) fn is_used(&self) -> bool {
        self.0[..16] != [0; 16]
    }

    /// Returns the type of the partition, in the byte order of the disk.
    pub(crate) fn kind(&self) -> &[u8] {
        &self.0[..16]
    }

    /// Returns the first sector.
    pub(crate) fn first(&self) -> u64 {
        u64_at(&self.0, 32).unwrap_or_default()
    }

    /// Returns the last sector, which belongs to the partition.
    pub(crate) fn last(&self) -> u64 {
        u64_at(&self.0, 40).unwrap_or_default()
    }

    /// Changes the last sector.
    pub(crate) fn set_last(&mut self, last: u64) {
        put(&mut self.0, 40, &last.to_le_bytes());
    }

    /// Returns whether an attribute is set.
    pub(crate) fn has_attribute(&self, attribute: u64) -> bool {
        self.attributes() & attribute != 0
    }

    /// Sets or clears an attribute.
    pub(crate) fn set_attribute(&mut self, attribute: u64, is_set: bool) {
        let others = self.attributes() & !attribute;
        let new = if is_set { others | attribute } else { others };
        put(&mut self.0, 48, &new.to_le_bytes());
    }

    fn attributes(&self) -> u64 {
        u64_at(&self.0, 48).unwrap_or_default()
    }

    fn name(&self) -> String {
        let units = self.0[56..].as_chunks::<2>().0.iter().take(NAME_MAX);
        let units = units.map(|unit| u16::from_le_bytes(*unit)).take_while(|unit| *unit != 0);
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, attributes) = (self.name(), self.attributes());
        write!(f, "{name:?} {}-{} {attributes:#x}", self.first(), self.last())
    }
}

/// Returns the CRC-32 of bytes.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Overwrites bytes at an offset. Bytes beyond the end are dropped.
pub(super) fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes.iter_mut().skip(at).zip(new).for_each(|(old, new)| *old = *new);
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
