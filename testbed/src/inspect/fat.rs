//! A strict, read-only reader of FAT32 for the states that a power cut leaves.
//!
//! It shares no code with the writer of the file system, and accepts a file system that was not
//! unmounted. The layout follows Microsoft's "FAT32 File System Specification" 1.03. Names are read as
//! GRUB reads them: the long name if it is complete, else the short one, without regard to case.

use std::io;

use super::disk::{SECTOR, Sectors};

/// Bytes of a directory entry.
const ENTRY: usize = 32;
/// The size limit for a directory, in clusters. The directories of EtchaOS are smaller.
const DIRECTORY_CLUSTERS_MAX: usize = 256;
/// Entries of the file allocation table per sector.
const LINKS: u64 = SECTOR as u64 / 4;
/// The upper four bits of a table entry are reserved.
const LINK_MASK: u32 = 0x0fff_ffff;
/// The lowest value of a table entry that ends a chain.
const END: u32 = 0x0fff_fff8;
/// The depth limit for [`Fat::files`].
const DEPTH_MAX: usize = 8;

const ATTRIBUTE_VOLUME: u8 = 0x08;
const ATTRIBUTE_DIRECTORY: u8 = 0x10;
const ATTRIBUTE_LONG: u8 = 0x0f;

/// A failed read of a file system.
#[derive(Debug, thiserror::Error)]
pub enum FatError {
    /// The disk cannot be read.
    #[error("the disk cannot be read: {0}")]
    Disk(#[from] io::Error),
    /// The first sector is not of a valid FAT32 file system.
    #[error("not a valid FAT32 file system: {0}")]
    Geometry(&'static str),
    /// A chain of clusters ends early, is too long or leaves the disk.
    #[error("broken chain of clusters: {0}")]
    Chain(String),
    /// A file exceeds its size limit.
    #[error("{found} bytes, expected at most {max}")]
    TooLarge {
        /// The size.
        found: u64,
        /// The limit.
        max: u64,
    },
}

/// A file or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// The name.
    pub name: String,
    /// Whether the node is a directory.
    pub is_directory: bool,
    /// The size in bytes; 0 for a directory.
    pub size: u64,
    /// The first cluster; 0 if the node has none.
    first: u32,
}

/// A file system on a disk.
pub(crate) struct Fat<'a, S> {
    disk: &'a S,
    /// The first sector of the file allocation table, from the beginning of the disk.
    table: u64,
    /// The first sector of cluster 2, from the beginning of the disk.
    data: u64,
    cluster_sectors: u64,
    clusters: u32,
    root: u32,
}

impl<'a, S: Sectors> Fat<'a, S> {
    /// Opens the file system that begins at sector `start`.
    pub(crate) fn open(disk: &'a S, start: u64) -> Result<Self, FatError> {
        let boot = disk.read(start)?;
        let u16_at = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let u32_at = |at: usize| u32_in(&boot, at);
        if boot[510..] != [0x55, 0xaa] {
            return Err(FatError::Geometry("its first sector has no signature"));
        }
        // It counts in the sectors of the disk that it was made for, this code in those of 512 bytes.
        let unit = match u16_at(11) {
            512 => 1,
            4096 => 8,
            _ => return Err(FatError::Geometry("its sectors have neither 512 nor 4096 bytes")),
        };
        let (cluster_sectors, reserved) = (u64::from(boot[13]) * unit, u16_at(14) * unit);
        let (copies, table_sectors) = (u64::from(boot[16]), u64::from(u32_at(36)) * unit);
        if !cluster_sectors.is_power_of_two() || reserved == 0 || !(1..=2).contains(&copies) {
            return Err(FatError::Geometry(
                "invalid number of clusters, reserved sectors or tables",
            ));
        }
        if u16_at(17) != 0 || u16_at(22) != 0 || table_sectors == 0 {
            return Err(FatError::Geometry("it is FAT12 or FAT16"));
        }
        let total = u64::from(u32_at(32)) * unit;
        let before = reserved + copies * table_sectors;
        let clusters = total.checked_sub(before).map(|sectors| sectors / cluster_sectors);
        let clusters = clusters.and_then(|count| u32::try_from(count).ok()).unwrap_or_default();
        if clusters == 0 || u64::from(clusters) + 2 > table_sectors * LINKS {
            return Err(FatError::Geometry("its table is too small for its clusters"));
        }
        let (table, data) = (start + reserved, start + before);
        Ok(Self { disk, table, data, cluster_sectors, clusters, root: u32_at(44) })
    }

    /// Returns the node at a path of names separated by slashes, or `None` if it does not exist.
    pub(crate) fn find(&self, path: &str) -> Result<Option<Node>, FatError> {
        let mut node = Node { name: String::new(), is_directory: true, size: 0, first: self.root };
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if !node.is_directory {
                return Ok(None);
            }
            let found = self.list(&node)?.into_iter().find(|n| n.name.eq_ignore_ascii_case(name));
            match found {
                Some(found) => node = found,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    /// Returns the content of a directory, without `.` and `..`.
    pub(crate) fn list(&self, directory: &Node) -> Result<Vec<Node>, FatError> {
        let chain = self.chain(directory.first, None)?;
        let mut nodes = Vec::new();
        let mut long = LongName::default();
        for cluster in chain {
            for sector in self.sectors_of(cluster) {
                let bytes = self.disk.read(sector)?;
                for entry in bytes.chunks_exact(ENTRY) {
                    match entry[0] {
                        0 => return Ok(nodes),
                        0xe5 => long = LongName::default(),
                        _ if entry[11] & 0x3f == ATTRIBUTE_LONG => long.add(entry),
                        _ => {
                            let name = std::mem::take(&mut long).finish(entry);
                            nodes.extend(node(entry, name));
                        }
                    }
                }
            }
        }
        Ok(nodes)
    }

    /// Returns every file below a directory, with its path from the root.
    pub(crate) fn files(&self, path: &str) -> Result<Vec<(String, Node)>, FatError> {
        let mut files = Vec::new();
        if let Some(node) = self.find(path)? {
            self.walk(path, &node, 0, &mut files)?;
        }
        Ok(files)
    }

    fn walk(
        &self,
        path: &str,
        node: &Node,
        depth: usize,
        files: &mut Vec<(String, Node)>,
    ) -> Result<(), FatError> {
        if !node.is_directory {
            files.push((path.to_owned(), node.clone()));
            return Ok(());
        }
        if depth == DEPTH_MAX {
            return Err(FatError::Chain(format!("{path} is nested too deeply")));
        }
        for child in self.list(node)? {
            self.walk(&format!("{path}/{}", child.name), &child, depth + 1, files)?;
        }
        Ok(())
    }

    /// Returns the sectors of a file in order. The last one may be used in part.
    pub(crate) fn sectors(&self, file: &Node) -> Result<Vec<u64>, FatError> {
        let count = file.size.div_ceil(SECTOR as u64);
        let chain = self.chain(file.first, Some(count.div_ceil(self.cluster_sectors)))?;
        let sectors = chain.into_iter().flat_map(|cluster| self.sectors_of(cluster));
        Ok(sectors.take(count as usize).collect())
    }

    /// Reads a file of at most `max` bytes.
    pub(crate) fn content(&self, file: &Node, max: u64) -> Result<Vec<u8>, FatError> {
        if file.size > max {
            return Err(FatError::TooLarge { found: file.size, max });
        }
        let mut bytes = Vec::new();
        for sector in self.sectors(file)? {
            bytes.extend_from_slice(&self.disk.read(sector)?);
        }
        bytes.truncate(file.size as usize);
        Ok(bytes)
    }

    fn sectors_of(&self, cluster: u32) -> impl Iterator<Item = u64> + use<S> {
        let first = self.data + u64::from(cluster - 2) * self.cluster_sectors;
        first..first + self.cluster_sectors
    }

    /// Returns the first `count` clusters of a chain, or all of them if `count` is `None`.
    fn chain(&self, first: u32, count: Option<u64>) -> Result<Vec<u32>, FatError> {
        if count.is_some_and(|count| count > u64::from(self.clusters)) {
            return Err(FatError::Chain("the file is larger than the disk".into()));
        }
        let max = count.map_or(DIRECTORY_CLUSTERS_MAX, |count| count as usize);
        let mut chain = Vec::new();
        let (mut cluster, mut cached, mut links) = (first, u64::MAX, [0; SECTOR]);
        while chain.len() < max {
            if cluster < 2 || cluster - 2 >= self.clusters {
                let index = chain.len();
                let problem = format!("link {index} points to the invalid cluster {cluster:#x}");
                return Err(FatError::Chain(problem));
            }
            chain.push(cluster);
            let sector = self.table + u64::from(cluster) / LINKS;
            if sector != cached {
                (cached, links) = (sector, self.disk.read(sector)?);
            }
            cluster = u32_in(&links, (u64::from(cluster) % LINKS) as usize * 4) & LINK_MASK;
            if count.is_none() && cluster >= END {
                return Ok(chain);
            }
        }
        match count {
            Some(_) => Ok(chain),
            None => Err(FatError::Chain(format!("a directory has more than {max} clusters"))),
        }
    }
}

/// Parses a short entry. Returns `None` for a volume label, `.` and `..`.
fn node(entry: &[u8], name: String) -> Option<Node> {
    if entry[11] & ATTRIBUTE_VOLUME != 0 || entry[0] == b'.' {
        return None;
    }
    let half = |at: usize| u32::from(u16::from_le_bytes([entry[at], entry[at + 1]]));
    Some(Node {
        name,
        is_directory: entry[11] & ATTRIBUTE_DIRECTORY != 0,
        size: u64::from(u32_in(entry, 28)),
        first: (half(20) << 16 | half(26)) & LINK_MASK,
    })
}

fn u32_in(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A long name. Its parts precede the short entry, the last part first.
#[derive(Default)]
struct LongName {
    units: Vec<u16>,
    checksum: u8,
    /// The number of the part that must follow; 0 after the first part of the name.
    next: u8,
    is_valid: bool,
}

impl LongName {
    fn add(&mut self, entry: &[u8]) {
        let (number, checksum) = (entry[0] & 0x3f, entry[13]);
        if entry[0] & 0x40 != 0 {
            *self = Self { units: Vec::new(), checksum, next: number, is_valid: number > 0 };
        }
        self.is_valid &= number == self.next && checksum == self.checksum && number > 0;
        self.next = number.saturating_sub(1);
        let offsets = [1..11, 14..26, 28..32].into_iter().flatten().step_by(2);
        let part = offsets.map(|at| u16::from_le_bytes([entry[at], entry[at + 1]]));
        self.units.splice(0..0, part);
    }

    /// Returns the name of a short entry: the long name if it is complete and belongs to the entry.
    fn finish(self, entry: &[u8]) -> String {
        let checksum = entry[..11].iter().fold(0_u8, |sum, b| sum.rotate_right(1).wrapping_add(*b));
        if !self.is_valid || self.next != 0 || self.checksum != checksum {
            return short_name(entry);
        }
        let units = self.units.into_iter().take_while(|unit| *unit != 0);
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    }
}

fn short_name(entry: &[u8]) -> String {
    let text = |bytes: &[u8]| {
        let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        text.trim_end().to_ascii_lowercase()
    };
    match (text(&entry[..8]), text(&entry[8..11])) {
        (name, extension) if extension.is_empty() => name,
        (name, extension) => format!("{name}.{extension}"),
    }
}
