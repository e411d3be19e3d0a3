//! Access to the sectors of a disk: of an image file, or of a model in memory that can change between
//! states.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha2::{Digest, Sha256};

/// Bytes of a sector. A disk writes a sector completely or not at all. Disks with larger sectors are read in
/// parts of this size.
pub(crate) const SECTOR: usize = 512;

/// The type GUID of an EFI system partition (UEFI specification, section 5.3.3), in on-disk byte order.
pub(crate) const ESP_TYPE: [u8; 16] = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];
/// The sizes of the sectors that a GPT may count in, in sectors of [`SECTOR`] bytes: 512 and 4096 bytes.
const GPT_UNITS: [u64; 2] = [1, 8];
/// Sectors of the default table of GPT entries: 128 entries of 128 bytes.
const GPT_SECTORS: u64 = 32;

/// A disk whose sectors can be read.
pub(crate) trait Sectors {
    /// Reads a sector.
    fn read(&self, sector: u64) -> io::Result<[u8; SECTOR]>;

    /// Returns the number of the sector's content. Equal contents have equal numbers. Returns `None` if
    /// the implementation does not number contents.
    fn id(&self, sector: u64) -> Option<u32>;
}

impl Sectors for File {
    fn read(&self, sector: u64) -> io::Result<[u8; SECTOR]> {
        let mut bytes = [0; SECTOR];
        self.read_exact_at(&mut bytes, sector.saturating_mul(SECTOR as u64))?;
        Ok(bytes)
    }

    fn id(&self, _: u64) -> Option<u32> {
        None
    }
}

/// Returns the first sector and the number of sectors of the EFI system partition, or `None` if the disk
/// has no GPT or no such partition.
pub(crate) fn find_esp(disk: &impl Sectors) -> io::Result<Option<(u64, u64)>> {
    for unit in GPT_UNITS {
        let header = match disk.read(unit) {
            Ok(header) => header,
            // A disk that is too short for this header does not have it.
            Err(_) if unit > 1 => return Ok(None),
            Err(error) => return Err(error),
        };
        if header.starts_with(b"EFI PART") {
            return find_entry(disk, unit);
        }
    }
    Ok(None)
}

/// Finds the EFI system partition in a GPT that counts in units of this many sectors.
fn find_entry(disk: &impl Sectors, unit: u64) -> io::Result<Option<(u64, u64)>> {
    for sector in 2 * unit..2 * unit + GPT_SECTORS {
        let bytes = disk.read(sector)?;
        let esp = bytes.chunks_exact(128).find(|entry| entry[..16] == ESP_TYPE);
        if let Some(entry) = esp {
            let number = |at: usize| {
                entry[at..at + 8].iter().rev().fold(0_u64, |n, byte| n << 8 | u64::from(*byte))
            };
            let (first, last) = (number(32), number(40));
            let count = last.checked_sub(first).and_then(|count| (count + 1).checked_mul(unit));
            return Ok(first.checked_mul(unit).zip(count));
        }
    }
    Ok(None)
}

/// Deduplicated sector contents, each with a number. The sector of zeros has the number 0.
pub(crate) struct Contents {
    bytes: Vec<[u8; SECTOR]>,
    ids: HashMap<u128, u32>,
}

impl Default for Contents {
    fn default() -> Self {
        let mut contents = Self { bytes: Vec::new(), ids: HashMap::new() };
        contents.add(&[0; SECTOR]);
        contents
    }
}

impl Contents {
    /// Adds a content if it is new, and returns its number.
    pub(crate) fn add(&mut self, bytes: &[u8; SECTOR]) -> u32 {
        if bytes == &[0; SECTOR] && !self.bytes.is_empty() {
            return 0;
        }
        let digest = Sha256::digest(bytes);
        let key = digest[..16].iter().fold(0_u128, |key, byte| key << 8 | u128::from(*byte));
        let next = self.bytes.len() as u32;
        let id = *self.ids.entry(key).or_insert(next);
        if id == next {
            self.bytes.push(*bytes);
        }
        id
    }
}

/// A disk in memory that can change between states.
pub(crate) struct Model {
    contents: Contents,
    /// The content number of each sector of the image.
    base: Vec<u32>,
    /// The content number of each sector in the current state.
    current: Vec<u32>,
    /// See [`Model::state`].
    state: u128,
}

impl Model {
    /// Loads a disk image. Adds the contents of its sectors to `contents`.
    pub(crate) fn load(image: &Path, mut contents: Contents) -> io::Result<Self> {
        const CHUNK: usize = 1 << 20;
        let file = File::open(image)?;
        let length = file.metadata()?.len();
        let mut current = Vec::with_capacity((length / SECTOR as u64) as usize);
        let mut chunk = vec![0; CHUNK];
        let mut at = 0;
        while at < length {
            let count = CHUNK.min((length - at) as usize);
            file.read_exact_at(&mut chunk[..count], at)?;
            let (sectors, rest) = chunk[..count].as_chunks::<SECTOR>();
            if !rest.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("its size of {length} bytes is not a multiple of {SECTOR}"),
                ));
            }
            current.extend(sectors.iter().map(|sector| contents.add(sector)));
            at += count as u64;
        }
        Ok(Self { contents, base: current.clone(), current, state: 0 })
    }

    /// Returns the contents, to which new ones can be added.
    pub(crate) fn contents(&mut self) -> &mut Contents {
        &mut self.contents
    }

    /// Returns the content with this number.
    pub(crate) fn content(&self, id: u32) -> &[u8; SECTOR] {
        &self.contents.bytes[id as usize]
    }

    /// Restores the state of the image.
    pub(crate) fn rewind(&mut self) {
        self.current.copy_from_slice(&self.base);
        self.state = 0;
    }

    /// Returns the first sector that differs from `image`, or `None` if they are equal.
    pub(crate) fn first_difference(&mut self, image: &Path) -> io::Result<Option<u64>> {
        let contents = std::mem::take(&mut self.contents);
        let other = Self::load(image, contents)?;
        let (ours, theirs) = (&self.current, &other.current);
        let difference = ours.iter().zip(theirs).position(|(ours, theirs)| ours != theirs);
        let sector = difference.or_else(|| (ours.len() != theirs.len()).then_some(ours.len()));
        self.contents = other.contents;
        Ok(sector.map(|sector| sector as u64))
    }

    /// Writes sectors of the current state to a new file, with holes for zeros.
    pub(crate) fn save(&self, sectors: Range<u64>, to: &Path) -> io::Result<()> {
        let file = File::create_new(to)?;
        file.set_len((sectors.end - sectors.start) * SECTOR as u64)?;
        for (index, sector) in (0_u64..).zip(sectors) {
            let id = self.current.get(sector as usize).copied().unwrap_or_default();
            if id != 0 {
                let bytes = &self.contents.bytes[id as usize];
                file.write_all_at(bytes, index * SECTOR as u64)?;
            }
        }
        Ok(())
    }

    /// Makes the disk larger by this many sectors of zeros, in all of its states.
    pub(crate) fn extend(&mut self, sectors: u64) {
        let sectors = self.base.len() + sectors as usize;
        self.base.resize(sectors, 0);
        self.current.resize(sectors, 0);
    }

    /// Returns a fingerprint of some sectors of the current state.
    pub(crate) fn fingerprint(&self, sectors: Range<u64>) -> u128 {
        let ids = &self.current[sectors.start as usize..sectors.end as usize];
        let used = (sectors.start..).zip(ids).filter(|(_, id)| **id != 0);
        used.fold(0, |print, (sector, id)| print ^ fingerprint(sector, *id))
    }

    /// Returns the number of sectors.
    pub(crate) fn len(&self) -> u64 {
        self.current.len() as u64
    }

    /// Replaces the content of a sector and returns the number of the old one. Ignores a sector beyond
    /// the end of the disk: the reader of a log has already rejected such sectors.
    pub(crate) fn set(&mut self, sector: u64, id: u32) -> u32 {
        let Some(current) = self.current.get_mut(sector as usize) else { return 0 };
        let old = std::mem::replace(current, id);
        self.state ^= fingerprint(sector, old) ^ fingerprint(sector, id);
        old
    }

    /// Returns a fingerprint of the current state. States of equal contents have equal fingerprints.
    pub(crate) fn state(&self) -> u128 {
        self.state
    }
}

impl Sectors for Model {
    fn read(&self, sector: u64) -> io::Result<[u8; SECTOR]> {
        let id = self.current.get(sector as usize).copied();
        let id =
            id.ok_or_else(|| io::Error::other(format!("sector {sector} is beyond the end")))?;
        Ok(self.contents.bytes[id as usize])
    }

    fn id(&self, sector: u64) -> Option<u32> {
        self.current.get(sector as usize).copied()
    }
}

/// Hashes a sector and its content number with two steps of splitmix64, one for each half. The hash need
/// not resist attacks.
fn fingerprint(sector: u64, id: u32) -> u128 {
    let seed = sector << 32 ^ u64::from(id);
    let mix = |seed: u64| {
        let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    };
    let high = mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
    let low = mix(seed.wrapping_add(0x3c6e_f372_fe94_f82a));
    u128::from(high) << 64 | u128::from(low)
}
