//! The differences between two contents, as bsdiff finds them: parts that are equal except for some bytes, such
//! as the addresses in a program, and new parts.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::{Result, ensure};
use bidiff::DiffParams;

use super::image::Piece;

/// The search for matches takes time that grows with the square of the length of a run of one byte, such as the
/// padding of firmware: half a minute for 256 KiB, if the run in the old content differs in a byte. The bytes of
/// a run beyond this length are literal, and compress to nearly nothing.
const RUN_MAX: usize = 4096;

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
///
/// # Errors
/// Fails if it takes until the time `until`.
pub(super) fn changes(
    old: &[u8],
    new: &[u8],
    pieces: &[Piece],
    until: Instant,
) -> Result<Vec<Change>> {
    if old.is_empty() {
        return Ok(vec![Change::Literal(new.len())]);
    }
    let (short, cuts) = without_long_runs(new);
    let mut changes = Vec::new();
    bidiff::diff(old, &short, &DiffParams::default(), |found| {
        check(until)?;
        add(&mut changes, pieces, found.add_old_start, found.add_length);
        let literal = found.copy_end - found.copy_start();
        if literal > 0 {
            changes.push(Change::Literal(literal));
        }
        Ok::<(), anyhow::Error>(())
    })?;
    Ok(with_cuts(changes.into(), &cuts))
}

/// Shortens all runs of one byte to [`RUN_MAX`]. Returns the rest, and for each cut its position in the rest and the
/// number of bytes.
fn without_long_runs(content: &[u8]) -> (Vec<u8>, Vec<(usize, usize)>) {
    let (mut rest, mut cuts) = (Vec::with_capacity(content.len()), Vec::new());
    for run in content.chunk_by(|one, next| one == next) {
        let kept = run.len().min(RUN_MAX);
        rest.extend(&run[..kept]);
        if kept < run.len() {
            cuts.push((rest.len(), run.len() - kept));
        }
    }
    (rest, cuts)
}

/// Adds what was cut out as literals.
fn with_cuts(changes: VecDeque<Change>, cuts: &[(usize, usize)]) -> Vec<Change> {
    let (mut rest, mut result, mut at) = (changes, Vec::new(), 0);
    for (position, length) in cuts {
        result.extend(split_off(&mut rest, position - at));
        result.push(Change::Literal(*length));
        at = *position;
    }
    result.extend(rest);
    result
}

/// Fails if it is later than `until`.
pub(super) fn check(until: Instant) -> Result<()> {
    ensure!(Instant::now() < until, "making the delta took too long");
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Without [`RUN_MAX`], this takes two minutes.
    #[test]
    fn a_long_run_of_one_byte_takes_little_time() {
        let new = [&b"begin"[..], &[0xff; 512 << 10], b"end"].concat();
        let mut old = new.clone();
        old[100_000] = 0;
        let pieces = [Piece { block: 7, from: 0, length: old.len() }];
        let since = Instant::now();
        let found = changes(&old, &new, &pieces, since + Duration::from_secs(600)).unwrap();
        assert!(since.elapsed() < Duration::from_secs(60), "{:?}", since.elapsed());
        assert!(found.contains(&Change::Literal((512 << 10) - RUN_MAX)), "{found:?}");
        assert_eq!(found.iter().map(|change| change.length()).sum::<usize>(), new.len());
    }
}
