//! The decision of an update: [`next`] maps the facts about a host to the next step.

use protocol::Manifest;
use protocol::esp::Slot;
use protocol::grubenv::{BootState, TRIES, Trial};

use crate::host::Booted;
use crate::slot_content::{Content, Slots};
use crate::trial::{has_failed, is_abandoned};

/// What the operator allows beyond the defaults.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Allows a release that is older than the running one.
    pub downgrade: bool,
    /// Allows a release that failed its trial on this host.
    pub retry_failed: bool,
}

/// Everything that the decision depends on.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// How the host was booted.
    pub booted: Booted,
    /// The boot state, after [`crate::trial::expire_trial`] and [`crate::trial::promote`] were applied.
    /// [`crate::grubenv_file`] supplies one if grubenv is missing or damaged.
    pub state: &'a BootState,
    /// The contents of both slots.
    pub slots: &'a Slots,
    /// The verified manifest of the release that the CDN offers ([`crate::candidate::Candidate`]).
    pub candidate: &'a Manifest,
    /// What the operator allows.
    pub allow: Permissions,
}

/// The next step of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Do nothing: the good slot holds the candidate, or the candidate runs on trial.
    UpToDate,
    /// Reboot: this slot is on trial and has not been booted yet.
    Pending(Slot),
    /// Report an error: this slot is on trial, the host was rebooted, and GRUB counted no try. Another
    /// reboot would have the same result.
    NotTried(Slot),
    /// Wait for [`crate::confirmation`]: until then both slots are needed.
    Unconfirmed {
        /// The slot that runs.
        running: Slot,
        /// The slot that GRUB falls back to.
        good: Slot,
    },
    /// Reboot once into this slot. It is good and complete, but the other slot runs, because the
    /// running release was rolled back or because GRUB could not load the good slot.
    Return(Slot),
    /// Wait for a newer release: the candidate failed its trial or was rolled back.
    FailedBefore,
    /// Reject the candidate: it is older than the release in the good slot.
    Downgrade,
    /// Cancel the trial of this slot before it starts: the CDN has withdrawn that release, and the
    /// release that it offers instead is already installed or must not be installed.
    Withdraw(Slot),
    /// Write the candidate into this slot and start its trial.
    Install(Slot),
    /// Start the trial of this slot without writing to it. It holds the complete candidate; or it is the
    /// only slot that is complete, or the only one that is not known to have failed.
    Activate(Slot),
    /// Write the candidate into this slot, which is damaged or partial, while the good slot holds the
    /// candidate as well. No trial and no reboot are needed.
    Repair(Slot),
}

impl Step {
    /// Returns the slot that the step applies to.
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Self::Pending(slot)
            | Self::NotTried(slot)
            | Self::Return(slot)
            | Self::Withdraw(slot)
            | Self::Install(slot)
            | Self::Activate(slot)
            | Self::Repair(slot) => Some(*slot),
            Self::UpToDate | Self::Unconfirmed { .. } | Self::FailedBefore | Self::Downgrade => {
                None
            }
        }
    }

    /// Returns the slot that the step writes to.
    pub fn writes(&self) -> Option<Slot> {
        match self {
            Self::Install(slot) | Self::Repair(slot) => Some(*slot),
            _ => None,
        }
    }
}

/// Returns the next step.
///
/// Two invariants hold for all facts:
/// - No step writes to the good slot, which GRUB falls back to; to the running slot while that is
///   complete; or to the only complete slot, unless its release is known to have failed.
/// - No step starts a trial unless the other slot is good and running, or complete, or the slot on
///   trial is the only complete one.
///
/// Normally the good slot runs, and all changes are made to the spare slot. A damaged good slot is
/// demoted if the other slot is better ([`crate::trial::promote`]). It is then the spare slot and is
/// rewritten, even while it runs: the running system is in memory. If the other slot is not complete,
/// the release is first installed and tried there. Once that is confirmed, the damaged slot is the spare
/// slot and is repaired.
pub fn next(facts: &Facts<'_>) -> Step {
    let Facts { booted, state, slots, candidate, .. } = facts;
    let (good, spare) = (state.good, state.good.other());
    let (good_content, spare_content) = (slots.get(good), slots.get(spare));
    let trial = state.trial.filter(|trial| trial.slot == spare && trial.tries > 0);
    let id = candidate.release.id();

    if booted.slot == Some(spare)
        && let Some(step) = step_outside_good_slot(facts, trial)
    {
        return step;
    }
    let is_good_usable = good_content.is_complete() && !has_failed(state, good_content);
    let is_spare_usable = spare_content.is_complete() && !has_failed(state, spare_content);
    // After a rollback, or if the good slot was lost, the spare slot is the only one worth booting.
    if is_spare_usable && !is_good_usable {
        return trial.map_or(Step::Activate(spare), |trial| step_for_pending_trial(trial, facts));
    }
    if good_content.holds(id) {
        return match (spare_content, trial) {
            (Content::Damaged { .. } | Content::Partial { .. }, _) => Step::Repair(spare),
            (_, Some(_)) => Step::Withdraw(spare),
            (_, None) => Step::UpToDate,
        };
    }
    // The permissions were checked when the trial was started.
    if let Some(trial) = trial
        && spare_content.holds(id)
    {
        return step_for_pending_trial(trial, facts);
    }
    if let Some(rejection) = rejection(facts, good_content) {
        // The CDN no longer offers the newer release that is on trial, so that must not be tried
        // either. An older release on trial was requested by the operator and stays.
        let is_withdrawn = trial.is_some()
            && good_content.manifest().is_some_and(|good| is_older(good, spare_content));
        return if is_withdrawn { Step::Withdraw(spare) } else { rejection };
    }
    if spare_content.holds(id) { Step::Activate(spare) } else { Step::Install(spare) }
}

/// Returns the step for a host that does not run its good slot. Returns `None` if the running slot may
/// be written like any spare slot: it is damaged, or was rewritten since it was booted.
fn step_outside_good_slot(facts: &Facts<'_>, trial: Option<Trial>) -> Option<Step> {
    let Facts { booted, state, slots, candidate, .. } = facts;
    let (good, running) = (state.good, state.good.other());
    let is_complete = slots.get(running).is_complete();
    let is_abandoned = is_abandoned(state, running);
    if booted.on_trial && !is_abandoned {
        let is_candidate = slots.get(running).holds(candidate.release.id());
        let unconfirmed = Step::Unconfirmed { running, good };
        return Some(if is_candidate { Step::UpToDate } else { unconfirmed });
    }
    if !slots.get(good).is_complete() {
        return Some(Step::Unconfirmed { running, good });
    }
    let is_rewritten = trial.is_some_and(|trial| trial.since == booted.id);
    (is_abandoned || is_complete && !is_rewritten).then_some(Step::Return(good))
}

/// Returns why the candidate must not be installed, or `None` if it may be.
fn rejection(facts: &Facts<'_>, good_content: &Content) -> Option<Step> {
    let Facts { state, candidate, allow, .. } = facts;
    if is_older(candidate, good_content) && !allow.downgrade {
        Some(Step::Downgrade)
    } else if state.failed == Some(candidate.release.id()) && !allow.retry_failed {
        Some(Step::FailedBefore)
    } else {
        None
    }
}

fn is_older(manifest: &Manifest, than: &Content) -> bool {
    than.manifest().is_some_and(|than| {
        manifest.is_older_than(than) && manifest.release.id() != than.release.id()
    })
}

/// Returns the step for a trial that was started but whose slot does not run. GRUB counts a try before
/// it boots the slot. If the host was rebooted since and no try was counted, GRUB cannot write grubenv.
fn step_for_pending_trial(trial: Trial, facts: &Facts<'_>) -> Step {
    let booted = facts.booted;
    let was_rebooted = booted.slot.is_some() && booted.is_after(trial.since);
    match was_rebooted && trial.tries == TRIES && !facts.allow.retry_failed {
        true => Step::NotTried(trial.slot),
        false => Step::Pending(trial.slot),
    }
}

#[cfg(test)]
mod age_tests;
#[cfg(test)]
pub(crate) mod tests;
