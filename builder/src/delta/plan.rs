//! Decides for each block of the new file what the delta says.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::{Context, Result};
use protocol::delta::{Delta, Segment};

use super::content::Content;
use super::difference::{self, Change, check};
use super::image::{Block, Image, Piece, Unit};
use super::new_file::NewFile;
use crate::published::in_parallel;

/// Returns the delta between two files.
///
/// # Errors
/// Fails if the old file is damaged, or if it is not ready at the time `until`.
pub(super) fn delta(old: &[u8], new: &NewFile<'_>, until: Instant) -> Result<Delta> {
    let old = Image::of(old)?;
    let blocks = decide(&old, new, until)?;
    let new = &new.image;
    let claimed = claim(new, &blocks);
    let sources = Sources::new(&old);
    let changes = in_parallel(&claimed, |unit| {
        let pieces = sources.find(&unit.name);
        let content = new.unit_content(&unit.pieces)?;
        difference::changes(&old.unit_content(pieces)?, &content, pieces, until)
            .with_context(|| format!("comparing {}", unit.name))
    })?;
    let mut content = Content::from(&old);
    let segments = write(new, &blocks, &by_block(&claimed, changes), &mut content)?;
    content.finish(new, segments)
}

/// What becomes of a block of the new file.
enum Decision {
    /// It is in the old file, at this offset.
    Copy(usize),
    /// Its content is compressed again.
    Compress,
    /// zstd gives other bytes here than when the file was made.
    Literal,
    /// It is not compressed.
    Plain,
}

fn decide(old: &Image<'_>, new: &NewFile<'_>, until: Instant) -> Result<Vec<Decision>> {
    let known: HashMap<&[u8], usize> = (0..old.blocks.len())
        .rev()
        .map(|index| (old.stored(index), old.blocks[index].offset))
        .collect();
    let indexes: Vec<usize> = (0..new.image.blocks.len()).collect();
    in_parallel(&indexes, |index| {
        check(until)?;
        let stored = new.image.stored(*index);
        Ok(match known.get(stored) {
            Some(offset) => Decision::Copy(*offset),
            None if !new.image.blocks[*index].is_frame => Decision::Plain,
            None if new.is_reproduced(*index)? => Decision::Compress,
            None => Decision::Literal,
        })
    })
}

/// Returns the parts of the units that have to be described. If blocks belong to several units, as those of
/// files with the same content do, the first one gets them.
fn claim(new: &Image<'_>, decisions: &[Decision]) -> Vec<Unit> {
    let mut taken: HashMap<usize, Vec<(usize, usize)>> = HashMap::new();
    let mut claimed = Vec::new();
    for Unit { name, pieces } in &new.units {
        let mut own = Vec::new();
        for piece in pieces {
            let Piece { block, from, length } = *piece;
            let is_needed = matches!(decisions[block], Decision::Compress | Decision::Plain);
            let others = taken.entry(block).or_default();
            let is_free = others.iter().all(|(start, end)| from + length <= *start || *end <= from);
            if is_needed && is_free && length > 0 {
                others.push((from, from + length));
                own.push(*piece);
            }
        }
        if !own.is_empty() {
            claimed.push(Unit { name: name.clone(), pieces: own });
        }
    }
    claimed
}

/// The units of the old file by their names.
struct Sources<'a> {
    exact: HashMap<&'a str, &'a [Piece]>,
    /// By their names without numbers, as the versions of kernels and libraries are part of paths.
    similar: HashMap<String, Vec<&'a Unit>>,
}

impl<'a> Sources<'a> {
    fn new(old: &'a Image<'_>) -> Self {
        let mut similar: HashMap<String, Vec<&Unit>> = HashMap::new();
        for unit in &old.units {
            similar.entry(without_numbers(&unit.name)).or_default().push(unit);
        }
        let exact = old.units.iter().map(|unit| (&*unit.name, &*unit.pieces)).collect();
        Self { exact, similar }
    }

    /// Returns where the content of the unit with this or the most similar name is; nowhere if there is none.
    fn find(&self, name: &str) -> &'a [Piece] {
        if let Some(pieces) = self.exact.get(name) {
            return pieces;
        }
        let similar = self.similar.get(&without_numbers(name));
        let best = similar.into_iter().flatten().max_by_key(|unit| same_numbers(&unit.name, name));
        best.map_or(&[], |unit| &unit.pieces)
    }
}

/// Replaces each number in a name.
fn without_numbers(name: &str) -> String {
    let mut result = String::new();
    for part in name.split_inclusive(|c: char| !c.is_ascii_digit()) {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        if rest.len() < part.len() {
            result.push('#');
        }
        result.push_str(rest);
    }
    result
}

/// Returns how many numbers two names have in common, if they differ only in numbers.
fn same_numbers(one: &str, other: &str) -> usize {
    let numbers = |name| str::split(name, |c: char| !c.is_ascii_digit());
    numbers(one).zip(numbers(other)).filter(|(one, other)| one == other).count()
}

/// The changes of the pieces of a block, by the offset of the piece in the content.
type ByBlock = HashMap<usize, Vec<(usize, Vec<Change>)>>;

/// Assigns the changes of units to the blocks that their pieces are in.
fn by_block(units: &[Unit], changes: Vec<Vec<Change>>) -> ByBlock {
    let mut result: ByBlock = HashMap::new();
    for (unit, changes) in units.iter().zip(changes) {
        let mut rest = changes.into_iter().collect();
        for Piece { block, from, length } in &unit.pieces {
            let own = difference::split_off(&mut rest, *length);
            result.entry(*block).or_default().push((*from, own));
        }
    }
    for pieces in result.values_mut() {
        pieces.sort_by_key(|(from, _)| *from);
    }
    result
}

/// Writes the segments of the delta, and the content that they refer to.
fn write(
    new: &Image<'_>,
    decisions: &[Decision],
    changes: &ByBlock,
    content: &mut Content<'_>,
) -> Result<Vec<Segment>> {
    let mut segments: Vec<Segment> = Vec::new();
    for (index, decision) in decisions.iter().enumerate() {
        let Block { stored, .. } = new.blocks[index];
        let length = stored as u64;
        let segment = match decision {
            Decision::Copy(offset) => Segment::Copy { offset: *offset as u64, length },
            Decision::Literal => {
                content.literal(new.stored(index));
                Segment::Plain { length }
            }
            Decision::Plain | Decision::Compress => {
                let bytes = new.content(index)?;
                content.block(&bytes, changes.get(&index).map_or(&[], Vec::as_slice))?;
                match decision {
                    Decision::Compress => {
                        Segment::frame(u32::try_from(bytes.len())?, new.stored(index))
                    }
                    _ => Segment::Plain { length },
                }
            }
        };
        push(&mut segments, segment);
    }
    Ok(segments)
}

/// Adds a segment, or extends the last one if it continues it.
fn push(segments: &mut Vec<Segment>, segment: Segment) {
    match (segments.last_mut(), &segment) {
        (Some(Segment::Copy { offset, length }), Segment::Copy { offset: next, length: more })
            if *offset + *length == *next =>
        {
            *length += more;
        }
        (Some(Segment::Plain { length }), Segment::Plain { length: more }) => *length += more,
        _ => segments.push(segment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_versions_are_similar() {
        for (one, other) in [
            ("/lib/modules/6.12.9+deb13/x.ko", "/lib/modules/6.12.10+deb13/x.ko"),
            ("/lib/libz.so.1.2.3", "/lib/libz.so.1.2.13"),
        ] {
            assert_eq!(without_numbers(one), without_numbers(other));
        }
        assert_eq!(without_numbers("/a1b22c"), "/a#b#c");
        assert_ne!(without_numbers("/a1"), without_numbers("/a"));
        let same = |other| same_numbers("/6.12.9/nfsv4.ko", other);
        assert!(same("/6.12.10/nfsv4.ko") > same("/6.12.10/nfsv3.ko"));
    }
}
