//! The states that a power cut can leave.
//!
//! Writes before the last completed flush are on the disk. Later writes may be lost, because a disk
//! caches and reorders them: any subset of them may have reached the disk, and of each write any subset
//! of its sectors, since only a single sector is written atomically. Two writes of the same sector keep
//! their order. A discard is treated as a write of zeros that may be lost.
//!
//! There are too many such states to visit all, so a sample is searched:
//!
//! - every prefix of the writes
//! - tears of the write at which the power is cut
//! - between two flushes: all subsets of whole writes if there are few writes, else each write alone and
//!   each write missing
//! - random subsets

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use fastrand::Rng;

use super::log::{Action, Entry};
use crate::inspect::disk::Model;

/// The largest epoch of which all subsets are visited, in entries.
const ALL_SUBSETS_MAX: usize = 6;
/// The largest write that is torn between all of its sectors, in sectors.
const ALL_TEARS_MAX: usize = 8;
/// The search ends after this many rounds of random subsets without a new state.
const FRUITLESS_ROUNDS_MAX: usize = 200;

/// The kind of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All writes before an entry.
    Prefix,
    /// All writes before an entry, and a part of the entry.
    Torn,
    /// Some of the writes since the last flush, complete or torn.
    Subset,
}

/// The description of a state, from which it can be reproduced.
pub(crate) struct State<'a> {
    /// The kind.
    pub kind: Kind,
    /// The index of the entry at which the power is cut.
    pub entry: usize,
    /// The entries since the last flush that are on the disk, completely or in part.
    parts: &'a [(usize, Part)],
}

/// The part of a write that is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    All,
    Head(usize),
    Tail(usize),
    /// The sectors whose flag is set.
    Sectors(Vec<bool>),
}

impl Part {
    fn contains(&self, index: usize, length: usize) -> bool {
        match self {
            Self::All => true,
            Self::Head(count) => index < *count,
            Self::Tail(count) => index >= length - count,
            Self::Sectors(sectors) => sectors[index],
        }
    }
}

/// Formats the state like `torn write at entry 7: all before the last flush, then 5, 6 (sectors 0-3 5),
/// 7 (first 3 sectors)`.
impl fmt::Display for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Prefix => "prefix",
            Kind::Torn => "torn write",
            Kind::Subset => "subset",
        };
        write!(f, "{kind} at entry {}: all before the last flush, then", self.entry)?;
        if self.parts.is_empty() {
            f.write_str(" nothing")?;
        }
        for (at, (entry, part)) in self.parts.iter().enumerate() {
            write!(f, "{} {entry}", if at > 0 { "," } else { "" })?;
            match part {
                Part::All => {}
                Part::Head(count) => write!(f, " (first {count} sectors)")?,
                Part::Tail(count) => write!(f, " (last {count} sectors)")?,
                Part::Sectors(sectors) => write!(f, " (sectors{})", Ranges(sectors))?,
            }
        }
        Ok(())
    }
}

struct Ranges<'a>(&'a [bool]);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut at = 0;
        for run in self.0.chunk_by(|a, b| a == b) {
            match run {
                [true] => write!(f, " {at}")?,
                [true, ..] => write!(f, " {at}-{}", at + run.len() - 1)?,
                _ => {}
            }
            at += run.len();
        }
        Ok(())
    }
}

/// A search that visits each state once.
pub(crate) struct Search<'a> {
    model: &'a mut Model,
    entries: &'a [Entry],
    rng: Rng,
    visited: HashSet<u128>,
}

impl<'a> Search<'a> {
    /// Creates a search. `model` is the disk before the first entry. Searches with the same seed visit
    /// the same states.
    pub(crate) fn new(model: &'a mut Model, entries: &'a [Entry], seed: u64) -> Self {
        Self { model, entries, rng: Rng::with_seed(seed), visited: HashSet::new() }
    }

    /// Visits at least `states` states, if that many are found. Leaves the model in the state at the end
    /// of the log.
    pub(crate) fn run<E>(
        &mut self,
        states: usize,
        mut visit: impl FnMut(&Model, &State<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let epochs = epochs(self.entries);
        for epoch in epochs.iter().cloned() {
            self.prefixes(epoch, &mut visit)?;
        }
        let end = self.entries.len();
        self.visit_once(&State { kind: Kind::Prefix, entry: end, parts: &[] }, &mut visit)?;
        self.every_epoch(&epochs, |search, epoch| search.tears(epoch, &mut visit))?;
        self.every_epoch(&epochs, |search, epoch| search.subsets(epoch, &mut visit))?;
        let mut fruitless = 0;
        while self.visited.len() < states && fruitless < FRUITLESS_ROUNDS_MAX {
            let before = self.visited.len();
            self.every_epoch(&epochs, |search, epoch| search.random_subset(epoch, &mut visit))?;
            fruitless = if self.visited.len() == before { fruitless + 1 } else { 0 };
        }
        Ok(())
    }

    /// Rewinds the model and calls `action` at the beginning of each epoch.
    fn every_epoch<E>(
        &mut self,
        epochs: &[Range<usize>],
        mut action: impl FnMut(&mut Self, Range<usize>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.model.rewind();
        for epoch in epochs {
            action(self, epoch.clone())?;
            for entry in epoch.clone() {
                self.apply(entry, &Part::All, &mut Vec::new());
            }
        }
        Ok(())
    }

    /// Visits every prefix of an epoch, and applies the epoch.
    fn prefixes<E>(
        &mut self,
        epoch: Range<usize>,
        visit: &mut impl FnMut(&Model, &State<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut parts = Vec::new();
        for entry in epoch {
            self.visit_once(&State { kind: Kind::Prefix, entry, parts: &parts }, visit)?;
            self.apply(entry, &Part::All, &mut Vec::new());
            parts.push((entry, Part::All));
        }
        Ok(())
    }

    /// Visits every prefix of an epoch together with parts of the next write.
    fn tears<E>(
        &mut self,
        epoch: Range<usize>,
        visit: &mut impl FnMut(&Model, &State<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut all = Vec::new();
        let mut parts = Vec::new();
        for entry in epoch {
            for tear in self.tears_of(entry) {
                let mut undo = Vec::new();
                self.apply(entry, &tear, &mut undo);
                parts.push((entry, tear));
                self.visit_once(&State { kind: Kind::Torn, entry, parts: &parts }, visit)?;
                parts.pop();
                self.undo(undo);
            }
            self.apply(entry, &Part::All, &mut all);
            parts.push((entry, Part::All));
        }
        self.undo(all);
        Ok(())
    }

    fn tears_of(&mut self, entry: usize) -> Vec<Part> {
        let length = self.length(entry);
        match length {
            0 | 1 => Vec::new(),
            2..=ALL_TEARS_MAX => (1..length).flat_map(|n| [Part::Head(n), Part::Tail(n)]).collect(),
            _ => {
                let mut count = || self.rng.usize(1..length);
                let mut tears = vec![Part::Head(count()), Part::Head(count()), Part::Tail(count())];
                tears.push(self.some_sectors(length));
                tears
            }
        }
    }

    fn some_sectors(&mut self, length: usize) -> Part {
        Part::Sectors((0..length).map(|_| self.rng.bool()).collect())
    }

    /// Visits subsets of whole writes.
    fn subsets<E>(
        &mut self,
        epoch: Range<usize>,
        visit: &mut impl FnMut(&Model, &State<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let all = || epoch.clone().map(|entry| (entry, Part::All));
        if epoch.len() <= ALL_SUBSETS_MAX {
            for mask in 0..1_usize << epoch.len() {
                let chosen = all().filter(|(entry, _)| mask >> (entry - epoch.start) & 1 == 1);
                self.subset(&epoch, chosen.collect(), visit)?;
            }
            return Ok(());
        }
        for one in epoch.clone() {
            self.subset(&epoch, all().filter(|(entry, _)| *entry == one).collect(), visit)?;
            self.subset(&epoch, all().filter(|(entry, _)| *entry != one).collect(), visit)?;
        }
        Ok(())
    }

    /// Visits a random subset of the writes, one in four of them torn.
    fn random_subset<E>(
        &mut self,
        epoch: Range<usize>,
        visit: &mut impl FnMut(&Model, &State<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        // Few, half or most of the writes.
        let tenths = [1, 5, 9][self.rng.usize(..3)];
        let mut chosen = Vec::new();
        for entry in epoch.clone() {
            if self.rng.usize(..10) >= tenths {
                continue;
            }
            let length = self.length(entry);
            let torn = length > 1 && self.rng.usize(..4) == 0;
            let part = if torn { self.some_sectors(length) } else { Part::All };
            chosen.push((entry, part));
        }
        self.subset(&epoch, chosen, visit)
    }

    fn subset<E>(
        &mut self,
        epoch: &Range<usize>,
        parts: Vec<(usize, Part)>,
        visit: &mut impl FnMut(&Model, &State<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut undo = Vec::new();
        for (entry, part) in &parts {
            self.apply(*entry, part, &mut undo);
        }
        let entry = parts.last().map_or(epoch.start, |(entry, _)| *entry);
        self.visit_once(&State { kind: Kind::Subset, entry, parts: &parts }, visit)?;
        self.undo(undo);
        Ok(())
    }

    /// Returns the number of sectors that an entry changes.
    fn length(&self, entry: usize) -> usize {
        match &self.entries[entry].action {
            Action::Write(_, ids) => ids.len(),
            Action::Discard(_, count) => *count as usize,
            Action::Flush => 0,
        }
    }

    fn apply(&mut self, entry: usize, part: &Part, undo: &mut Vec<(u64, u32)>) {
        let length = self.length(entry);
        let mut set = |first: u64, index: usize, id: u32| {
            if part.contains(index, length) {
                let sector = first + index as u64;
                undo.push((sector, self.model.set(sector, id)));
            }
        };
        match &self.entries[entry].action {
            Action::Write(first, ids) => {
                ids.iter().enumerate().for_each(|(index, id)| set(*first, index, *id));
            }
            Action::Discard(first, count) => {
                (0..*count as usize).for_each(|index| set(*first, index, 0));
            }
            Action::Flush => {}
        }
    }

    fn undo(&mut self, undo: Vec<(u64, u32)>) {
        for (sector, id) in undo.into_iter().rev() {
            self.model.set(sector, id);
        }
    }

    /// Visits the current state unless it was visited before.
    fn visit_once<E>(
        &mut self,
        state: &State<'_>,
        visit: &mut impl FnMut(&Model, &State<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.visited.insert(self.model.state()) { visit(self.model, state) } else { Ok(()) }
    }
}

/// Returns the ranges of entries between flushes, without the flushes and without empty ranges.
pub(crate) fn epochs(entries: &[Entry]) -> Vec<Range<usize>> {
    let mut epochs = Vec::new();
    let mut start = 0;
    for (index, entry) in entries.iter().enumerate() {
        if entry.action == Action::Flush {
            epochs.push(start..index);
            start = index + 1;
        }
    }
    epochs.push(start..entries.len());
    epochs.retain(|epoch| !epoch.is_empty());
    epochs
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::convert::Infallible;

    use super::super::log;
    use super::super::log::tests::Writer;
    use super::*;
    use crate::inspect::disk::{Contents, SECTOR, Sectors};

    /// Returns one sector per number, filled with it.
    fn sectors(numbers: &[u8]) -> Vec<u8> {
        numbers.iter().flat_map(|number| [*number; SECTOR]).collect()
    }

    /// Returns the visited states, each as the first bytes of the disk's five sectors.
    fn states(log: &mut Writer) -> BTreeSet<String> {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::write(&image, sectors(&[0; 5])).unwrap();
        let mut model = Model::load(&image, Contents::default()).unwrap();
        let entries = log::read(&log.save(dir.path()), 5, model.contents()).unwrap();
        let mut found = BTreeSet::new();
        let mut search = Search::new(&mut model, &entries, 1);
        let visit = |model: &Model, _: &State<'_>| {
            let numbers = (0..5).map(|at| model.read(at).unwrap()[0].to_string());
            assert!(found.insert(numbers.collect::<String>()), "a state was visited twice");
            Ok::<(), Infallible>(())
        };
        search.run(1000, visit).unwrap();
        found
    }

    #[test]
    fn keeps_flushed_writes_and_any_subset_of_later_sectors() {
        let mut log = Writer::new();
        log.write(0, &sectors(&[1])).write(1, &sectors(&[1])).flush();
        log.write(2, &sectors(&[1])).write(3, &sectors(&[1, 1])).flush();
        let bit = |number: usize, at: usize| (number >> at & 1).to_string();
        let first = (0..4).map(|n| format!("{}{}000", bit(n, 0), bit(n, 1)));
        let second = (0..8).map(|n| format!("11{}{}{}", bit(n, 0), bit(n, 1), bit(n, 2)));
        assert_eq!(states(&mut log), first.chain(second).collect());
    }

    #[test]
    fn keeps_the_order_of_writes_to_one_sector() {
        let mut log = Writer::new();
        log.write(0, &sectors(&[1])).write(0, &sectors(&[2])).flush().write(0, &sectors(&[3]));
        let expected = ["00000", "10000", "20000", "30000"].map(str::to_owned);
        assert_eq!(states(&mut log), expected.into());
    }

    #[test]
    fn applies_and_skips_discards() {
        let mut log = Writer::new();
        log.write(0, &sectors(&[1, 1])).flush().discard(0, 2).write(2, &sectors(&[1]));
        let expected = ["00000", "10000", "01000", "11000", "00100", "10100", "01100", "11100"];
        assert_eq!(states(&mut log), expected.map(str::to_owned).into());
    }

    #[test]
    fn formats_all_parts_of_a_state() {
        let parts = [
            (5, Part::All),
            (6, Part::Head(3)),
            (7, Part::Tail(1)),
            (8, Part::Sectors(vec![true, true, false, false, true])),
        ];
        let state = State { kind: Kind::Subset, entry: 8, parts: &parts };
        assert_eq!(
            state.to_string(),
            "subset at entry 8: all before the last flush, then 5, 6 (first 3 sectors), 7 (last 1 sectors), 8 (sectors 0-1 4)"
        );
    }
}
