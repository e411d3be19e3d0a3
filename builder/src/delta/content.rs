//! The new content of a delta.

use std::collections::BTreeMap;

use anyhow::Result;
use protocol::delta::{Delta, Extent, Operation, Segment};

use super::difference::Change;
use super::image::{Contents, Image};

/// An operation whose position is an offset in the content of a block of the old file.
#[derive(Debug, Default, Clone, Copy)]
struct Draft {
    block: usize,
    from: usize,
    add: u64,
    literal: u64,
}

/// The content that was described so far.
pub(super) struct Content<'a> {
    old: &'a Image<'a>,
    contents: Contents<'a>,
    drafts: Vec<Draft>,
    /// The number of equal bytes since the last difference.
    gap: u64,
    differences: Vec<(u64, u8)>,
    literals: Vec<u8>,
}

impl<'a> Content<'a> {
    /// Returns an empty content. What is added is described by differences from the old file.
    pub(super) fn from(old: &'a Image<'a>) -> Self {
        let (drafts, differences, literals) = (Vec::new(), Vec::new(), Vec::new());
        Self { old, contents: Contents::of(old), drafts, gap: 0, differences, literals }
    }

    /// Adds literal bytes.
    pub(super) fn literal(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.literals.extend(bytes);
        let length = bytes.len() as u64;
        match self.drafts.last_mut() {
            Some(draft) => draft.literal += length,
            None => self.drafts.push(Draft { literal: length, ..Draft::default() }),
        }
    }

    /// Adds the content of a block. The changes are those of its pieces, with their offsets; what is in no
    /// piece is literal.
    pub(super) fn block(&mut self, content: &[u8], pieces: &[(usize, Vec<Change>)]) -> Result<()> {
        let mut at = 0;
        for (start, changes) in pieces {
            self.literal(&content[at..*start]);
            at = *start;
            for change in changes {
                let new = &content[at..at + change.length()];
                match *change {
                    Change::Add { block, from, .. } => self.add(block, from, new)?,
                    Change::Literal(_) => self.literal(new),
                }
                at += new.len();
            }
        }
        self.literal(&content[at..]);
        Ok(())
    }

    /// Adds bytes by their differences from the content of a block of the old file.
    fn add(&mut self, block: usize, from: usize, new: &[u8]) -> Result<()> {
        let old = &self.contents.get(block)?[from..from + new.len()];
        for (old, new) in old.iter().zip(new) {
            match new.wrapping_sub(*old) {
                0 => self.gap += 1,
                byte => self.differences.push((std::mem::take(&mut self.gap), byte)),
            }
        }
        let length = new.len() as u64;
        match self.drafts.last_mut() {
            Some(draft) if draft.literal == 0 && draft.continues(block, from) => {
                draft.add += length;
            }
            _ => self.drafts.push(Draft { block, from, add: length, literal: 0 }),
        }
        Ok(())
    }

    /// Returns the delta.
    pub(super) fn finish(self, new: &Image<'_>, segments: Vec<Segment>) -> Result<Delta> {
        let (extents, positions) = extents(self.old, &self.drafts)?;
        let mut operations: Vec<Operation> = Vec::new();
        for Draft { block, from, add, literal } in self.drafts {
            // Without bytes of the source, the position is that of the operation before.
            let previous = operations.last().map_or(0, |last| last.position + last.add);
            let position = if add == 0 { previous } else { positions[&block] + from as u64 };
            match operations.last_mut() {
                Some(last) if last.literal == 0 && position == previous => {
                    last.add += add;
                    last.literal = literal;
                }
                _ => operations.push(Operation { position, add, literal }),
            }
        }
        Ok(Delta {
            source: self.old.bytes.len() as u64,
            target: new.bytes.len() as u64,
            recompress: new.recompress,
            extents,
            segments,
            operations,
            differences: self.differences,
            literals: self.literals,
        })
    }
}

impl Draft {
    fn continues(&self, block: usize, from: usize) -> bool {
        self.block == block && (self.from as u64 + self.add) == from as u64 && self.add > 0
    }
}

/// Returns the extents that operations refer to, and the position of each block in the expanded source.
fn extents(old: &Image<'_>, drafts: &[Draft]) -> Result<(Vec<Extent>, BTreeMap<usize, u64>)> {
    let mut positions: BTreeMap<usize, u64> =
        drafts.iter().filter(|draft| draft.add > 0).map(|draft| (draft.block, 0)).collect();
    let mut extents = Vec::new();
    let mut end = 0;
    for (block, position) in &mut positions {
        let stored = &old.blocks[*block];
        let frame = match stored.is_frame {
            true => Some(u32::try_from(old.content(*block)?.len())?),
            false => None,
        };
        let extent =
            Extent { offset: stored.offset as u64, stored: u32::try_from(stored.stored)?, frame };
        *position = end;
        end += u64::from(extent.content());
        extents.push(extent);
    }
    Ok((extents, positions))
}
