//! The one decision of an update: [`next`].

use protocol::Release;
use protocol::esp::Slot;
use protocol::grubenv::{BootState, TRIES, Trial};
use protocol::release::ReleaseId;

use crate::host::Booted;
use crate::trial::{is_abandoned, is_bad};

/// What is in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    Empty,
    /// A release whose manifest verifies and whose files are as it says.
    Complete(Release),
    /// The beginning of a release, of a download that did not come to its end. The next one goes on
    /// there, if it is for the same release.
    Partial {
        /// What it will be.
        release: Release,
        /// So many bytes of it are there.
        bytes: u64,
    },
    /// Something else.
    Damaged {
        /// The release that should be there, if its manifest still verifies.
        release: Option<Release>,
        /// What is wrong.
        problem: String,
    },
}

impl Content {
    /// The release that is there, or should be.
    pub fn release(&self) -> Option<&Release> {
        match self {
            Self::Empty | Self::Partial { .. } => None,
            Self::Complete(release) => Some(release),
            Self::Damaged { release, .. } => release.as_ref(),
        }
    }

    /// Whether it is a whole release.
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Complete(_))
    }

    /// Whether it is whole and would boot what this release would.
    fn holds(&self, id: ReleaseId) -> bool {
        matches!(self, Self::Complete(release) if release.id() == id)
    }
}

/// Both slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    /// `etchaos/a`
    pub a: Content,
    /// `etchaos/b`
    pub b: Content,
}

impl Slots {
    /// One of them.
    pub fn get(&self, slot: Slot) -> &Content {
        match slot {
            Slot::A => &self.a,
            Slot::B => &self.b,
        }
    }
}

/// What the operator allows besides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Install a release that is older than the running one.
    pub downgrade: bool,
    /// Install a release that failed its trial on this host.
    pub retry_failed: bool,
}

/// Everything that the decision depends on.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// What runs.
    pub booted: Booted,
    /// What GRUB goes by, with a good slot that is lost replaced ([`crate::trial::promote`]), and a trial
    /// that is over told as failed ([`crate::trial::expire_trial`]); see [`crate::grubenv_file`] for a grubenv
    /// that is missing or damaged.
    pub state: &'a BootState,
    /// What is in the slots.
    pub slots: &'a Slots,
    /// The release of the CDN's manifest. It is verified, or there would be no [`crate::candidate::Candidate`].
    pub candidate: &'a Release,
    /// What the operator allows.
    pub allow: Permissions,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing: the candidate is there and whole.
    UpToDate,
    /// Reboot: what is in this slot is on trial.
    Pending(Slot),
    /// Ask for help: what is in this slot is on trial, and in a whole boot GRUB did not count a try.
    /// Another reboot would change nothing.
    NotTried(Slot),
    /// Wait for [`crate::confirm`]: both slots are needed until then.
    Unconfirmed {
        /// The slot that runs.
        running: Slot,
        /// The slot that GRUB falls back to.
        good: Slot,
    },
    /// Reboot, once: this slot is good and whole, and something else runs. That was rolled back; or GRUB
    /// could not load the good slot, so far.
    Return(Slot),
    /// Wait for a newer release: the candidate failed its trial, or was rolled back.
    FailedBefore,
    /// Refuse: the candidate is older than what is good.
    Downgrade,
    /// End the trial of this slot before it begins: the CDN does not offer that release any more, and
    /// what it offers instead runs, or is not to be installed.
    Withdraw(Slot),
    /// Write the candidate into this slot and put it on trial.
    Install(Slot),
    /// Put this slot on trial: the candidate is there and whole, but nothing points to it. Or what is there
    /// is no candidate, but alone is whole, or alone is not known to be bad.
    Activate(Slot),
    /// Write the candidate, which is what runs, into this slot, which is damaged or not whole. No
    /// trial, no reboot.
    Repair(Slot),
}

impl Step {
    /// The slot that this step is about, if it is about one.
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

    /// The slot that this step writes into, if it does.
    pub fn writes(&self) -> Option<Slot> {
        match self {
            Self::Install(slot) | Self::Repair(slot) => Some(*slot),
            _ => None,
        }
    }
}

/// From the facts to the next step.
///
/// Two invariants, whatever the facts: no step writes into the good slot, to which GRUB falls back, nor
/// over what runs and is whole, nor over what alone is whole, unless it is known to be bad. No step puts
/// a slot on trial unless another one that is good runs, or is whole; or that slot alone is whole.
///
/// Normally the good slot runs, and the other one is spare. Everything is done to the spare slot.
/// A good slot that is damaged beside a better one gives that its place ([`crate::trial::promote`]), is
/// the spare one and written anew, also if it runs: the system is in memory. Beside one that is not
/// whole, it is healed by way of that one: the same release is put on trial there, and once it is
/// confirmed, the damaged slot is the spare one and is repaired.
pub fn next(facts: &Facts<'_>) -> Step {
    let Facts { booted, state, slots, candidate, .. } = facts;
    let (good, spare) = (state.good, state.good.other());
    // Where the running slot is not known, or is spare, the good one is what this ESP would boot.
    let (here, there) = (slots.get(good), slots.get(spare));
    let trial = state.trial.filter(|trial| trial.slot == spare && trial.tries > 0);
    let id = candidate.id();

    if booted.slot == Some(spare)
        && let Some(step) = beside_good(facts, trial)
    {
        return step;
    }
    // The operator goes back from what is good; or the boot loader could not do better.
    if there.is_whole() && !is_bad(state, there) && (!here.is_whole() || is_bad(state, here)) {
        return trial.map_or(Step::Activate(spare), |trial| asked_for(trial, facts));
    }
    if here.holds(id) {
        return match (there, trial) {
            (Content::Damaged { .. } | Content::Partial { .. }, _) => Step::Repair(spare),
            (_, Some(_)) => Step::Withdraw(spare),
            (_, None) => Step::UpToDate,
        };
    }
    // Whoever put it on trial was allowed to.
    if let Some(trial) = trial
        && there.holds(id)
    {
        return asked_for(trial, facts);
    }
    if let Some(refused) = refused(facts, here) {
        // What the CDN offered before is not to be tried either. An older one is the operator's wish.
        let is_recalled =
            trial.is_some() && here.release().is_some_and(|good| is_older(good, there));
        return if is_recalled { Step::Withdraw(spare) } else { refused };
    }
    if there.holds(id) { Step::Activate(spare) } else { Step::Install(spare) }
}

/// What follows where another slot than the good one runs; nothing, if that slot is as good as any for
/// what is offered: it is damaged, or was written anew since it was booted.
fn beside_good(facts: &Facts<'_>, trial: Option<Trial>) -> Option<Step> {
    let Facts { booted, state, slots, candidate, .. } = facts;
    let (good, running) = (state.good, state.good.other());
    let is_whole = slots.get(running).is_whole();
    let is_abandoned = is_abandoned(state, running);
    if booted.on_trial && !is_abandoned {
        let is_candidate = slots.get(running).holds(candidate.id());
        let unconfirmed = Step::Unconfirmed { running, good };
        return Some(if is_candidate { Step::UpToDate } else { unconfirmed });
    }
    if !slots.get(good).is_whole() {
        return Some(Step::Unconfirmed { running, good });
    }
    let is_anew = trial.is_some_and(|trial| trial.since == booted.id);
    (is_abandoned || is_whole && !is_anew).then_some(Step::Return(good))
}

/// Why the candidate is not installed, if it is not.
fn refused(facts: &Facts<'_>, here: &Content) -> Option<Step> {
    let Facts { state, candidate, allow, .. } = facts;
    if is_older(candidate, here) && !allow.downgrade {
        Some(Step::Downgrade)
    } else if state.failed == Some(candidate.id()) && !allow.retry_failed {
        Some(Step::FailedBefore)
    } else {
        None
    }
}

fn is_older(release: &Release, than: &Content) -> bool {
    than.release().is_some_and(|than| release.is_older_than(than) && release.id() != than.id())
}

/// What follows for a slot that is on trial and was not booted. GRUB counts a try before it boots: if a
/// boot of this ESP later none was counted, it could not write grubenv.
fn asked_for(trial: Trial, facts: &Facts<'_>) -> Step {
    let booted = facts.booted;
    let is_later = booted.slot.is_some() && booted.is_after(trial.since);
    match is_later && trial.tries == TRIES && !facts.allow.retry_failed {
        true => Step::NotTried(trial.slot),
        false => Step::Pending(trial.slot),
    }
}

#[cfg(test)]
pub(crate) mod tests;
