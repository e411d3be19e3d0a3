//! The states that a power cut can leave.
//!
//! What was written before the last flush that ended is on the disk. Of what was written since, a cut
//! leaves any part, because a disk keeps and reorders what it has not flushed: any writes, and of each
//! of them any sectors, as a sector is all that a disk writes as a whole. Only what is written twice
//! to one sector keeps its order. A discard is a write of zeros that need not happen.
//!
//! All of that is more than can be looked at, so it is searched: every prefix of the writes, tears of
//! the write at which the cut came, all subsets of whole writes between two flushes where these are
//! few, each one alone and each one missing where they are many, and then subsets at random.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use fastrand::Rng;

use super::log::{Action, Entry};
use crate::inspect::disk::Model;

/// Between two flushes with at most this many writes, all subsets of them are tried.
const SUBSETS_OF_MAX: usize = 6;
/// Writes with at most this many sectors are torn at each of them.
const TEARS_OF_MAX: usize = 8;
/// Rounds of random subsets without a new state, after which there are no more.
const BARREN_ROUNDS_MAX: usize = 200;

/// How a state came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The writes up to one of them.
    Prefix,
    /// The same, and a part of the next one.
    Torn,
    /// Some of the writes since the last flush, whole or in part.
    Subset,
}

/// A state, told so that it can be made again.
pub struct State<'a> {
    /// How it came about.
    pub kind: Kind,
    /// The place of the entry that was cut, in the log.
    pub entry: usize,
    /// What is there of the entries since the last flush; what is not named is not there.
    parts: &'a [(usize, Part)],
}

/// What is there of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    All,
    Head(usize),
    Tail(usize),
    /// The sectors at these places.
    Sectors(Vec<bool>),
}

impl Part {
    fn has(&self, place: usize, length: usize) -> bool {
        match self {
            Self::All => true,
            Self::Head(count) => place < *count,
            Self::Tail(count) => place >= length - count,
            Self::Sectors(sectors) => sectors[place],
        }
    }
}

/// `entry 7: everything before the last flush, and 5, 6 (sectors 0-3 and 5), 7 (first 3 sectors)`
impl fmt::Display for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Prefix => "prefix",
            Kind::Torn => "torn write",
            Kind::Subset => "subset",
        };
        write!(f, "{kind} at entry {}: all before the flush before it, and since", self.entry)?;
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

/// Goes through states. Each one is visited once, in the way in which it was first found.
pub struct Search<'a> {
    model: &'a mut Model,
    entries: &'a [Entry],
    rng: Rng,
    seen: HashSet<u128>,
}

impl<'a> Search<'a> {
    /// A search from the disk before the first entry. The same seed gives the same states.
    pub fn new(model: &'a mut Model, entries: &'a [Entry], seed: u64) -> Self {
        Self { model, entries, rng: Rng::with_seed(seed), seen: HashSet::new() }
    }

    /// Visits at least this many states, if there are so many. The model is left at the end of the
    /// log.
    pub fn run<E>(
        &mut self,
        states: usize,
        mut visit: impl FnMut(&Model, &State<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let epochs = epochs(self.entries);
        for epoch in epochs.iter().cloned() {
            self.prefixes(epoch, &mut visit)?;
        }
        let end = self.entries.len();
        self.look(&State { kind: Kind::Prefix, entry: end, parts: &[] }, &mut visit)?;
        self.every_epoch(&epochs, |search, epoch| search.tears(epoch, &mut visit))?;
        self.every_epoch(&epochs, |search, epoch| search.subsets(epoch, &mut visit))?;
        let mut barren = 0;
        while self.seen.len() < states && barren < BARREN_ROUNDS_MAX {
            let before = self.seen.len();
            self.every_epoch(&epochs, |search, epoch| search.random_subset(epoch, &mut visit))?;
            barren = if self.seen.len() == before { barren + 1 } else { 0 };
        }
        Ok(())
    }

    /// Goes back to the beginning, and does something at the beginning of each epoch.
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

    /// From the beginning of an epoch to its end, one write after the other.
    fn prefixes<E>(
        &mut self,
        epoch: Range<usize>,
        visit: &mut impl FnMut(&Model, &State<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut parts = Vec::new();
        for entry in epoch {
            self.look(&State { kind: Kind::Prefix, entry, parts: &parts }, visit)?;
            self.apply(entry, &Part::All, &mut Vec::new());
            parts.push((entry, Part::All));
        }
        Ok(())
    }

    /// The same with a part of the next write.
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
                self.look(&State { kind: Kind::Torn, entry, parts: &parts }, visit)?;
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
            2..=TEARS_OF_MAX => (1..length).flat_map(|n| [Part::Head(n), Part::Tail(n)]).collect(),
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

    /// Subsets of whole writes.
    fn subsets<E>(
        &mut self,
        epoch: Range<usize>,
        visit: &mut impl FnMut(&Model, &State<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let all = || epoch.clone().map(|entry| (entry, Part::All));
        if epoch.len() <= SUBSETS_OF_MAX {
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

    /// Any writes, one in four of them torn.
    fn random_subset<E>(
        &mut self,
        epoch: Range<usize>,
        visit: &mut impl FnMut(&Model, &State<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        // Few of them, half of them, or nearly all.
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
        self.look(&State { kind: Kind::Subset, entry, parts: &parts }, visit)?;
        self.undo(undo);
        Ok(())
    }

    /// How many sectors an entry is about.
    fn length(&self, entry: usize) -> usize {
        match &self.entries[entry].action {
            Action::Write(_, ids) => ids.len(),
            Action::Discard(_, count) => *count as usize,
            Action::Flush => 0,
        }
    }

    fn apply(&mut self, entry: usize, part: &Part, undo: &mut Vec<(u64, u32)>) {
        let length = self.length(entry);
        let mut set = |first: u64, place: usize, id: u32| {
            if part.has(place, length) {
                let sector = first + place as u64;
                undo.push((sector, self.model.set(sector, id)));
            }
        };
        match &self.entries[entry].action {
            Action::Write(first, ids) => {
                ids.iter().enumerate().for_each(|(place, id)| set(*first, place, *id));
            }
            Action::Discard(first, count) => {
                (0..*count as usize).for_each(|place| set(*first, place, 0));
            }
            Action::Flush => {}
        }
    }

    fn undo(&mut self, undo: Vec<(u64, u32)>) {
        for (sector, id) in undo.into_iter().rev() {
            self.model.set(sector, id);
        }
    }

    fn look<E>(
        &mut self,
        state: &State<'_>,
        visit: &mut impl FnMut(&Model, &State<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.seen.insert(self.model.state()) { visit(self.model, state) } else { Ok(()) }
    }
}

/// The entries between two flushes, flushes left out; none of them is empty.
pub fn epochs(entries: &[Entry]) -> Vec<Range<usize>> {
    let mut epochs = Vec::new();
    let mut start = 0;
    for (place, entry) in entries.iter().enumerate() {
        if entry.action == Action::Flush {
            epochs.push(start..place);
            start = place + 1;
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

    /// Sectors, each of them filled with the number that is given for it.
    fn sectors(numbers: &[u8]) -> Vec<u8> {
        numbers.iter().flat_map(|number| [*number; SECTOR]).collect()
    }

    /// The states that are visited, as the first byte of each of the disk's five sectors.
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
            assert!(found.insert(numbers.collect::<String>()), "no state is visited twice");
            Ok::<(), Infallible>(())
        };
        search.run(1000, visit).unwrap();
        found
    }

    #[test]
    fn what_was_flushed_is_there_and_of_the_rest_any_sectors() {
        let mut log = Writer::new();
        log.write(0, &sectors(&[1])).write(1, &sectors(&[1])).flush();
        log.write(2, &sectors(&[1])).write(3, &sectors(&[1, 1])).flush();
        let bit = |number: usize, at: usize| (number >> at & 1).to_string();
        let first = (0..4).map(|n| format!("{}{}000", bit(n, 0), bit(n, 1)));
        let second = (0..8).map(|n| format!("11{}{}{}", bit(n, 0), bit(n, 1), bit(n, 2)));
        assert_eq!(states(&mut log), first.chain(second).collect());
    }

    #[test]
    fn one_sector_keeps_its_order() {
        let mut log = Writer::new();
        log.write(0, &sectors(&[1])).write(0, &sectors(&[2])).flush().write(0, &sectors(&[3]));
        let expected = ["00000", "10000", "20000", "30000"].map(str::to_owned);
        assert_eq!(states(&mut log), expected.into());
    }

    #[test]
    fn a_discard_may_or_may_not_happen() {
        let mut log = Writer::new();
        log.write(0, &sectors(&[1, 1])).flush().discard(0, 2).write(2, &sectors(&[1]));
        let expected = ["00000", "10000", "01000", "11000", "00100", "10100", "01100", "11100"];
        assert_eq!(states(&mut log), expected.map(str::to_owned).into());
    }

    #[test]
    fn a_state_can_be_made_again_from_its_name() {
        let parts = [
            (5, Part::All),
            (6, Part::Head(3)),
            (7, Part::Tail(1)),
            (8, Part::Sectors(vec![true, true, false, false, true])),
        ];
        let state = State { kind: Kind::Subset, entry: 8, parts: &parts };
        assert_eq!(
            state.to_string(),
            "subset at entry 8: all before the flush before it, and since 5, 6 (first 3 sectors), 7 (last 1 sectors), 8 (sectors 0-1 4)"
        );
    }
}
