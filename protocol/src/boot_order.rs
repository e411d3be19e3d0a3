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

use crate::esp::{CONFIRMED, MANIFEST, Slot, slot_file};
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
}

impl From<&Block> for Environment {
    fn from(block: &Block) -> Self {
        let value = |name| block.get(name).unwrap_or_default().to_owned();
        Self {
            good: value(grubenv::GOOD),
            trial: value(grubenv::TRIAL),
            tries: value(grubenv::TRIES_LEFT),
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
        }
    }
}

impl Environment {
    /// Returns whether the block names this slot as good and not as the slot on trial.
    pub fn is_confirmed(&self, slot: Slot) -> bool {
        self.good.parse() == Ok(slot) && self.trial.parse() != Ok(slot)
    }

    /// Returns the decision of grub.cfg for these variables. `files` returns what GRUB finds in a slot,
    /// and `save` is the outcome of saving a count; it does not matter where nothing is saved.
    pub fn decide(&self, files: impl Fn(Slot) -> SlotFiles, save: Save) -> Decision {
        let good = self.good_slot(files);
        let trial = self.trial();
        let mut attempts = Vec::new();
        // Rule 4: a trial that cannot be counted could be repeated without end, so it is not started.
        if let Some((slot, left)) = trial.filter(|_| save == Save::Stored) {
            attempts.push(Attempt { slot, reason: Reason::Trial, trial: Some(left) });
        }
        // Rule 5: then the good slot, then the other one.
        for (slot, reason) in [(good, Reason::Good), (good.other(), Reason::Fallback)] {
            attempts.push(Attempt { slot, reason, trial: None });
        }
        Decision { good, saves: trial.map(|(_, left)| left), attempts }
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
    /// `vmlinuz`
    pub kernel: bool,
    /// `initrd`
    pub initrd: bool,
}

impl SlotFiles {
    /// Looks for the files in the directory of `slot`. `is_file` returns whether a path, which is
    /// relative to the root of the ESP, is a file.
    pub fn find(slot: Slot, is_file: impl Fn(&str) -> bool) -> Self {
        let has = |name: &str| is_file(&format!("{}/{name}", slot.directory()));
        let has_role = |role| slot_file(role).is_some_and(has);
        Self {
            manifest: has(MANIFEST),
            mark: has(CONFIRMED),
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
                Load::InitrdFails => return Outcome::Reboots(attempt.slot),
            }
        }
        Outcome::NothingBoots
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
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trial => "on trial",
            Self::Good => "last confirmed",
            Self::Fallback => "because the good slot does not boot",
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
    /// Under BIOS, the initrd of this slot cannot be loaded, and GRUB reboots after 10 s.
    Reboots(Slot),
    /// Nothing boots, and GRUB reboots after 10 s.
    NothingBoots,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grubenv::Trial;

    const ALL: SlotFiles = SlotFiles { manifest: true, mark: true, kernel: true, initrd: true };

    fn environment(good: &str, trial: &str, tries: &str) -> Environment {
        Environment { good: good.into(), trial: trial.into(), tries: tries.into() }
    }

    fn order(decision: &Decision) -> Vec<(Slot, Reason)> {
        decision.attempts.iter().map(|attempt| (attempt.slot, attempt.reason)).collect()
    }

    #[test]
    fn tries_the_trial_then_the_good_slot_then_the_other_slot() {
        let trial = Trial { slot: Slot::B, tries: 3, release: None, since: None };
        let state = BootState { trial: Some(trial), ..BootState::with_good(Slot::A) };
        let decision = Environment::from(&state).decide(|_| ALL, Save::Stored);
        let expected =
            [(Slot::B, Reason::Trial), (Slot::A, Reason::Good), (Slot::B, Reason::Fallback)];
        assert_eq!(order(&decision), expected);
        assert_eq!((decision.saves, decision.attempts[0].trial), (Some(2), Some(2)));
        for save in [Save::Failed, Save::ReadsBackDifferent] {
            let decision = Environment::from(&state).decide(|_| ALL, save);
            assert_eq!(order(&decision), expected[1..], "{save:?}");
            assert_eq!(decision.saves, Some(2), "{save:?}");
        }
    }

    #[test]
    fn ignores_variables_that_are_not_valid() {
        let expected = [(Slot::A, Reason::Good), (Slot::B, Reason::Fallback)];
        for (good, trial, tries) in
            [("", "", ""), ("c", "", ""), ("a", "b", "0"), ("a", "b", "4"), ("a", "x", "3")]
        {
            let decision = environment(good, trial, tries).decide(|_| ALL, Save::Stored);
            assert_eq!(order(&decision), expected, "{good:?} {trial:?} {tries:?}");
            assert_eq!(decision.saves, None);
        }
    }

    #[test]
    fn takes_a_slot_with_mark_or_manifest_for_good_if_the_block_names_none() {
        // Per slot: whether it has a manifest, and the mark.
        let (none, unmarked, marked) = ((false, false), (true, false), (true, true));
        for (named, a, b, expected) in [
            ("", none, unmarked, Slot::B),
            ("c", none, unmarked, Slot::B),
            ("", unmarked, unmarked, Slot::A),
            ("", unmarked, marked, Slot::B),
            ("", marked, marked, Slot::A),
            ("", unmarked, none, Slot::A),
            ("", none, none, Slot::A),
            // A mark without a manifest is ignored.
            ("", (false, true), unmarked, Slot::B),
            ("a", none, marked, Slot::A),
            ("b", marked, none, Slot::B),
        ] {
            let files = |slot| {
                let (manifest, mark) = if slot == Slot::A { a } else { b };
                SlotFiles { manifest, mark, ..ALL }
            };
            let decision = environment(named, "", "").decide(files, Save::Stored);
            assert_eq!(decision.good, expected, "{named:?} {a:?} {b:?}");
        }
    }

    #[test]
    fn falls_back_unless_an_initrd_fails_under_bios() {
        let decision = environment("a", "b", "1").decide(|_| ALL, Save::Stored);
        let outcome = |platform, of_b| {
            let load = |slot| if slot == Slot::B { of_b } else { Load::Works };
            decision.outcome(platform, |_| ALL, load)
        };
        for platform in [Platform::Bios, Platform::Uefi] {
            let [trial, good, _] = decision.attempts[..] else { panic!("three attempts") };
            assert_eq!(outcome(platform, Load::Works), Outcome::Boots(trial));
            assert_eq!(outcome(platform, Load::KernelFails), Outcome::Boots(good));
            let fails = decision.outcome(platform, |_| ALL, |_| Load::KernelFails);
            assert_eq!(fails, Outcome::NothingBoots);
            let empty = decision.outcome(platform, |_| SlotFiles::default(), |_| Load::Works);
            assert_eq!(empty, Outcome::NothingBoots);
        }
        let good = decision.attempts[1];
        assert_eq!(outcome(Platform::Bios, Load::InitrdFails), Outcome::Reboots(Slot::B));
        assert_eq!(outcome(Platform::Uefi, Load::InitrdFails), Outcome::Boots(good));
    }
}
