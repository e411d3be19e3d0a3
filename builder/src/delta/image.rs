//! A file as blocks, most of which are compressed, and the units that they contain.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use protocol::delta::{Codec, Recompress};

use super::found::{Found, FoundPiece, decompress};
use super::{kernel, squashfs};

/// The maximum length of a block that is not compressed.
const PLAIN_MAX: usize = 256 * 1024;
/// The number of contents that [`Contents`] keeps.
const KEPT: usize = 16;
/// The name of the unit of everything that belongs to no other.
const OTHER: &str = "other";

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    /// The offset in the file.
    pub offset: usize,
    /// The length in the file.
    pub stored: usize,
    /// Whether it is a zstd frame.
    pub is_frame: bool,
}

impl Block {
    pub(super) fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.stored
    }
}

/// A part of the content of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// The index of the block.
    pub block: usize,
    /// The offset in its content.
    pub from: usize,
    /// The number of bytes.
    pub length: usize,
}

/// Something whose content is similar in both files, such as a file of the SquashFS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Unit {
    pub name: String,
    pub pieces: Vec<Piece>,
}

/// A file, its blocks in order and without gaps, and its units.
pub(super) struct Image<'a> {
    pub bytes: &'a [u8],
    pub blocks: Vec<Block>,
    pub units: Vec<Unit>,
    /// How the frames were compressed. It has no meaning if there are none.
    pub recompress: Recompress,
}

impl<'a> Image<'a> {
    /// Finds the blocks of an initrd or of a kernel. Another file is one unit without compressed blocks.
    ///
    /// # Errors
    /// Fails if a SquashFS or a kernel is damaged.
    pub(super) fn of(bytes: &'a [u8]) -> Result<Self> {
        let found = match squashfs::find(bytes) {
            Some(offset) => squashfs::read(bytes, offset).context("reading the SquashFS")?,
            None => kernel::read(bytes).context("reading the kernel")?.unwrap_or_default(),
        };
        let blocks = with_plain_blocks(bytes, &found)?;
        let index: HashMap<usize, usize> =
            blocks.iter().enumerate().map(|(index, block)| (block.offset, index)).collect();
        let recompress = found.recompress.unwrap_or(Recompress::here(Codec::Block, 1));
        let mut image = Self { bytes, blocks, units: Vec::new(), recompress };
        for (name, pieces) in found.units {
            let mut unit = Unit { name, pieces: Vec::new() };
            for FoundPiece { block, from, length } in pieces {
                let block = *index.get(&block).context("a unit is in no block")?;
                let length = match length {
                    Some(length) => length,
                    None => image.content(block)?.len().saturating_sub(from),
                };
                unit.pieces.push(Piece { block, from, length });
            }
            image.units.push(unit);
        }
        image.add_other_blocks(&found.blocks);
        Ok(image)
    }

    /// Adds a unit of all blocks that the parser did not find.
    fn add_other_blocks(&mut self, found: &BTreeMap<usize, (usize, bool)>) {
        let is_other = |block: &&(usize, &Block)| !found.contains_key(&block.1.offset);
        let other = self.blocks.iter().enumerate().collect::<Vec<_>>();
        let pieces = other
            .iter()
            .filter(is_other)
            .map(|(index, block)| Piece { block: *index, from: 0, length: block.stored })
            .collect();
        self.units.push(Unit { name: OTHER.to_owned(), pieces });
    }

    /// Returns the stored bytes of a block.
    pub(super) fn stored(&self, block: usize) -> &'a [u8] {
        &self.bytes[self.blocks[block].range()]
    }

    /// Returns the content of a block.
    pub(super) fn content(&self, block: usize) -> Result<Vec<u8>> {
        let stored = self.stored(block);
        match self.blocks[block].is_frame {
            true => decompress(stored),
            false => Ok(stored.to_vec()),
        }
    }

    /// Returns the content of a unit.
    pub(super) fn unit_content(&self, pieces: &[Piece]) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        let mut contents = Contents::of(self);
        for Piece { block, from, length } in pieces {
            let piece = contents.get(*block)?.get(*from..from + length);
            content.extend(piece.context("a block is shorter than its unit says")?);
        }
        Ok(content)
    }
}

/// Decompresses blocks, and keeps the contents that were used last.
pub(super) struct Contents<'a> {
    image: &'a Image<'a>,
    /// The blocks with their contents, the one that was used last first.
    kept: VecDeque<(usize, Vec<u8>)>,
}

impl<'a> Contents<'a> {
    pub(super) fn of(image: &'a Image<'a>) -> Self {
        Self { image, kept: VecDeque::new() }
    }

    /// Returns the content of a block.
    pub(super) fn get(&mut self, block: usize) -> Result<&[u8]> {
        let found = self.kept.iter().position(|(known, _)| *known == block);
        let first = match found.and_then(|index| self.kept.remove(index)) {
            Some(kept) => kept,
            None => (block, self.image.content(block)?),
        };
        self.kept.truncate(KEPT - 1);
        self.kept.push_front(first);
        Ok(&self.kept[0].1)
    }
}

/// Returns all blocks: those that were found, and the parts between them.
fn with_plain_blocks(bytes: &[u8], found: &Found) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut end = 0;
    let plain = |range: Range<usize>, blocks: &mut Vec<Block>| {
        for offset in range.clone().step_by(PLAIN_MAX) {
            let stored = PLAIN_MAX.min(range.end - offset);
            blocks.push(Block { offset, stored, is_frame: false });
        }
    };
    for (offset, (stored, is_frame)) in &found.blocks {
        ensure!(*offset >= end && *stored > 0, "the block at byte {offset} overlaps another one");
        plain(end..*offset, &mut blocks);
        blocks.push(Block { offset: *offset, stored: *stored, is_frame: *is_frame });
        end = offset + stored;
    }
    ensure!(end <= bytes.len(), "a block extends beyond the end of the file");
    plain(end..bytes.len(), &mut blocks);
    Ok(blocks)
}
