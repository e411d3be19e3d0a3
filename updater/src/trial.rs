//! The transitions of the boot state, as pure functions. A trial starts, GRUB counts down its tries, and
//! the trial ends: its release is confirmed, fails or is rolled back, or the trial is cancelled.

use protocol::Release;
use protocol::esp::Slot;
use protocol::grubenv::{BootId, BootState, Newest, TRIES, Trial};

use crate::host::Booted;
use crate::slot_content::{Content, Slots};

/// Starts a trial: GRUB boots `slot` first, at most [`TRIES`] times.
pub fn start_trial(
    state: &BootState,
    slot: Slot,
    release: &Release,
    boot: Option<BootId>,
) -> BootState {
    let trial = Trial { slot, tries: TRIES, release: Some(release.id()), since: boot };
    // A release that is tried again is no longer recorded as failed.
    let failed = state.failed.filter(|failed| *failed != release.id());
    BootState { trial: Some(trial), failed, ..state.clone() }
}

/// Cancels the trial, if there is one.
pub fn cancel_trial(state: &BootState) -> BootState {
    BootState { trial: None, ..state.clone() }
}

/// Ends a trial that has no tries left and whose slot does not run, and records its release as failed.
pub fn expire_trial(state: &BootState, running: Option<Slot>) -> BootState {
    match state.trial {
        Some(Trial { slot, tries: 0, release, .. }) if running != Some(slot) => {
            BootState { failed: release.or(state.failed), ..cancel_trial(state) }
        }
        _ => state.clone(),
    }
}

/// Makes the other slot good if the good slot is lost and the other slot is better.
///
/// The good slot is lost if it is not complete, or if GRUB could not load it in a boot that should have
/// returned to it ([`return_failed`]). The other slot is better if it is complete, was confirmed before
/// (`has_confirmed_mark`) and is not known to have failed; or if it runs, because GRUB then booted it as
/// its last resort. A trial in progress is left unchanged.
pub fn promote(
    state: &BootState,
    booted: Booted,
    slots: &Slots,
    has_confirmed_mark: bool,
) -> BootState {
    let other = state.good.other();
    let is_running = booted.slot == Some(other);
    let is_lost =
        !slots.get(state.good).is_complete() || is_running && return_failed(state, booted);
    let trial = state.trial.filter(|trial| trial.slot == other && trial.tries > 0);
    let is_trial_in_progress = match trial {
        _ if is_running && booted.on_trial => true,
        // If the slot runs but was not booted on trial, the trial is in progress only if the slot was
        // rewritten in this boot. Otherwise GRUB could not count the try and booted the slot as its
        // last resort.
        Some(trial) => !is_running || trial.since == booted.id,
        None => false,
    };
    let content = slots.get(other);
    let is_proven = content.is_complete() && has_confirmed_mark && !has_failed(state, content);
    if !is_lost || is_trial_in_progress || !(is_proven || is_running) {
        return state.clone();
    }
    let trial = state.trial.filter(|trial| trial.slot != other);
    BootState { good: other, trial, ..state.clone() }
}

/// Abandons the running slot: the next boot returns to the good slot, and until then the running slot
/// is not confirmed. If its trial has no tries left, its release is recorded as failed.
///
/// An abandoned slot is stored as a trial without tries and without a release. GRUB boots the good slot
/// when no tries are left.
pub fn abandon(state: &BootState, running: Slot, boot: Option<BootId>) -> BootState {
    let exhausted = state.trial.filter(|trial| trial.slot == running && trial.tries == 0);
    let failed = exhausted.and_then(|trial| trial.release).or(state.failed);
    let trial = Some(Trial { slot: running, tries: 0, release: None, since: boot });
    BootState { trial, failed, ..state.clone() }
}

/// Returns whether the running slot was abandoned; see [`abandon`].
pub fn is_abandoned(state: &BootState, running: Slot) -> bool {
    let trial = state.trial.filter(|trial| trial.slot == running);
    trial.is_some_and(|trial| trial.tries == 0 && trial.release.is_none())
}

/// Returns whether the running slot was abandoned in an earlier boot and runs again without a trial,
/// which means that GRUB could not load the good slot.
pub fn return_failed(state: &BootState, booted: Booted) -> bool {
    let since = state.trial.and_then(|trial| trial.since);
    booted.is_after(since)
        && !booted.on_trial
        && booted.slot.is_some_and(|running| is_abandoned(state, running))
}

/// Makes the running slot good, because it is healthy. A trial of the other slot stays in progress.
pub fn mark_confirmed(state: &BootState, running: Slot) -> BootState {
    let state = mark_running(&expire_trial(state, Some(running)));
    BootState { good: running, trial: state.trial.filter(|trial| trial.slot != running), ..state }
}

/// Resets the boot counter, because the host has started.
pub fn mark_running(state: &BootState) -> BootState {
    BootState { boots: 0, ..state.clone() }
}

/// Returns whether the running slot is on trial, so that a reboot can fall back to the good slot.
pub fn is_on_trial(state: &BootState, running: Slot) -> bool {
    running != state.good && state.trial.is_some_and(|trial| trial.slot == running)
}

/// Returns whether the release in a slot is recorded as failed: it failed its trial or was rolled back.
pub fn has_failed(state: &BootState, content: &Content) -> bool {
    content.release().is_some_and(|release| state.failed == Some(release.id()))
}

/// Records the newest build that a CDN offered for a target. Older builds are rejected from then on.
/// With `replace`, an older build replaces a newer record, because the operator allowed a downgrade.
pub fn record_newest(state: &BootState, release: &Release, replace: bool) -> BootState {
    let (target, build) = (release.target(), release.build);
    let known = state.newest.as_ref().filter(|newest| newest.target == target && !replace);
    let build = known.map_or(build, |newest| newest.build.max(build));
    BootState { newest: Some(Newest { target, build }), ..state.clone() }
}

/// The result of a rollback by the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rollback {
    /// A trial that has not started is cancelled. No reboot is needed.
    Stay(BootState),
    /// The host has to be rebooted into this slot.
    Reboot(BootState, Slot),
}

/// The reason why a rollback is not possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RollbackError {
    /// The slot to return to holds no release that can be booted.
    #[error("cannot roll back: slot {slot} {reason}")]
    NotComplete {
        /// The slot to return to.
        slot: Slot,
        /// What is wrong with it.
        reason: String,
    },
    /// Both slots hold the same release.
    #[error("cannot roll back: both slots hold {0}")]
    Same(String),
    /// The release in the other slot is recorded as failed.
    #[error("cannot roll back: {0} in slot {1} failed its trial or was rolled back")]
    Failed(String, Slot),
}

/// Rolls back to the other release at the operator's request.
///
/// The current release is recorded as failed, because the next update would otherwise install it again.
/// The release in the other slot starts a trial like a new one: if it does not boot, GRUB returns to
/// the current slot.
pub fn roll_back(
    state: &BootState,
    running: Slot,
    slots: &Slots,
    boot: Option<BootId>,
) -> Result<Rollback, RollbackError> {
    let id = |slot| slots.get(slot).release().map(Release::id);
    let state = &expire_trial(state, Some(running));
    if running != state.good {
        bootable_release(slots, state.good)?;
        let release = id(running).or(state.trial.and_then(|trial| trial.release));
        let failed = release.or(state.failed);
        let state = BootState { failed, ..abandon(state, running, boot) };
        return Ok(Rollback::Reboot(state.clone(), state.good));
    }
    let other = running.other();
    if let Some(Trial { slot, release, .. }) = state.trial
        && slot == other
    {
        bootable_release(slots, running)?;
        let failed = release.or(id(other)).or(state.failed);
        return Ok(Rollback::Stay(BootState { failed, ..cancel_trial(state) }));
    }
    let release = bootable_release(slots, other)?;
    if id(running) == Some(release.id()) {
        return Err(RollbackError::Same(release.version.clone()));
    }
    if has_failed(state, slots.get(other)) {
        return Err(RollbackError::Failed(release.version.clone(), other));
    }
    let failed = id(running).or(state.failed);
    Ok(Rollback::Reboot(BootState { failed, ..start_trial(state, other, release, boot) }, other))
}

/// Returns the release in a slot if it can be booted.
fn bootable_release(slots: &Slots, slot: Slot) -> Result<&Release, RollbackError> {
    let reason = match slots.get(slot) {
        Content::Complete(manifest) => return Ok(&manifest.release),
        Content::Empty => "is empty".into(),
        Content::Partial { .. } => "holds an unfinished download".into(),
        Content::Damaged { problem, .. } => format!("is damaged ({problem})"),
    };
    Err(RollbackError::NotComplete { slot, reason })
}

#[cfg(test)]
mod tests;
