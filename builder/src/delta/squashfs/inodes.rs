//! The inode table of a SquashFS.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};

use super::{NO_FRAGMENT, Table, number};

/// An inode.
#[derive(Debug)]
pub(super) enum Inode {
    Directory(Directory),
    File {
        /// The offset of the first block in the SquashFS.
        start: usize,
        /// The size of the file.
        size: usize,
        /// The number of the fragment with the end of the file, or [`NO_FRAGMENT`].
        fragment: usize,
        /// The offset of the end of the file in the content of the fragment.
        fragment_offset: usize,
        /// The sizes of the blocks.
        blocks: Vec<usize>,
    },
    Other,
}

/// Where the names of a directory are.
#[derive(Debug)]
pub(super) struct Directory {
    /// The offset of a block from the beginning of the directory table.
    pub block: usize,
    /// The offset in the content of the block.
    pub offset: usize,
    /// The length of the names plus 3.
    pub size: usize,
}

/// All inodes.
pub(super) struct Inodes {
    inodes: Vec<Inode>,
    by_number: HashMap<usize, usize>,
    by_position: HashMap<usize, usize>,
}

impl Inodes {
    /// Reads the inode table.
    pub(super) fn parse(table: &Table, block_size: usize) -> Result<Self> {
        let mut inodes =
            Self { inodes: Vec::new(), by_number: HashMap::new(), by_position: HashMap::new() };
        let mut at = 0;
        while at < table.content.len() {
            let kind = number(&table.content, at, 2)?;
            let (inode, length) = parse(&table.content[at..], kind, block_size)
                .with_context(|| format!("reading the inode at {at}"))?;
            let index = inodes.inodes.len();
            inodes.by_number.insert(number(&table.content, at + 12, 4)?, index);
            inodes.by_position.insert(at, index);
            inodes.inodes.push(inode);
            at += length;
        }
        Ok(inodes)
    }

    /// Returns the inode with a number.
    pub(super) fn numbered(&self, number: usize) -> Result<&Inode> {
        let index = self.by_number.get(&number).context("an inode is missing")?;
        Ok(&self.inodes[*index])
    }

    /// Returns the inode at a position of the table.
    pub(super) fn at(&self, position: usize) -> Result<&Inode> {
        let index = self.by_position.get(&position).context("an inode is missing")?;
        Ok(&self.inodes[*index])
    }
}

/// Reads an inode. Returns it with its length.
fn parse(bytes: &[u8], kind: usize, block_size: usize) -> Result<(Inode, usize)> {
    let word = |at: usize| number(bytes, at, 4);
    let other = |length: usize| Ok((Inode::Other, length));
    match kind {
        1 => {
            let (size, offset) = (number(bytes, 24, 2)?, number(bytes, 26, 2)?);
            Ok((Inode::Directory(Directory { block: word(16)?, offset, size }), 32))
        }
        2 => {
            let (start, size) = (word(16)?, word(28)?);
            let fragment = (word(20)?, word(24)?);
            file(bytes, 32, (start, size), fragment, block_size)
        }
        3 => other(24 + word(20)?),
        4 | 5 => other(24),
        6 | 7 => other(20),
        8 => {
            let directory =
                Directory { block: word(24)?, offset: number(bytes, 34, 2)?, size: word(20)? };
            let mut length = 40;
            for _ in 0..number(bytes, 32, 2)? {
                length += 12 + word(length + 8)? + 1;
            }
            Ok((Inode::Directory(directory), length))
        }
        9 => {
            let (start, size) = (number(bytes, 16, 8)?, number(bytes, 24, 8)?);
            let fragment = (word(44)?, word(48)?);
            file(bytes, 56, (start, size), fragment, block_size)
        }
        10 => other(24 + word(20)? + 4),
        11 | 12 => other(28),
        13 | 14 => other(24),
        _ => bail!("it has the unknown type {kind}"),
    }
}

/// Reads the list of blocks of a file, which begins at `at`.
fn file(
    bytes: &[u8],
    at: usize,
    (start, size): (usize, usize),
    (fragment, fragment_offset): (usize, usize),
    block_size: usize,
) -> Result<(Inode, usize)> {
    let count = match fragment {
        NO_FRAGMENT => size.div_ceil(block_size),
        _ => size / block_size,
    };
    let blocks: Result<Vec<usize>> =
        (0..count).map(|index| number(bytes, at + 4 * index, 4)).collect();
    let inode = Inode::File { start, size, fragment, fragment_offset, blocks: blocks? };
    Ok((inode, at + 4 * count))
}
