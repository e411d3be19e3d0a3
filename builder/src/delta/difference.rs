//! The differences between two contents, as bsdiff finds them: parts that are equal except for some bytes, such
//! as the addresses in a program, and new parts.

use std::collections::VecDeque;

use anyhow::Result;
use bidiff::DiffParams;

use super::image::Piece;

/// A part of the new content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// The content of a block of the old file, to which differences are added.
    Add {
        /// The index of the block.
        block: usize,
        /// The offset in its content.
        from: usize,
        /// The difference of each byte.
        differences: Vec<u8>,
    },
    /// New bytes.
    Literal(Vec<u8>),
}

impl Change {
    fn length(&self) -> usize {
        match self {
            Self::Add { differences: bytes, .. } | Self::Literal(bytes) => bytes.len(),
        }
    }

    /// Splits the change. Returns its first `length` bytes and the rest.
    fn split(self, length: usize) -> (Self, Self) {
        match self {
            Self::Add { block, from, mut differences } => {
                let rest = differences.split_off(length);
                let rest = Self::Add { block, from: from + length, differences: rest };
                (Self::Add { block, from, differences }, rest)
            }
            Self::Literal(mut bytes) => {
                let rest = Self::Literal(bytes.split_off(length));
                (Self::Literal(bytes), rest)
            }
        }
    }
}

/// Returns the changes that give `new`. The old content consists of these pieces of blocks.
pub(super) fn changes(old: &[u8], new: &[u8], pieces: &[Piece]) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    if old.is_empty() {
        changes.push(Change::Literal(new.to_vec()));
        return Ok(changes);
    }
    bidiff::diff(old, new, &DiffParams::default(), |found| {
        let (from, to) = (found.add_old_start, found.add_new_start);
        let differences: Vec<u8> = (0..found.add_length)
            .map(|index| new[to + index].wrapping_sub(old[from + index]))
            .collect();
        add(&mut changes, pieces, from, differences);
        let literal = &new[found.copy_start()..found.copy_end];
        if !literal.is_empty() {
            changes.push(Change::Literal(literal.to_vec()));
        }
        Ok::<(), std::convert::Infallible>(())
    })?;
    Ok(changes)
}

/// Adds the changes of a part of the old content, one for each piece that it is in.
fn add(changes: &mut Vec<Change>, pieces: &[Piece], mut from: usize, mut differences: Vec<u8>) {
    let mut start = 0;
    for piece in pieces {
        let end = start + piece.length;
        if from < end && !differences.is_empty() {
            let rest = differences.split_off(differences.len().min(end - from));
            let offset = piece.from + from - start;
            from += differences.len();
            changes.push(Change::Add { block: piece.block, from: offset, differences });
            differences = rest;
        }
        start = end;
    }
}

/// Takes the changes of the next `length` bytes.
pub(super) fn split_off(changes: &mut VecDeque<Change>, mut length: usize) -> Vec<Change> {
    let mut taken = Vec::new();
    while length > 0
        && let Some(change) = changes.pop_front()
    {
        if change.length() <= length {
            length -= change.length();
            taken.push(change);
            continue;
        }
        let (first, rest) = change.split(length);
        changes.push_front(rest);
        taken.push(first);
        length = 0;
    }
    taken
}
