//! The parts of a recording: what its scenario names, and within that where a trial begins.

use std::ops::Range;

use protocol::esp::GRUBENV;

use super::log::{Action, Entry};
use crate::inspect::disk::Model;
use crate::inspect::fat::{Fat, FatError};
use crate::inspect::grub::read_environment;

/// The second part of a step in which a slot was tried.
const TRIAL: &str = "  trial boot and confirmation";

/// Names of parts, and the places of their entries. `steps` are names with the length of the log at
/// the end of each; where GRUB counts a try down, another part begins. The file system of `base`
/// begins at sector `esp`.
pub fn phases(
    steps: &[(String, u64)],
    entries: &[Entry],
    base: &Model,
    esp: u64,
) -> Result<Vec<(String, Range<usize>)>, FatError> {
    let fat = Fat::open(base, esp)?;
    let grubenv = fat.find(GRUBENV)?.map(|file| fat.sectors(&file)).transpose()?;
    let grubenv = grubenv.and_then(|sectors| sectors.first().copied());
    let mut phases = Vec::new();
    let mut start = 0;
    for (number, (name, length)) in steps.iter().enumerate() {
        // What no step has belongs to the last one.
        let is_last = number + 1 == steps.len();
        let before = entries.partition_point(|entry| entry.end <= *length);
        let end = if is_last { entries.len() } else { before.max(start) };
        let counts = |at: &usize| counts(&entries[*at], grubenv, base);
        let trial = (start..end).find(counts).unwrap_or(end);
        phases.push((name.clone(), start..trial));
        if trial < end {
            phases.push((TRIAL.to_owned(), trial..end));
        }
        start = end;
    }
    if phases.is_empty() {
        phases.push(("recording".to_owned(), 0..entries.len()));
    }
    Ok(phases)
}

/// Whether this is a write of grubenv in which a try was counted.
fn counts(entry: &Entry, grubenv: Option<u64>, contents: &Model) -> bool {
    let (Action::Write(first, ids), Some(sector)) = (&entry.action, grubenv) else { return false };
    let Some(place) = sector.checked_sub(*first) else { return false };
    let id = ids.get(place as usize);
    let environment = id.map(|id| read_environment(contents.content(*id)));
    environment
        .is_some_and(|found| !found.trial.is_empty() && matches!(&*found.tries, "0" | "1" | "2"))
}
