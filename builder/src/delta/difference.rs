//! The differences between two contents, as bsdiff finds them: parts that are equal except for some bytes, such
//! as the addresses in a program, and new parts.

use std::collections::VecDeque;

use anyhow::Result;
use bidiff::DiffParams;

use super::image::Piece;

/// A part of the new content, without its bytes: a file may be large, and both contents are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The content of a block of the old file, to which differences are added.
    Add {
        /// The index of the block.
        block: usize,
        /// The offset in its content.
        from: usize,
        /// The number of bytes.
        length: usize,
    },
    /// This number of new bytes.
    Literal(usize),
}

impl Change {
    pub(super) fn length(self) -> usize {
        match self {
            Self::Add { length, .. } | Self::Literal(length) => length,
        }
    }

    /// Returns the first `length` bytes of the change and the rest.
    fn split(self, length: usize) -> (Self, Self) {
        match self {
            Self::Add { block, from, length: all } => (
                Self::Add { block, from, length },
                Self::Add { block, from: from + length, length: all - length },
            ),
            Self::Literal(all) => (Self::Literal(length), Self::Literal(all - length)),
        }
    }
}

/// Returns the changes that give `new`. The old content consists of these pieces of blocks.
pub(super) fn changes(old: &[u8], new: &[u8], pieces: &[Piece]) -> Result<Vec<Change>> {
    if old.is_empty() {
        return Ok(vec![Change::Literal(new.len())]);
    }
    let mut changes = Vec::new();
    bidiff::diff(old, new, &DiffParams::default(), |found| {
        add(&mut changes, pieces, found.add_old_start, found.add_length);
        let literal = found.copy_end - found.copy_start();
        if literal > 0 {
            changes.push(Change::Literal(literal));
        }
        Ok::<(), std::convert::Infallible>(())
    })?;
    Ok(changes)
}

/// Adds the changes of a part of the old content, one for each piece that it is in.
fn add(changes: &mut Vec<Change>, pieces: &[Piece], mut from: usize, mut left: usize) {
    let mut start = 0;
    for piece in pieces {
        let end = start + piece.length;
        if from < end && left > 0 {
            let length = left.min(end - from);
            let offset = piece.from + from - start;
            changes.push(Change::Add { block: piece.block, from: offset, length });
            from += length;
            left -= length;
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
