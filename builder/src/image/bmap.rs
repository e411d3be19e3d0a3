//! The block map of a disk image, in format 2.0 of `bmaptool`. With it, only the blocks that matter are
//! written to a disk.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use protocol::digest;

use super::fat;

/// The size of a block in bytes.
const BLOCK: u64 = 4096;

/// How much of a disk image is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mapped {
    /// The number of blocks that have to be written.
    pub(crate) mapped: u64,
    /// The number of all blocks.
    pub(crate) total: u64,
}

/// Writes the block map of `disk`, whose ESP has the bytes `esp`.
///
/// Only blocks that lie in free clusters of the ESP are left out. Other blocks are part of the map even if
/// they are zero, because the disk that they are written to may hold anything: zeros in the FAT or in a
/// file have a meaning.
pub(crate) fn write(disk: &Path, esp: Range<u64>, to: &Path) -> Result<Mapped> {
    let reading = || format!("reading {}", disk.display());
    let mut file = File::open(disk).with_context(reading)?;
    let size = file.metadata().with_context(reading)?.len();
    let free = fat::free_space(&file, esp).with_context(reading)?;
    let ranges = mapped(size.div_ceil(BLOCK), &free);
    let map = Map::of(&mut file, size, &ranges).with_context(reading)?;
    fs::write(to, map.to_xml()).with_context(|| format!("writing {}", to.display()))?;
    Ok(map.count())
}

/// Returns the ranges of blocks outside of `free`, which is in order. A block that is only partly free is
/// mapped.
fn mapped(blocks: u64, free: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut ranges = Vec::new();
    let mut next = 0;
    for range in free {
        let (start, end) = (range.start.div_ceil(BLOCK), range.end / BLOCK);
        if start < end {
            ranges.push(next..start);
            next = end;
        }
    }
    ranges.push(next..blocks);
    ranges.retain(|range| !range.is_empty());
    ranges
}

struct Map {
    size: u64,
    /// The mapped ranges of blocks, with the SHA-256 of their content.
    ranges: Vec<(Range<u64>, String)>,
}

impl Map {
    fn of(disk: &mut File, size: u64, ranges: &[Range<u64>]) -> io::Result<Self> {
        let mut with_digests = Vec::new();
        for range in ranges {
            disk.seek(SeekFrom::Start(range.start * BLOCK))?;
            let length = (range.end - range.start) * BLOCK;
            let (_, sha256) = digest::of_reader(disk.by_ref().take(length))?;
            with_digests.push((range.clone(), sha256));
        }
        Ok(Self { size, ranges: with_digests })
    }

    fn count(&self) -> Mapped {
        let mapped = self.ranges.iter().map(|(range, _)| range.end - range.start).sum();
        Mapped { mapped, total: self.size.div_ceil(BLOCK) }
    }

    /// Returns the map as XML. It contains its own SHA-256, which is computed with zeros in its place.
    fn to_xml(&self) -> String {
        let placeholder = "0".repeat(64);
        let xml = self.to_xml_with(&placeholder);
        self.to_xml_with(&digest::of_bytes(xml.as_bytes()))
    }

    fn to_xml_with(&self, checksum: &str) -> String {
        let Mapped { mapped, total } = self.count();
        let mut xml = format!(
            "<?xml version=\"1.0\" ?>\n\
             <bmap version=\"2.0\">\n\
             <ImageSize>{}</ImageSize>\n\
             <BlockSize>{BLOCK}</BlockSize>\n\
             <BlocksCount>{total}</BlocksCount>\n\
             <MappedBlocksCount>{mapped}</MappedBlocksCount>\n\
             <ChecksumType>sha256</ChecksumType>\n\
             <BmapFileChecksum>{checksum}</BmapFileChecksum>\n\
             <BlockMap>\n",
            self.size
        );
        for (range, sha256) in &self.ranges {
            let (first, last) = (range.start, range.end - 1);
            let blocks = if first == last { first.to_string() } else { format!("{first}-{last}") };
            let _ = writeln!(xml, "<Range chksum=\"{sha256}\">{blocks}</Range>");
        }
        xml + "</BlockMap>\n</bmap>\n"
    }
}

#[cfg(test)]
mod tests;
