//! The result of a replay, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Serialize;

use super::log::{Action, Entry};
use super::states::{Kind, State, epochs};
use crate::inspect::judge::Verdict;

/// The result of a replay.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tally {
    /// The seed for tears and subsets.
    pub seed: u64,
    /// The size of the recording in bytes.
    pub log_bytes: u64,
    /// The phases of the recording, in order.
    pub phases: Vec<Phase>,
    /// The number of states by the slot that they boot and the reason for it.
    pub boots: BTreeMap<String, usize>,
    /// The number of states that mtools read with the same result.
    pub crosschecked: usize,
    /// The number of states whose data partition was checked with fsck.ext4.
    pub data_checked: usize,
    /// The first bad state.
    pub first_bad: Option<Bad>,
    /// The duration of the replay in seconds.
    pub seconds: f64,
}

/// A phase of a recording.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Phase {
    /// The name.
    pub name: String,
    /// The number of write requests.
    pub writes: usize,
    /// The number of discard requests.
    pub discards: usize,
    /// The number of written sectors.
    pub sectors: usize,
    /// The number of groups of writes between flushes.
    pub epochs: usize,
    /// The number of judged states after complete writes.
    pub prefixes: usize,
    /// The number of judged states within a write.
    pub torn: usize,
    /// The number of judged states with a subset of the writes since the last flush.
    pub subsets: usize,
    /// The number of states that do not boot a complete and verified release.
    pub bad: usize,
    /// The index of the entry after the phase.
    #[serde(skip)]
    end: usize,
}

/// A bad state.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Bad {
    /// The phase of the state.
    pub phase: String,
    /// The writes that are on the disk.
    pub state: String,
    /// The reason why the state is bad.
    #[serde(rename = "why")]
    pub problem: String,
}

impl Tally {
    pub(super) fn new(
        entries: &[Entry],
        phases: Vec<(String, Range<usize>)>,
        log_bytes: u64,
        seed: u64,
    ) -> Self {
        let phases = phases.into_iter().map(|(name, range)| {
            let end = range.end;
            Phase::new(name, &entries[range], end)
        });
        Self {
            seed,
            log_bytes,
            phases: phases.collect(),
            boots: BTreeMap::new(),
            crosschecked: 0,
            data_checked: 0,
            first_bad: None,
            seconds: 0.0,
        }
    }

    /// Counts a judged state.
    pub(super) fn add(&mut self, state: &State<'_>, verdict: &Verdict) {
        let index = self.phases.iter().position(|phase| state.entry < phase.end);
        let index = index.unwrap_or(self.phases.len() - 1);
        let phase = &mut self.phases[index];
        match state.kind {
            Kind::Prefix => phase.prefixes += 1,
            Kind::Torn => phase.torn += 1,
            Kind::Subset => phase.subsets += 1,
        }
        match verdict {
            Verdict::Boots(slot, reason) => {
                *self.boots.entry(format!("slot {slot}, {reason}")).or_default() += 1;
            }
            Verdict::Bad(problem) => {
                phase.bad += 1;
                self.first_bad.get_or_insert_with(|| Bad {
                    phase: phase.name.clone(),
                    state: state.to_string(),
                    problem: problem.clone(),
                });
            }
        }
    }

    /// Checks that every state boots a complete and verified release.
    ///
    /// # Errors
    /// Fails with the number of bad states.
    pub(crate) fn require_no_bad_states(&self) -> Result<(), String> {
        match self.bad() {
            0 => Ok(()),
            bad => Err(format!("{bad} states do not boot a complete and verified release")),
        }
    }

    /// Returns the number of bad states.
    pub(crate) fn bad(&self) -> usize {
        self.phases.iter().map(|phase| phase.bad).sum()
    }

    /// Returns the number of judged states.
    pub(crate) fn states(&self) -> usize {
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

/// Formats the result as a table.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, name: &str, cells: [&dyn fmt::Display; 8]| {
            write!(f, "{name:<34}")?;
            cells.iter().try_for_each(|cell| write!(f, " {cell:>8}"))?;
            writeln!(f)
        };
        let head = ["writes", "MiB", "epochs", "prefixes", "torn", "subsets", "states", "BAD"];
        line(f, "", head.each_ref().map(|title| title as &dyn fmt::Display))?;
        for phase in self.phases.iter().chain([&Phase::sum(&self.phases)]) {
            let (mib, states) = (phase.sectors / 2048, phase.states());
            let Phase { writes, epochs, prefixes, torn, subsets, bad, .. } = phase;
            line(f, &phase.name, [writes, &mib, epochs, prefixes, torn, subsets, &states, bad])?;
        }
        for (slot_and_reason, count) in &self.boots {
            writeln!(f, "{count:>8} states boot {slot_and_reason}")?;
        }
        let (mib, discards) = (self.log_bytes >> 20, Phase::sum(&self.phases).discards);
        write!(f, "recording {mib} MiB, {discards} discards; seed {}; ", self.seed)?;
        write!(f, "{} states compared with mtools; ", self.crosschecked)?;
        if self.data_checked > 0 {
            write!(f, "{} checked with fsck.ext4; ", self.data_checked)?;
        }
        writeln!(f, "judged in {:.1} s", self.seconds)?;
        if let Some(Bad { phase, state, problem }) = &self.first_bad {
            writeln!(f, "first BAD state, in \"{phase}\": {problem}\n  {state}")?;
        }
        Ok(())
    }
}
