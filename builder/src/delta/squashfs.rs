//! Reads which blocks a SquashFS 4.0 has, and to which files they belong (kernel document
//! `filesystems/squashfs`). Only zstd is supported.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use protocol::delta::{Codec, Recompress};

use super::found::{Found, FoundPiece, decompress};

mod inodes;

use inodes::{Directory, Inode, Inodes};

const MAGIC: &[u8] = b"hsqs";
const SUPERBLOCK: usize = 96;
/// Version 4.0: the major number in the lower 16 bits.
const VERSION: usize = 4;
/// The number of zstd in the superblock.
const ZSTD: usize = 6;
/// The superblock is followed by options of the compressor.
const FLAG_OPTIONS: usize = 0x400;
/// The level of mksquashfs if the superblock is not followed by options.
const LEVEL: u8 = 15;
/// The size of a metadata block that is not compressed has this bit.
const METADATA_PLAIN: usize = 0x8000;
/// The size of a data block that is not compressed has this bit.
const DATA_PLAIN: usize = 1 << 24;
/// The size of an entry of the fragment table.
const FRAGMENT: usize = 16;
/// A file without a fragment has this number of a fragment.
const NO_FRAGMENT: usize = 0xffff_ffff;
/// The maximum depth of directories.
const DEPTH_MAX: usize = 64;

/// Returns the little-endian number of 2, 4 or 8 bytes at an offset.
fn number(bytes: &[u8], at: usize, length: usize) -> Result<usize> {
    let field = bytes.get(at..at.saturating_add(length)).context("a table ends early")?;
    let number = field.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    usize::try_from(number).context("a number is too large")
}

/// Returns the offset of the SquashFS in an initrd. A file in a cpio archive begins at a multiple of 4.
pub(super) fn find(bytes: &[u8]) -> Option<usize> {
    (0..bytes.len().saturating_sub(SUPERBLOCK)).step_by(4).find(|offset| {
        let rest = &bytes[*offset..];
        rest.starts_with(MAGIC)
            && number(rest, 28, 4).is_ok_and(|version| version == VERSION)
            && number(rest, 20, 2).is_ok_and(|compressor| compressor == ZSTD)
            && number(rest, 40, 8).is_ok_and(|size| (SUPERBLOCK..=rest.len()).contains(&size))
    })
}

/// A SquashFS that is being read.
struct Reader<'a> {
    /// The bytes of the file that contains it.
    file: &'a [u8],
    /// The offset of the SquashFS.
    start: usize,
    found: Found,
}

/// A table of metadata.
#[derive(Default)]
struct Table {
    content: Vec<u8>,
    /// The position of each block in `content`, by its offset from the beginning of the table.
    blocks: BTreeMap<usize, usize>,
    /// The offset of each block in the file.
    offsets: Vec<usize>,
}

impl Table {
    /// Returns the position of a reference: the offset of a block, and an offset in its content.
    fn position(&self, block: usize, offset: usize) -> Result<usize> {
        let start = self.blocks.get(&block).context("a reference does not point to a block")?;
        Ok(start + offset)
    }
}

/// Reads the SquashFS at an offset of a file.
pub(super) fn read(file: &[u8], start: usize) -> Result<Found> {
    let mut reader = Reader { file, start, found: Found::default() };
    let field = |at: usize, length: usize| number(&file[start..], at, length);
    let block_size = field(12, 4)?;
    ensure!(block_size.is_power_of_two(), "the block size is {block_size}");
    let (fragments, root) = (field(16, 4)?, field(32, 8)?);
    let (inode_table, directory_table, fragment_table) =
        (field(64, 8)?, field(72, 8)?, field(80, 8)?);
    let has_options = field(24, 2)? & FLAG_OPTIONS != 0;
    // The options are a metadata block that is not compressed. Those of zstd are the level.
    let level = if has_options { u8::try_from(field(SUPERBLOCK + 2, 4)?)? } else { LEVEL };
    reader.found.recompress = Some(Recompress::here(Codec::Block, level));

    let inodes = reader.table(inode_table, directory_table)?;
    let fragments = reader.fragments(fragment_table, fragments)?;
    let first = fragments.first_block.unwrap_or(fragment_table);
    let directories = reader.table(directory_table, first)?;
    let parsed = Inodes::parse(&inodes, block_size)?;
    let root = parsed.at(inodes.position(root >> 16, root & 0xffff)?)?;
    let mut names = Vec::new();
    walk(&parsed, &directories, root, String::new(), 0, &mut names)?;
    for (name, inode) in names {
        reader.add_file(name, inode, &fragments, block_size)?;
    }
    for (name, table) in
        [("inodes", &inodes), ("directories", &directories), ("fragments", &fragments.table)]
    {
        let pieces = table.offsets.iter().copied().map(FoundPiece::all_of).collect();
        reader.found.units.push((name.to_owned(), pieces));
    }
    Ok(reader.found)
}

/// Adds the files of a directory and below, with their paths.
fn walk<'a>(
    inodes: &'a Inodes,
    table: &Table,
    directory: &Inode,
    path: String,
    depth: usize,
    names: &mut Vec<(String, &'a Inode)>,
) -> Result<()> {
    ensure!(depth < DEPTH_MAX, "{path}: directories are nested too deeply");
    let Inode::Directory(directory) = directory else { return Ok(()) };
    for (name, number) in entries(table, directory)? {
        let path = format!("{path}/{name}");
        match inodes.numbered(number)? {
            inode @ Inode::Directory(_) => walk(inodes, table, inode, path, depth + 1, names)?,
            inode @ Inode::File { .. } => names.push((path, inode)),
            Inode::Other => {}
        }
    }
    Ok(())
}

/// Returns the names in a directory, with the numbers of their inodes.
fn entries(table: &Table, directory: &Directory) -> Result<Vec<(String, usize)>> {
    let mut entries = Vec::new();
    // The size of an empty directory is 3.
    let Some(size) = directory.size.checked_sub(3) else { return Ok(entries) };
    let mut at = table.position(directory.block, directory.offset)?;
    let end = at + size;
    while at < end {
        let count = number(&table.content, at, 4)? + 1;
        let base = number(&table.content, at + 8, 4)?;
        at += 12;
        for _ in 0..count {
            let difference = number(&table.content, at + 2, 2)? as u16 as i16;
            let length = number(&table.content, at + 6, 2)? + 1;
            let name = table.content.get(at + 8..at + 8 + length).context("a name ends early")?;
            let inode = base.checked_add_signed(isize::from(difference));
            let inode = inode.context("an inode number is out of range")?;
            entries.push((String::from_utf8_lossy(name).into_owned(), inode));
            at += 8 + length;
        }
    }
    Ok(entries)
}

/// The fragments: offset in the file, and size with [`DATA_PLAIN`].
struct Fragments {
    table: Table,
    blocks: Vec<(usize, usize)>,
    /// The offset of the first block of the table in the SquashFS.
    first_block: Option<usize>,
}

impl Reader<'_> {
    /// Reads the metadata blocks from one offset of the SquashFS to another.
    fn table(&mut self, from: usize, to: usize) -> Result<Table> {
        let mut table = Table::default();
        let mut at = from;
        while at < to {
            at += self.metadata_block(&mut table, from, at)?;
        }
        Ok(table)
    }

    /// Reads a metadata block into a table. Returns its length with its header.
    fn metadata_block(&mut self, table: &mut Table, from: usize, at: usize) -> Result<usize> {
        let offset = self.start + at;
        let header = number(self.file, offset, 2)?;
        let (length, is_frame) = (header & !METADATA_PLAIN, header & METADATA_PLAIN == 0);
        let stored =
            self.file.get(offset + 2..offset + 2 + length).context("a table ends early")?;
        let content = if is_frame { decompress(stored)? } else { stored.to_vec() };
        self.found.blocks.insert(offset + 2, (length, is_frame));
        table.blocks.insert(at - from, table.content.len());
        table.offsets.push(offset + 2);
        table.content.extend(content);
        Ok(2 + length)
    }

    /// Reads the fragment table, whose blocks are listed at an offset of the SquashFS.
    fn fragments(&mut self, list: usize, count: usize) -> Result<Fragments> {
        let mut table = Table::default();
        let mut first_block = None;
        for index in 0..(count * FRAGMENT).div_ceil(8192) {
            let at = number(self.file, self.start + list + 8 * index, 8)?;
            first_block.get_or_insert(at);
            self.metadata_block(&mut table, at, at)?;
        }
        let mut blocks = Vec::new();
        for index in 0..count {
            let start = number(&table.content, index * FRAGMENT, 8)?;
            let size = number(&table.content, index * FRAGMENT + 8, 4)?;
            blocks.push((self.start + start, size));
            self.add_block(self.start + start, size);
        }
        Ok(Fragments { table, blocks, first_block })
    }

    fn add_block(&mut self, offset: usize, size: usize) {
        self.found.blocks.insert(offset, (size & !DATA_PLAIN, size & DATA_PLAIN == 0));
    }

    /// Adds the blocks of a file, and its part of a fragment.
    fn add_file(
        &mut self,
        name: String,
        inode: &Inode,
        fragments: &Fragments,
        block_size: usize,
    ) -> Result<()> {
        let Inode::File { start, size, fragment, fragment_offset, blocks } = inode else {
            return Ok(());
        };
        let mut pieces = Vec::new();
        let mut offset = self.start + start;
        for block in blocks {
            let stored = block & !DATA_PLAIN;
            // A block of zeros is not stored.
            if stored > 0 {
                self.add_block(offset, *block);
                pieces.push(FoundPiece::all_of(offset));
            }
            offset += stored;
        }
        if *fragment != NO_FRAGMENT {
            let (offset, _) = fragments.blocks.get(*fragment).context("a fragment is missing")?;
            let (from, length) = (*fragment_offset, Some(size % block_size));
            pieces.push(FoundPiece { block: *offset, from, length });
        }
        self.found.units.push((name, pieces));
        Ok(())
    }
}
