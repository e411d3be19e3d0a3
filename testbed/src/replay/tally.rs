//! What a replay found, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Serialize;

use super::log::{Action, Entry};
use super::states::{Kind, State, epochs};
use crate::inspect::judge::Verdict;

/// What a replay found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// What decided by which tears and subsets.
    pub seed: u64,
    /// The size of the recording.
    pub log_bytes: u64,
    /// The parts of the recording, in their order.
    pub phases: Vec<Phase>,
    /// How many states would boot which slot, and why.
    pub boots: BTreeMap<String, usize>,
    /// How many states other readers read and found the same.
    pub crosschecked: usize,
    /// The first state that would not boot as it should.
    pub first_bad: Option<Bad>,
    /// How long it took.
    pub seconds: f64,
}

/// A part of a recording.
#[derive(Debug, Clone, Serialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Requests that wrote.
    pub writes: usize,
    /// Requests that gave sectors up.
    pub discards: usize,
    /// Sectors that were written.
    pub sectors: usize,
    /// Groups of writes between two flushes.
    pub epochs: usize,
    /// States after each write.
    pub prefixes: usize,
    /// States within a write.
    pub torn: usize,
    /// States with some of the writes since the last flush.
    pub subsets: usize,
    /// States that would not boot a complete and verified release.
    pub bad: usize,
    /// The number of entries up to its end.
    #[serde(skip)]
    end: usize,
}

/// A bad state.
#[derive(Debug, Clone, Serialize)]
pub struct Bad {
    /// In which part.
    pub phase: String,
    /// Which writes are there.
    pub state: String,
    /// What is wrong.
    pub why: String,
}

impl Tally {
    pub(super) fn new(
        entries: &[Entry],
        phases: Vec<(String, Range<usize>)>,
        log_bytes: u64,
        seed: u64,
    ) -> Self {
        let phases = phases.into_iter().map(|(name, places)| {
            let end = places.end;
            Phase::new(name, &entries[places], end)
        });
        Self {
            seed,
            log_bytes,
            phases: phases.collect(),
            boots: BTreeMap::new(),
            crosschecked: 0,
            first_bad: None,
            seconds: 0.0,
        }
    }

    pub(super) fn add(&mut self, state: &State<'_>, verdict: &Verdict) {
        let place = self.phases.iter().position(|phase| state.entry < phase.end);
        let place = place.unwrap_or(self.phases.len() - 1);
        let phase = &mut self.phases[place];
        match state.kind {
            Kind::Prefix => phase.prefixes += 1,
            Kind::Torn => phase.torn += 1,
            Kind::Subset => phase.subsets += 1,
        }
        match verdict {
            Verdict::Boots(slot, why) => {
                *self.boots.entry(format!("slot {slot}, {why}")).or_default() += 1;
            }
            Verdict::Bad(why) => {
                phase.bad += 1;
                let (phase, why) = (phase.name.clone(), why.clone());
                self.first_bad.get_or_insert_with(|| Bad { phase, state: state.to_string(), why });
            }
        }
    }

    /// Checks that every state boots a complete and verified release.
    ///
    /// # Errors
    /// Fails with the number of bad states.
    pub fn require_no_bad_states(&self) -> Result<(), String> {
        match self.bad() {
            0 => Ok(()),
            bad => Err(format!("{bad} states would not boot a complete and verified release")),
        }
    }

    /// Returns the number of bad states.
    pub fn bad(&self) -> usize {
        self.phases.iter().map(|phase| phase.bad).sum()
    }

    /// How many states were judged.
    pub fn states(&self) -> usize {
        self.phases.iter().map(Phase::states).sum()
    }
}

impl Phase {
    fn new(name: String, entries: &[Entry], end: usize) -> Self {
        let mut phase = Self {
            name,
            writes: 0,
            discards: 0,
            sectors: 0,
            epochs: epochs(entries).len(),
            prefixes: 0,
            torn: 0,
            subsets: 0,
            bad: 0,
            end,
        };
        for entry in entries {
            match &entry.action {
                Action::Write(_, ids) => {
                    phase.writes += 1;
                    phase.sectors += ids.len();
                }
                Action::Discard(..) => phase.discards += 1,
                Action::Flush => {}
            }
        }
        phase
    }

    fn states(&self) -> usize {
        self.prefixes + self.torn + self.subsets
    }

    fn sum(phases: &[Self]) -> Self {
        let mut sum = Self::new("all".into(), &[], 0);
        for phase in phases {
            sum.writes += phase.writes;
            sum.discards += phase.discards;
            sum.sectors += phase.sectors;
            sum.epochs += phase.epochs;
            sum.prefixes += phase.prefixes;
            sum.torn += phase.torn;
            sum.subsets += phase.subsets;
            sum.bad += phase.bad;
        }
        sum
    }
}

/// A table for people.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, name: &str, cells: [&dyn fmt::Display; 8]| {
            write!(f, "{name:<34}")?;
            cells.iter().try_for_each(|cell| write!(f, " {cell:>8}"))?;
            writeln!(f)
        };
        let head = ["writes", "MiB", "epochs", "prefixes", "torn", "subsets", "states", "BAD"];
        line(f, "", head.each_ref().map(|word| word as &dyn fmt::Display))?;
        for phase in self.phases.iter().chain([&Phase::sum(&self.phases)]) {
            let (mib, states) = (phase.sectors / 2048, phase.states());
            let Phase { writes, epochs, prefixes, torn, subsets, bad, .. } = phase;
            line(f, &phase.name, [writes, &mib, epochs, prefixes, torn, subsets, &states, bad])?;
        }
        for (what, count) in &self.boots {
            writeln!(f, "{count:>8} states would boot {what}")?;
        }
        let (mib, discards) = (self.log_bytes >> 20, Phase::sum(&self.phases).discards);
        write!(f, "recording {mib} MiB, {discards} discards; seed {}; ", self.seed)?;
        write!(f, "{} states read by mtools, too; ", self.crosschecked)?;
        writeln!(f, "judged in {:.1} s", self.seconds)?;
        if let Some(Bad { phase, state, why }) = &self.first_bad {
            writeln!(f, "the first BAD one, in \"{phase}\": {why}\n  {state}")?;
        }
        Ok(())
    }
}
