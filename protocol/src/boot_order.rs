//! The decisions of `builder/variants/boot/grub.cfg`: which slots GRUB boots, in which order, and what it
//! writes to the environment block.
//!
//! The rules have the same numbers here and in grub.cfg. `builder/tests/grub` runs the script in GRUB
//! over a table of states and compares the result with this model. The tests of the updater and the
//! testbed use the model, so that the decision is described once.
//!
//! The input of the model is the variables. The caller parses the file: the testbed has a parser of its
//! own, so that it also detects errors in [`Block`], which the updater uses.

use std::fmt;

use crate::esp::{CONFIRMED, MANIFEST, STARTED, Slot, slot_file};
use crate::grubenv::{self, Block, BootState};
use crate::role::Role;

/// Rule 1: the variables that grub.cfg reads. A variable that is missing is empty, and all are empty if
/// GRUB cannot read the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `etchaos_good`
    pub good: String,
    /// `etchaos_trial`
    pub trial: String,
    /// `etchaos_tries`
    pub tries: String,
    /// `etchaos_boots`
    pub boots: String,
}

/// How many boots of the good slot in a row may end before the host starts. Then GRUB boots the other slot.
/// A host that is switched off so early, again and again, is rare. The next update returns to its release;
/// without a CDN, `rollback` does.
pub const GOOD_BOOTS: u8 = 5;
/// How many boots of the other slot follow before it is the turn of the good slot again.
pub const OTHER_BOOTS: u8 = 3;

impl From<&Block> for Environment {
    fn from(block: &Block) -> Self {
        let value = |name| block.get(name).unwrap_or_default().to_owned();
        Self {
            good: value(grubenv::GOOD),
            trial: value(grubenv::TRIAL),
            tries: value(grubenv::TRIES_LEFT),
            boots: value(grubenv::BOOTS),
        }
    }
}

impl From<&BootState> for Environment {
    fn from(state: &BootState) -> Self {
        let mut block = Block::default();
        state.write(&mut block);
        Self::from(&block)
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "good {}", if self.good.is_empty() { "-" } else { &self.good })?;
        match self.trial.as_str() {
            "" => Ok(()),
            trial => write!(f, ", trial {trial} ({} tries)", self.tries),
        }?;
        match self.boots.as_str() {
            "" | "0" => Ok(()),
            boots => write!(f, ", {boots} failed boots"),
        }
    }
}

impl Environment {
    /// Returns whether the block names this slot as good and not as the slot on trial.
    pub fn is_confirmed(&self, slot: Slot) -> bool {
        self.good.parse() == Ok(slot) && self.trial.parse() != Ok(slot)
    }

    /// Returns the decision of grub.cfg for these variables. `files` returns what GRUB finds in a slot,
    /// and `save` is the outcome of saving a count.
    pub fn decide(&self, files: impl Fn(Slot) -> SlotFiles, save: Save) -> Decision {
        let good = self.good_slot(&files);
        let trial = self.trial();
        let boots = self.boots();
        let mut attempts = Vec::new();
        // Rule 4: a trial that cannot be counted could be repeated without end, so it is not started.
        if let Some((slot, left)) = trial.filter(|_| save == Save::Stored) {
            attempts.push(Attempt { slot, reason: Reason::Trial, trial: Some(left), boots: None });
        }
        // Rule 5: then the good slot, then the other one. Without a count, the other slot could be booted
        // without end.
        let counted = (save == Save::Stored).then_some(boots);
        let is_turn_of_other = counted.is_some_and(|boots| boots > GOOD_BOOTS);
        // A release that never reset the counter may boot nevertheless.
        let is_replaced = files(good).started && files(good.other()).is_confirmed_release();
        let order = match is_turn_of_other && is_replaced {
            true => [(good.other(), Reason::GoodFails), (good, Reason::Good)],
            false => [(good, Reason::Good), (good.other(), Reason::Fallback)],
        };
        let attempt = |(slot, reason)| Attempt { slot, reason, trial: None, boots: counted };
        attempts.extend(order.map(attempt));
        Decision { good, saves: trial.map(|(_, left)| left), boots, attempts }
    }

    /// Rule 5: the number of this boot among those that follow each other without the host running. After
    /// the last turn of the other slot it begins again. A value that is not valid counts as none.
    fn boots(&self) -> u8 {
        let digit = Some(self.boots.as_str()).filter(|text| text.len() == 1);
        let boots = digit.and_then(|digit| digit.parse().ok()).unwrap_or(0);
        if boots < GOOD_BOOTS + OTHER_BOOTS { boots + 1 } else { 1 }
    }

    /// Rule 2: the slot that the block names as good. If it names none, the first slot that has a
    /// manifest and the mark `good`; then the first slot that has a manifest; then slot a.
    fn good_slot(&self, files: impl Fn(Slot) -> SlotFiles) -> Slot {
        let first = |matches: fn(SlotFiles) -> bool| {
            Slot::ALL.into_iter().find(|slot| matches(files(*slot)))
        };
        let named = self.good.parse().ok();
        named
            .or_else(|| first(|found| found.manifest && found.mark))
            .or_else(|| first(|found| found.manifest))
            .unwrap_or(Slot::A)
    }

    /// Rule 3: the slot on trial and the tries that are left after this one. There is no trial without
    /// a valid slot, or with a number of tries other than 1, 2 or 3.
    fn trial(&self) -> Option<(Slot, u8)> {
        let left = match self.tries.as_str() {
            "3" => 2,
            "2" => 1,
            "1" => 0,
            _ => return None,
        };
        Some((self.trial.parse().ok()?, left))
    }
}

/// What `test -f` of GRUB finds in the directory of a slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SlotFiles {
    /// `release.jwt`
    pub manifest: bool,
    /// `good`, the mark of a slot that was confirmed once
    pub mark: bool,
    /// `started`, the mark of a slot whose release has reset the boot counter
    pub started: bool,
    /// `vmlinuz`
    pub kernel: bool,
    /// `initrd`
    pub initrd: bool,
}

impl SlotFiles {
    /// Returns whether the slot has all files of a release that was confirmed once.
    pub fn is_confirmed_release(self) -> bool {
        let Self { manifest, mark, kernel, initrd, .. } = self;
        manifest && mark && kernel && initrd
    }

    /// Looks for the files in the directory of `slot`. `is_file` returns whether a path, which is
    /// relative to the root of the ESP, is a file.
    pub fn find(slot: Slot, is_file: impl Fn(&str) -> bool) -> Self {
        let has = |name: &str| is_file(&format!("{}/{name}", slot.directory()));
        let has_role = |role| slot_file(role).is_some_and(has);
        Self {
            manifest: has(MANIFEST),
            mark: has(CONFIRMED),
            started: has(STARTED),
            kernel: has_role(Role::Kernel),
            initrd: has_role(Role::Initrd),
        }
    }
}

/// The outcome of `save_env`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Save {
    /// The count is on the disk, and is read back.
    Stored,
    /// `save_env` reports an error.
    Failed,
    /// `save_env` reports success, but another count, or none, is read back.
    ReadsBackDifferent,
}

/// What grub.cfg does, before it is known which slots load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The slot that counts as good.
    pub good: Slot,
    /// The value of `etchaos_tries` that GRUB saves before it boots anything. With [`Save::Stored`] the
    /// disk has it afterwards.
    pub saves: Option<u8>,
    /// The value of `etchaos_boots` that GRUB saves before it boots a slot that is not on trial.
    boots: u8,
    /// The slots in the order in which GRUB tries to boot them.
    pub attempts: Vec<Attempt>,
}

impl Decision {
    /// Rules 6 and 7: returns the outcome, where `load` is what becomes of an attempt to load a slot. It
    /// is called only for slots in which GRUB finds a kernel and an initrd.
    pub fn outcome(
        &self,
        platform: Platform,
        files: impl Fn(Slot) -> SlotFiles,
        load: impl Fn(Slot) -> Load,
    ) -> Outcome {
        for attempt in &self.attempts {
            let found = files(attempt.slot);
            if !found.kernel || !found.initrd {
                continue;
            }
            match load(attempt.slot) {
                Load::Works => return Outcome::Boots(*attempt),
                Load::KernelFails => {}
                Load::InitrdFails if platform == Platform::Uefi => {}
                Load::InitrdFails => return Outcome::Reboots(*attempt),
            }
        }
        Outcome::NothingBoots
    }

    /// Returns the value of `etchaos_boots` that GRUB saves, or `None` if it ends with a trial.
    pub fn saves_boots(&self, outcome: Outcome) -> Option<u8> {
        match outcome {
            Outcome::Boots(attempt) | Outcome::Reboots(attempt) if attempt.trial.is_some() => None,
            _ => Some(self.boots),
        }
    }
}

/// One attempt to boot a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// The slot.
    pub slot: Slot,
    /// Why it is this slot's turn.
    pub reason: Reason,
    /// The value of `etchaos.trial=` on the kernel's command line: the tries that are left. `None` if the
    /// argument is absent.
    pub trial: Option<u8>,
    /// The value of `etchaos.boots=` on the kernel's command line, which is that of `etchaos_boots`. `None`
    /// on trial, or if it could not be saved.
    pub boots: Option<u8>,
}

/// Why grub.cfg boots a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The slot is on trial.
    Trial,
    /// The slot counts as good.
    Good,
    /// The good slot does not boot.
    Fallback,
    /// The good slot was booted [`GOOD_BOOTS`] times, and the host did not start.
    GoodFails,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trial => "on trial",
            Self::Good => "last confirmed",
            Self::Fallback => "because the good slot does not boot",
            Self::GoodFails => "because the good slot failed to boot several times",
        })
    }
}

/// The platform that GRUB was built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Platform {
    /// `grub_platform` is `pc`.
    Bios,
    /// `grub_platform` is `efi`.
    Uefi,
}

/// What becomes of the commands that load a slot whose files exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Load {
    /// The kernel starts.
    Works,
    /// The command `linux` fails.
    KernelFails,
    /// The command `initrd` fails, or the command `boot` after it.
    InitrdFails,
}

/// What a run of grub.cfg ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The kernel of a slot starts.
    Boots(Attempt),
    /// Under BIOS, the initrd of the slot cannot be loaded, and GRUB reboots after 10 s.
    Reboots(Attempt),
    /// Nothing boots, and GRUB reboots after 10 s.
    NothingBoots,
}

#[cfg(test)]
mod tests;
