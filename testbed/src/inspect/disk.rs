//! A disk as its sectors: a file, or the model of one whose every sector knows all contents that it
//! ever had.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha2::{Digest, Sha256};

/// Bytes of a sector: what a disk writes as a whole.
pub const SECTOR: usize = 512;

/// The type of an EFI system partition (UEFI specification, section 5.3.3), as it is on the disk.
pub(crate) const ESP_TYPE: [u8; 16] = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];
/// The number of sectors that the entries of a GPT take by default: 128 entries of 128 bytes.
const GPT_SECTORS: u64 = 32;

/// Something that has sectors.
pub trait Sectors {
    /// The content of a sector.
    fn read(&self, sector: u64) -> io::Result<[u8; SECTOR]>;

    /// A number that stands for the content of this sector: equal for equal contents. None, if there
    /// are no such numbers.
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

/// First sector and number of sectors of the EFI system partition on a disk with a GPT, if it has one.
pub fn find_esp(disk: &impl Sectors) -> io::Result<Option<(u64, u64)>> {
    if !disk.read(1)?.starts_with(b"EFI PART") {
        return Ok(None);
    }
    for sector in 2..2 + GPT_SECTORS {
        let bytes = disk.read(sector)?;
        let esp = bytes.chunks_exact(128).find(|entry| entry[..16] == ESP_TYPE);
        if let Some(entry) = esp {
            let number = |at: usize| {
                entry[at..at + 8].iter().rev().fold(0_u64, |n, byte| n << 8 | u64::from(*byte))
            };
            let (first, last) = (number(32), number(40));
            return Ok(last.checked_sub(first).map(|count| (first, count + 1)));
        }
    }
    Ok(None)
}

/// Contents of sectors, each one held once and known by a number. 0 is the sector of zeros.
pub struct Contents {
    bytes: Vec<[u8; SECTOR]>,
    known: HashMap<u128, u32>,
}

impl Default for Contents {
    fn default() -> Self {
        let mut contents = Self { bytes: Vec::new(), known: HashMap::new() };
        contents.add(&[0; SECTOR]);
        contents
    }
}

impl Contents {
    /// The number of this content.
    pub fn add(&mut self, bytes: &[u8; SECTOR]) -> u32 {
        if bytes == &[0; SECTOR] && !self.bytes.is_empty() {
            return 0;
        }
        let digest = Sha256::digest(bytes);
        let key = digest[..16].iter().fold(0_u128, |key, byte| key << 8 | u128::from(*byte));
        let next = self.bytes.len() as u32;
        let id = *self.known.entry(key).or_insert(next);
        if id == next {
            self.bytes.push(*bytes);
        }
        id
    }
}

/// A disk that goes back and forth between states.
pub struct Model {
    contents: Contents,
    /// The number of what is in each sector at the beginning, and now.
    base: Vec<u32>,
    now: Vec<u32>,
    /// A number for the whole state: the same for the same contents.
    state: u128,
}

impl Model {
    /// The disk of an image; its sectors get more contents to those that are known.
    pub fn load(image: &Path, mut contents: Contents) -> io::Result<Self> {
        const CHUNK: usize = 1 << 20;
        let file = File::open(image)?;
        let length = file.metadata()?.len();
        let mut now = Vec::with_capacity((length / SECTOR as u64) as usize);
        let mut chunk = vec![0; CHUNK];
        let mut at = 0;
        while at < length {
            let count = CHUNK.min((length - at) as usize);
            file.read_exact_at(&mut chunk[..count], at)?;
            let (sectors, rest) = chunk[..count].as_chunks::<SECTOR>();
            if !rest.is_empty() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("it has {length} bytes, which are no whole sectors"),
                ));
            }
            now.extend(sectors.iter().map(|sector| contents.add(sector)));
            at += count as u64;
        }
        Ok(Self { contents, base: now.clone(), now, state: 0 })
    }

    /// Where the contents are that its sectors may be given.
    pub fn contents(&mut self) -> &mut Contents {
        &mut self.contents
    }

    /// The content with this number.
    pub fn content(&self, id: u32) -> &[u8; SECTOR] {
        &self.contents.bytes[id as usize]
    }

    /// Goes back to the beginning.
    pub fn rewind(&mut self) {
        self.now.copy_from_slice(&self.base);
        self.state = 0;
    }

    /// The first sector whose content differs from that of this image.
    pub fn first_difference(&mut self, image: &Path) -> io::Result<Option<u64>> {
        let contents = std::mem::take(&mut self.contents);
        let other = Self::load(image, contents)?;
        let differs = |(ours, theirs): (&u32, &u32)| ours != theirs;
        let place = self.now.iter().zip(&other.now).position(differs);
        let place = place.or_else(|| (self.now.len() != other.now.len()).then_some(self.now.len()));
        self.contents = other.contents;
        Ok(place.map(|place| place as u64))
    }

    /// Writes these sectors, as they are now, to a new file, with holes for zeros.
    pub fn save(&self, sectors: Range<u64>, to: &Path) -> io::Result<()> {
        let file = File::create_new(to)?;
        file.set_len((sectors.end - sectors.start) * SECTOR as u64)?;
        for (place, sector) in (0_u64..).zip(sectors) {
            let id = self.now.get(sector as usize).copied().unwrap_or_default();
            if id != 0 {
                let bytes = &self.contents.bytes[id as usize];
                file.write_all_at(bytes, place * SECTOR as u64)?;
            }
        }
        Ok(())
    }

    /// How many sectors it has.
    pub fn len(&self) -> u64 {
        self.now.len() as u64
    }

    /// Puts another content into a sector, and returns the one before. A sector that is not there is
    /// not changed: whoever reads a log checks that before.
    pub fn set(&mut self, sector: u64, id: u32) -> u32 {
        let Some(place) = self.now.get_mut(sector as usize) else { return 0 };
        let before = std::mem::replace(place, id);
        self.state ^= fingerprint(sector, before) ^ fingerprint(sector, id);
        before
    }

    /// A number for the state that it is in: the same for the same contents.
    pub fn state(&self) -> u128 {
        self.state
    }
}

impl Sectors for Model {
    fn read(&self, sector: u64) -> io::Result<[u8; SECTOR]> {
        let id = self.now.get(sector as usize).copied();
        let id = id.ok_or_else(|| io::Error::other(format!("there is no sector {sector}")))?;
        Ok(self.contents.bytes[id as usize])
    }

    fn id(&self, sector: u64) -> Option<u32> {
        self.now.get(sector as usize).copied()
    }
}

/// Two steps of splitmix64, one for each half: states are compared, nobody attacks them.
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
