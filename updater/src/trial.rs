//! The life of a trial, as changes of the boot state without any I/O: it begins, GRUB counts its tries
//! down, and it ends confirmed, failed or rolled back.

use protocol::Release;
use protocol::esp::Slot;
use protocol::grubenv::{BootId, BootState, Newest, TRIES, Trial};
use protocol::release::ReleaseId;

use crate::host::Booted;
use crate::plan::{Content, Slots};

/// A slot is to be tried from the next boot on, [`TRIES`] times.
pub fn begun(state: &BootState, slot: Slot, release: &Release, boot: Option<BootId>) -> BootState {
    let trial = Trial { slot, tries: TRIES, release: Some(release.id()), since: boot };
    // What is tried again has another chance.
    let failed = state.failed.filter(|failed| *failed != release.id());
    BootState { trial: Some(trial), failed, ..state.clone() }
}

/// What was to be tried is not.
pub fn called_off(state: &BootState) -> BootState {
    BootState { trial: None, ..state.clone() }
}

/// A trial without tries left, of a slot that is not running, has failed. It is over, and its release
/// is remembered.
pub fn settled(state: &BootState, running: Option<Slot>) -> BootState {
    match state.trial {
        Some(Trial { slot, tries: 0, release, .. }) if running != Some(slot) => {
            BootState { failed: release.or(state.failed), ..called_off(state) }
        }
        _ => state.clone(),
    }
}

/// A good slot that is not whole is none, if there is a better one: a whole one that is not known to be
/// bad; or else the one that runs, which the boot loader then has as its last resort, healthy or not. A
/// trial is left alone: it ends by itself. So is the candidate, which is to have a trial first.
pub fn adopted(
    state: &BootState,
    booted: Booted,
    slots: &Slots,
    candidate: ReleaseId,
) -> BootState {
    let other = state.good.other();
    let runs = booted.slot == Some(other);
    let trial = state.trial.filter(|trial| trial.slot == other);
    let is_tried = if runs { booted.on_trial } else { trial.is_some_and(|trial| trial.tries > 0) };
    let is_refuge = match slots.get(other) {
        Content::Complete(release) => {
            ![state.failed, Some(candidate)].contains(&Some(release.id()))
        }
        _ => false,
    };
    match !slots.get(state.good).is_whole() && !is_tried && (is_refuge || runs) {
        true => {
            let trial = state.trial.filter(|trial| trial.slot != other);
            BootState { good: other, trial, ..state.clone() }
        }
        false => state.clone(),
    }
}

/// The running slot is healthy, and so the one to come back to. A trial of the other slot goes on. A
/// slot that was rolled back is left at the next boot, however healthy it is.
pub fn confirmed(state: &BootState, running: Slot) -> BootState {
    let state = settled(state, Some(running));
    if is_rolled_back(&state, running) {
        return state;
    }
    BootState { good: running, trial: state.trial.filter(|trial| trial.slot != running), ..state }
}

/// Whether the running slot is being tried: if it is not healthy, a reboot leads back.
pub fn is_tried(state: &BootState, running: Slot) -> bool {
    running != state.good && state.trial.is_some_and(|trial| trial.slot == running)
}

/// Whether the running slot is on trial, and the operator has gone back from it.
pub fn is_rolled_back(state: &BootState, running: Slot) -> bool {
    let trial = state.trial.filter(|trial| trial.slot == running);
    trial.is_some_and(|trial| trial.release.is_some() && trial.release == state.failed)
}

/// A CDN offered this. From now on, what is older is not news; `afresh`, if the operator wants what
/// is older.
pub fn offered(state: &BootState, release: &Release, afresh: bool) -> BootState {
    let (target, build) = (release.target(), release.build);
    let known = state.newest.as_ref().filter(|newest| newest.target == target && !afresh);
    let build = known.map_or(build, |newest| newest.build.max(build));
    BootState { newest: Some(Newest { target, build }), ..state.clone() }
}

/// What going back by hand leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Back {
    /// A trial that has not begun is called off; the running system stays.
    Stay(BootState),
    /// The system that runs after a reboot is another one, in this slot.
    Reboot(BootState, Slot),
}

/// Why there is no way back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoWayBack {
    /// The other slot has no release that could be booted.
    #[error("there is nothing to go back to: slot {slot} {why}")]
    NotWhole {
        /// The other slot.
        slot: Slot,
        /// What is wrong with it.
        why: String,
    },
    /// It is the same one.
    #[error("there is nothing to go back to: both slots hold {0}")]
    Same(String),
    /// It was no good.
    #[error("there is nothing to go back to: {0} in slot {1} failed its trial, or was rolled back")]
    Failed(String, Slot),
}

/// Goes back by hand. What is left is remembered as failed, or the next update would bring it again.
/// What is gone back to is tried like a new release: if it does not boot, GRUB returns to this one.
pub fn rolled_back(
    state: &BootState,
    running: Slot,
    slots: &Slots,
    boot: Option<BootId>,
) -> Result<Back, NoWayBack> {
    let id = |slot| slots.get(slot).release().map(Release::id);
    let state = &settled(state, Some(running));
    if running != state.good {
        whole(slots, state.good)?;
        // Without tries GRUB boots the good slot; and nobody confirms this one meanwhile.
        let release = id(running).or(state.trial.and_then(|trial| trial.release));
        let trial = Some(Trial { slot: running, tries: 0, release, since: boot });
        let failed = release.or(state.failed);
        return Ok(Back::Reboot(BootState { trial, failed, ..state.clone() }, state.good));
    }
    let other = running.other();
    if let Some(Trial { slot, release, .. }) = state.trial
        && slot == other
    {
        let failed = release.or(id(other)).or(state.failed);
        return Ok(Back::Stay(BootState { failed, ..called_off(state) }));
    }
    let release = whole(slots, other)?;
    if id(running) == Some(release.id()) {
        return Err(NoWayBack::Same(release.version.clone()));
    }
    if state.failed == Some(release.id()) {
        return Err(NoWayBack::Failed(release.version.clone(), other));
    }
    let failed = id(running).or(state.failed);
    Ok(Back::Reboot(BootState { failed, ..begun(state, other, release, boot) }, other))
}

/// The release in a slot, if it could be booted.
fn whole(slots: &Slots, slot: Slot) -> Result<&Release, NoWayBack> {
    let why = match slots.get(slot) {
        Content::Complete(release) => return Ok(release),
        Content::Empty => "is empty".into(),
        Content::Partial { .. } => "is not downloaded whole".into(),
        Content::Damaged { problem, .. } => format!("is damaged ({problem})"),
    };
    Err(NoWayBack::NotWhole { slot, why })
}

#[cfg(test)]
mod tests;
