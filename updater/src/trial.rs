//! The life of a trial, as changes of the boot state without any I/O: it begins, GRUB counts its tries
//! down, and it ends confirmed, failed or rolled back.

use protocol::Release;
use protocol::esp::Slot;
use protocol::grubenv::{BootId, BootState, Newest, TRIES, Trial};

use crate::host::Booted;
use crate::plan::{Content, Slots};

/// A slot is to be tried from the next boot on, [`TRIES`] times.
pub fn start_trial(
    state: &BootState,
    slot: Slot,
    release: &Release,
    boot: Option<BootId>,
) -> BootState {
    let trial = Trial { slot, tries: TRIES, release: Some(release.id()), since: boot };
    // What is tried again has another chance.
    let failed = state.failed.filter(|failed| *failed != release.id());
    BootState { trial: Some(trial), failed, ..state.clone() }
}

/// What was to be tried is not.
pub fn cancel_trial(state: &BootState) -> BootState {
    BootState { trial: None, ..state.clone() }
}

/// A trial without tries left, of a slot that is not running, has failed. It is over, and its release
/// is remembered.
pub fn expire_trial(state: &BootState, running: Option<Slot>) -> BootState {
    match state.trial {
        Some(Trial { slot, tries: 0, release, .. }) if running != Some(slot) => {
            BootState { failed: release.or(state.failed), ..cancel_trial(state) }
        }
        _ => state.clone(),
    }
}

/// A good slot gives its place to a better one if it is not whole, or if the boot loader could not load
/// it when the running slot was left for it. Better is a whole one that was confirmed before
/// (`has_confirmed_mark`) and is not known to be bad; or else the one that runs, which the boot loader then has as
/// its last resort, healthy or not. What is or will be tried is left alone: it ends by itself.
pub fn promote(
    state: &BootState,
    booted: Booted,
    slots: &Slots,
    has_confirmed_mark: bool,
) -> BootState {
    let other = state.good.other();
    let runs = booted.slot == Some(other);
    let is_lost = !slots.get(state.good).is_whole() || runs && return_failed(state, booted);
    let trial = state.trial.filter(|trial| trial.slot == other && trial.tries > 0);
    let goes_on = match trial {
        _ if runs && booted.on_trial => true,
        // Written anew in this boot; or else GRUB could not count, and this is its last resort.
        Some(trial) => !runs || trial.since == booted.id,
        None => false,
    };
    let refuge = slots.get(other);
    let is_refuge = refuge.is_whole() && has_confirmed_mark && !is_bad(state, refuge);
    if !is_lost || goes_on || !(is_refuge || runs) {
        return state.clone();
    }
    let trial = state.trial.filter(|trial| trial.slot != other);
    BootState { good: other, trial, ..state.clone() }
}

/// What runs is to be left for the good slot at the next boot, and nobody confirms it meanwhile. A trial
/// of it that was used up has failed. Without tries GRUB boots the good slot.
pub fn abandon(state: &BootState, running: Slot, boot: Option<BootId>) -> BootState {
    let over = state.trial.filter(|trial| trial.slot == running && trial.tries == 0);
    let failed = over.and_then(|trial| trial.release).or(state.failed);
    let trial = Some(Trial { slot: running, tries: 0, release: None, since: boot });
    BootState { trial, failed, ..state.clone() }
}

/// Whether the running slot is to be left; see [`abandon`].
pub fn is_abandoned(state: &BootState, running: Slot) -> bool {
    let trial = state.trial.filter(|trial| trial.slot == running);
    trial.is_some_and(|trial| trial.tries == 0 && trial.release.is_none())
}

/// Whether it was to be left in a boot before this one, and runs again, without a trial: GRUB could not
/// load the good slot.
pub fn return_failed(state: &BootState, booted: Booted) -> bool {
    let since = state.trial.and_then(|trial| trial.since);
    booted.is_after(since)
        && !booted.on_trial
        && booted.slot.is_some_and(|running| is_abandoned(state, running))
}

/// The running slot is healthy, and so the one to come back to. A trial of the other slot goes on.
pub fn mark_confirmed(state: &BootState, running: Slot) -> BootState {
    let state = expire_trial(state, Some(running));
    BootState { good: running, trial: state.trial.filter(|trial| trial.slot != running), ..state }
}

/// Whether the running slot is being tried: if it is not healthy, a reboot leads back.
pub fn is_on_trial(state: &BootState, running: Slot) -> bool {
    running != state.good && state.trial.is_some_and(|trial| trial.slot == running)
}

/// Whether what is there is known to be bad: it failed its trial, or was rolled back.
pub fn is_bad(state: &BootState, content: &Content) -> bool {
    content.release().is_some_and(|release| state.failed == Some(release.id()))
}

/// A CDN offered this. From now on, what is older is not news; `afresh`, if the operator wants what
/// is older.
pub fn record_newest(state: &BootState, release: &Release, afresh: bool) -> BootState {
    let (target, build) = (release.target(), release.build);
    let known = state.newest.as_ref().filter(|newest| newest.target == target && !afresh);
    let build = known.map_or(build, |newest| newest.build.max(build));
    BootState { newest: Some(Newest { target, build }), ..state.clone() }
}

/// What going back by hand leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rollback {
    /// A trial that has not begun is called off; the running system stays.
    Stay(BootState),
    /// The system that runs after a reboot is another one, in this slot.
    Reboot(BootState, Slot),
}

/// Why there is no way back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RollbackError {
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
pub fn roll_back(
    state: &BootState,
    running: Slot,
    slots: &Slots,
    boot: Option<BootId>,
) -> Result<Rollback, RollbackError> {
    let id = |slot| slots.get(slot).release().map(Release::id);
    let state = &expire_trial(state, Some(running));
    if running != state.good {
        whole(slots, state.good)?;
        let release = id(running).or(state.trial.and_then(|trial| trial.release));
        let failed = release.or(state.failed);
        let state = BootState { failed, ..abandon(state, running, boot) };
        return Ok(Rollback::Reboot(state.clone(), state.good));
    }
    let other = running.other();
    if let Some(Trial { slot, release, .. }) = state.trial
        && slot == other
    {
        whole(slots, running)?;
        let failed = release.or(id(other)).or(state.failed);
        return Ok(Rollback::Stay(BootState { failed, ..cancel_trial(state) }));
    }
    let release = whole(slots, other)?;
    if id(running) == Some(release.id()) {
        return Err(RollbackError::Same(release.version.clone()));
    }
    if is_bad(state, slots.get(other)) {
        return Err(RollbackError::Failed(release.version.clone(), other));
    }
    let failed = id(running).or(state.failed);
    Ok(Rollback::Reboot(BootState { failed, ..start_trial(state, other, release, boot) }, other))
}

/// The release in a slot, if it could be booted.
fn whole(slots: &Slots, slot: Slot) -> Result<&Release, RollbackError> {
    let why = match slots.get(slot) {
        Content::Complete(release) => return Ok(release),
        Content::Empty => "is empty".into(),
        Content::Partial { .. } => "is not downloaded whole".into(),
        Content::Damaged { problem, .. } => format!("is damaged ({problem})"),
    };
    Err(RollbackError::NotWhole { slot, why })
}

#[cfg(test)]
mod tests;
