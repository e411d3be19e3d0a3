//! What a Pattern no longer has.

use std::collections::BTreeMap;

use super::plan::Step;

/// A Command of the previous Pattern: its parent and its id.
type Key<'a> = (&'a str, &'a str);

/// Returns the indexes of the steps of the previous Pattern to remove, in the order in which they are removed.
///
/// A Command is removed if it has a `remove` script and the new Pattern has no Command with its id in the same
/// groups, or only ones with another `change`. `changeIgnore` of the new Command allows another `change`.
pub(super) fn gone(previous: &[Step<'_>], steps: &[Step<'_>]) -> Vec<usize> {
    let mut kept: BTreeMap<Key<'_>, Vec<&Step<'_>>> = BTreeMap::new();
    for step in steps {
        kept.entry(key(step)).or_default().push(step);
    }
    let is_kept = |old: &Step<'_>| {
        kept.get(&key(old)).is_some_and(|same| {
            let is_same = |new: &&Step<'_>| {
                new.command.change_ignore || new.command.change == old.command.change
            };
            same.iter().any(is_same)
        })
    };
    let is_gone = |(_, old): &(usize, &Step<'_>)| old.command.remove.is_some() && !is_kept(old);
    previous.iter().enumerate().rev().filter(is_gone).map(|(index, _)| index).collect()
}

fn key<'a>(step: &'a Step<'_>) -> Key<'a> {
    (&step.parent, &step.command.id)
}
