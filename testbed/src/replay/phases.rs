//! The phases of a recording: the steps of its scenario, split where a trial begins.

use std::ops::Range;

use protocol::esp::GRUBENV;

use super::log::{Action, Entry};
use crate::inspect::disk::Model;
use crate::inspect::fat::{Fat, FatError};
use crate::inspect::grub::read_environment;

/// The name of the phase of a step that begins with the trial of a slot.
const TRIAL: &str = "  trial boot and confirmation";

/// Returns the names of the phases, each with the range of its entries. `steps` are the names of the
/// steps, each with the length of the log at its end. A step in which GRUB counts down a try is split at
/// that write. The file system of `base` begins at sector `esp`.
pub(crate) fn phases(
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
        // Entries after the last step belong to it.
        let is_last = number + 1 == steps.len();
        let logged = entries.partition_point(|entry| entry.end <= *length);
        let end = if is_last { entries.len() } else { logged.max(start) };
        let begins_trial = |index: &usize| counts_down_try(&entries[*index], grubenv, base);
        let trial = (start..end).find(begins_trial).unwrap_or(end);
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

/// Returns whether `entry` writes a grubenv in which GRUB has counted down a try.
fn counts_down_try(entry: &Entry, grubenv: Option<u64>, contents: &Model) -> bool {
    let (Action::Write(first, ids), Some(sector)) = (&entry.action, grubenv) else { return false };
    let Some(index) = sector.checked_sub(*first) else { return false };
    let id = ids.get(index as usize);
    let environment = id.map(|id| read_environment(contents.content(*id)));
    environment
        .is_some_and(|found| !found.trial.is_empty() && matches!(&*found.tries, "0" | "1" | "2"))
}
