//! The one decision of an update: [`next`].

use protocol::Release;
use protocol::esp::Slot;
use protocol::grubenv::{BootState, TRIES, Trial};
use protocol::release::ReleaseId;

use crate::host::Booted;
use crate::trial::is_rolled_back;

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
    /// What GRUB goes by, with a good slot that is lost replaced ([`crate::trial::adopted`]), and a trial
    /// that is over told as failed ([`crate::trial::settled`]); see [`crate::bootstate`] for a grubenv
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
    /// Reboot: the candidate is in this slot, on trial.
    Pending(Slot),
    /// Ask for help: the candidate is in this slot, on trial, and in a whole boot GRUB did not count a
    /// try. Another reboot would change nothing.
    NotTried(Slot),
    /// Wait for [`crate::confirm`]: both slots are needed until then.
    Unconfirmed {
        /// The slot that runs.
        running: Slot,
        /// The slot that GRUB falls back to.
        good: Slot,
    },
    /// Reboot: this slot is good and whole, and something else runs. It was rolled back; or GRUB could not
    /// load the good slot, so far.
    Return(Slot),
    /// Wait for a newer release: the candidate failed its trial, or was rolled back.
    FailedBefore,
    /// Refuse: the candidate is older than what runs.
    Downgrade,
    /// End the trial of this slot before it begins: the CDN went back to what runs.
    Withdraw(Slot),
    /// Write the candidate into this slot and put it on trial.
    Install(Slot),
    /// Put this slot on trial; the candidate is there and whole, but nothing points to it.
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
/// Two invariants, whatever the facts: no step writes into the good slot, to which GRUB falls back, and
/// none into the running one as long as that is whole, or tried. No step puts a slot on trial unless
/// another one that is good runs, or is whole.
///
/// Normally the good slot runs, and the other one is spare. Everything is done to the spare slot.
/// A good slot that is damaged beside a whole one is not good any more, so it is the spare one and
/// written anew, also if it runs: the system is in memory. Beside one that is not whole, it is healed
/// by way of that one: the same release is put on trial there, and once it is confirmed, the damaged
/// slot is the spare one and is repaired.
pub fn next(facts: &Facts<'_>) -> Step {
    let Facts { booted, state, slots, candidate, allow } = facts;
    let (good, spare) = (state.good, state.good.other());
    // Where the running slot is not known, or is spare, the good one is what this ESP would boot.
    let (here, there) = (slots.get(good), slots.get(spare));
    let trial = state.trial.filter(|trial| trial.slot == spare && trial.tries > 0);
    let id = candidate.id();

    if let Some(running) = booted.slot
        && running != good
    {
        let is_tried = booted.on_trial && !is_rolled_back(state, running);
        if is_tried && there.holds(id) {
            return Step::UpToDate;
        }
        if is_tried || !here.is_whole() {
            return Step::Unconfirmed { running, good };
        }
        if booted.on_trial || there.is_whole() && trial.is_none() {
            return Step::Return(good);
        }
    }
    if here.holds(id) {
        return match (there, trial) {
            (Content::Damaged { .. } | Content::Partial { .. }, _) => Step::Repair(spare),
            // The operator goes back from what runs.
            (Content::Complete(_), Some(trial)) if state.failed == Some(id) => {
                asked_for(trial, facts)
            }
            (_, Some(_)) => Step::Withdraw(spare),
            (_, None) => Step::UpToDate,
        };
    }
    // Who put it on trial was allowed to. And what alone is whole is not written over.
    if let Some(trial) = trial
        && (there.holds(id) || there.is_whole() && !here.is_whole())
    {
        return asked_for(trial, facts);
    }
    let is_older = |release: &Release, than: &Content| {
        than.release().is_some_and(|than| release.is_older_than(than) && release.id() != than.id())
    };
    let refused = match () {
        () if is_older(candidate, here) && !allow.downgrade => Some(Step::Downgrade),
        () if state.failed == Some(id) && !allow.retry_failed => Some(Step::FailedBefore),
        () => None,
    };
    if let Some(refused) = refused {
        // What the CDN offered before is not to be tried either. An older one is the operator's wish.
        let is_recalled =
            trial.is_some() && here.release().is_some_and(|here| is_older(here, there));
        return if is_recalled { Step::Withdraw(spare) } else { refused };
    }
    if there.holds(id) { Step::Activate(spare) } else { Step::Install(spare) }
}

/// What follows for a slot that is on trial and was not booted. GRUB counts a try before it boots: if a
/// boot of this ESP later none was counted, it could not write grubenv.
fn asked_for(trial: Trial, facts: &Facts<'_>) -> Step {
    let Booted { slot, id, .. } = facts.booted;
    let is_later = slot.is_some() && trial.since.is_some() && id.is_some() && trial.since != id;
    match is_later && trial.tries == TRIES && !facts.allow.retry_failed {
        true => Step::NotTried(trial.slot),
        false => Step::Pending(trial.slot),
    }
}

#[cfg(test)]
pub(crate) mod tests;
