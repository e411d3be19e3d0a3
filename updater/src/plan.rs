//! The one decision of an update: [`next`].

use protocol::Release;
use protocol::compare::boots_the_same;
use protocol::esp::Slot;
use protocol::grubenv::{BootState, Trial};

/// What is in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    Empty,
    /// A release whose manifest verifies and whose files are as it says.
    Complete(Release),
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
            Self::Empty => None,
            Self::Complete(release) => Some(release),
            Self::Damaged { release, .. } => release.as_ref(),
        }
    }

    fn is_complete(&self, candidate: &Release) -> bool {
        matches!(self, Self::Complete(release) if boots_the_same(release, candidate))
    }

    fn is_or_was(&self, candidate: &Release) -> bool {
        self.release().is_some_and(|release| boots_the_same(release, candidate))
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
    /// The slot that runs; unknown if this system was not booted from this ESP.
    pub running: Option<Slot>,
    /// What GRUB goes by; see [`crate::bootstate`] for a grubenv that is missing or damaged.
    pub boot: BootState,
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
    /// Wait for [`crate::confirm`]: both slots are needed until then.
    Unconfirmed {
        /// The slot that runs.
        running: Slot,
        /// The slot that GRUB falls back to.
        good: Slot,
    },
    /// Wait for a newer release: the candidate failed its trial in this slot.
    FailedBefore(Slot),
    /// Refuse: the candidate is older than what runs.
    Downgrade,
    /// Write the candidate into this slot and put it on trial.
    Install(Slot),
    /// Put this slot on trial; the candidate is there and whole, but nothing points to it.
    Activate(Slot),
    /// Write the candidate, which is what runs, into this damaged slot. No trial, no reboot.
    Repair(Slot),
}

impl Step {
    /// The slot that this step is about, if it is about one.
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Self::Pending(slot)
            | Self::FailedBefore(slot)
            | Self::Install(slot)
            | Self::Activate(slot)
            | Self::Repair(slot) => Some(*slot),
            Self::UpToDate | Self::Unconfirmed { .. } | Self::Downgrade => None,
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
/// Two invariants, whatever the facts: no step writes into the running slot or the last known good
/// one, and no step puts a slot on trial unless the slot that GRUB falls back to is the running one.
///
/// Normally the good slot runs, and the other one is spare. Everything is done to the spare slot.
/// A good slot that is damaged is healed by way of the spare one: the same release is put on trial
/// there, and once it is confirmed, the damaged slot is the spare one and is repaired.
pub fn next(facts: &Facts<'_>) -> Step {
    let Facts { running, boot, slots, candidate, allow } = facts;
    let (good, spare) = (boot.good, boot.good.other());
    // Where the running slot is not known, the good one is what this ESP would boot.
    let here = slots.get(running.unwrap_or(good));
    let there = slots.get(spare);
    let trial = boot.trial.filter(|trial| trial.slot == spare);
    let failed = matches!(trial, Some(Trial { tries: 0, .. }));

    if let Some(running) = *running
        && running != good
    {
        return match here.is_complete(candidate) {
            true => Step::UpToDate,
            false => Step::Unconfirmed { running, good },
        };
    }
    if here.is_complete(candidate) {
        return match there {
            // What failed is remembered by lying there; damage does not make it forgotten.
            Content::Damaged { release: Some(_), .. } if failed => Step::UpToDate,
            Content::Damaged { .. } => Step::Repair(spare),
            Content::Empty | Content::Complete(_) => Step::UpToDate,
        };
    }
    if let Some(release) = here.release()
        && candidate.is_older_than(release)
        && !boots_the_same(candidate, release)
        && !allow.downgrade
    {
        return Step::Downgrade;
    }
    if failed && there.is_or_was(candidate) && !allow.retry_failed {
        return Step::FailedBefore(spare);
    }
    match (there.is_complete(candidate), trial) {
        (true, Some(Trial { tries: 1.., .. })) => Step::Pending(spare),
        (true, _) => Step::Activate(spare),
        (false, _) => Step::Install(spare),
    }
}

#[cfg(test)]
mod tests;
