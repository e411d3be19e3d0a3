//! The variables of EtchaOS in the block.

use std::fmt;
use std::str::FromStr;

use super::block::{Block, GrubenvError, SIZE};
use crate::esp::Slot;
use crate::excerpt::excerpt;
use crate::release::ReleaseId;
use crate::target::Target;

/// How many times GRUB tries to boot a new release before it falls back to the good slot.
pub const TRIES: u8 = 3;

/// The maximum length of a version that GRUB displays. Two versions have to fit into the sector, beside
/// the other variables of EtchaOS and those of other programs.
const DISPLAYED_VERSION_MAX: usize = 64;

/// The variable with the slot that was confirmed last, `a` or `b`.
pub const GOOD: &str = "etchaos_good";
/// The variable with the slot on trial, `a` or `b`; empty without a trial.
pub const TRIAL: &str = "etchaos_trial";
/// The variable with the tries that are left. GRUB counts it down.
pub const TRIES_LEFT: &str = "etchaos_tries";
/// The boot counter: the variable that counts consecutive boots without a trial after which the host did not
/// start. GRUB increments it; a host that starts sets it to 0.
pub const BOOTS: &str = "etchaos_boots";
/// The variable with the tag of the disk, which GRUB passes to the kernel.
pub const DISK: &str = "etchaos_disk";
// GRUB does not use these variables, but preserves them.
const TRIAL_RELEASE: &str = "etchaos_trial_release";
const TRIAL_SINCE: &str = "etchaos_trial_since";
const FAILED: &str = "etchaos_failed";
const NEWEST: &str = "etchaos_newest";

/// The identity of a boot: the first 32 bits of `/proc/sys/kernel/random/boot_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootId(pub u32);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl FromStr for BootId {
    type Err = ();

    /// Parses eight hexadecimal digits, or a UUID, whose first eight digits are used.
    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.get(..8).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        u32::from_str_radix(digits.ok_or(())?, 16).map(Self).map_err(|_| ())
    }
}

/// A random number that the updater writes to the grubenv of a disk at its first boot. GRUB passes it to the
/// kernel, so that a host with two copies of a disk knows which of them it was booted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskTag(pub u64);

impl fmt::Display for DiskTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for DiskTag {
    type Err = ();

    /// Parses sixteen hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, ()> {
        let is_tag = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        u64::from_str_radix(Some(text).filter(|_| is_tag).ok_or(())?, 16).map(Self).map_err(|_| ())
    }
}

/// The trial of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// The slot on trial.
    pub slot: Slot,
    /// How many times GRUB may still try to boot the slot. At 0 the trial has failed, unless the slot is
    /// running.
    pub tries: u8,
    /// The release on trial, which is recorded as failed if the trial fails.
    pub release: Option<ReleaseId>,
    /// The boot in which the trial was started. If a later boot still has all tries, GRUB could not
    /// count one.
    pub since: Option<BootId>,
}

/// The newest build of a target that a CDN has offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newest {
    /// The target. Builds of different targets cannot be compared.
    pub target: Target,
    /// The build number.
    pub build: u64,
}

/// The state that decides which slot GRUB boots, and what the updater must remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootState {
    /// The slot that was confirmed last. GRUB boots it without a trial and falls back to it.
    pub good: Slot,
    /// The slot that GRUB tries first, if any.
    pub trial: Option<Trial>,
    /// The release that failed its trial, or that the operator rolled back from.
    pub failed: Option<ReleaseId>,
    /// The newest build that a CDN has offered. The updater does not install an older one.
    pub newest: Option<Newest>,
    /// The boot counter ([`BOOTS`]).
    pub boots: u8,
}

impl BootState {
    /// Returns the state with a good slot and no trial.
    pub fn with_good(good: Slot) -> Self {
        Self { good, trial: None, failed: None, newest: None, boots: 0 }
    }

    /// Reads the state from a block.
    ///
    /// # Errors
    /// Fails if a variable that GRUB uses has an invalid value. Other invalid variables are ignored.
    pub fn read(block: &Block) -> Result<Self, GrubenvError> {
        let good = slot(block, GOOD)?;
        let trial = match block.get(TRIAL).unwrap_or_default() {
            "" => None,
            _ => Some(Trial {
                slot: slot(block, TRIAL)?,
                tries: tries(block)?,
                release: parse_or_none(block, TRIAL_RELEASE),
                since: parse_or_none(block, TRIAL_SINCE),
            }),
        };
        let newest = block.get(NEWEST).and_then(|text| {
            let (target, build) = text.split_once(':')?;
            Some(Newest { target: target.parse().ok()?, build: build.parse().ok()? })
        });
        let boots = parse_or_none(block, BOOTS).unwrap_or(0);
        Ok(Self { good, trial, failed: parse_or_none(block, FAILED), newest, boots })
    }

    /// Sets the variables of the state in a block.
    pub fn write(&self, block: &mut Block) {
        let Self { good, trial, failed, newest, boots } = self;
        let tries = trial.map_or(0, |trial| trial.tries);
        let newest = newest.as_ref().map(|newest| format!("{}:{}", newest.target, newest.build));
        for (name, value) in [
            (GOOD, good.to_string()),
            (TRIAL, text(trial.map(|trial| trial.slot))),
            (TRIES_LEFT, tries.to_string()),
            (TRIAL_RELEASE, text(trial.and_then(|trial| trial.release))),
            (TRIAL_SINCE, text(trial.and_then(|trial| trial.since))),
            (FAILED, text(*failed)),
            (NEWEST, text(newest)),
            (BOOTS, boots.to_string()),
        ] {
            block.set(name, &value);
        }
    }

    /// Returns a block with the variables of the state only.
    pub fn to_bytes(&self) -> [u8; SIZE] {
        let mut block = Block::default();
        self.write(&mut block);
        block.to_bytes().expect("eight short variables fit into a sector")
    }
}

impl Block {
    /// Sets the version that GRUB displays when it boots a slot. A version longer than 64 bytes is not
    /// displayed.
    pub fn set_displayed_version(&mut self, slot: Slot, version: &str) {
        let displayed = if version.len() > DISPLAYED_VERSION_MAX { "" } else { version };
        self.set(&format!("etchaos_version_{slot}"), displayed);
    }
}

fn text(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn parse_or_none<T: FromStr>(block: &Block, name: &str) -> Option<T> {
    block.get(name)?.parse().ok()
}

fn slot(block: &Block, name: &'static str) -> Result<Slot, GrubenvError> {
    let value = block.get(name).unwrap_or_default();
    value.parse().map_err(|()| unexpected(name, value, "a or b"))
}

fn tries(block: &Block) -> Result<u8, GrubenvError> {
    let value = block.get(TRIES_LEFT).unwrap_or_default();
    let left = value.parse().ok().filter(|left| *left <= TRIES);
    left.ok_or_else(|| unexpected(TRIES_LEFT, value, "0 to 3"))
}

fn unexpected(name: &'static str, value: &str, expected: &'static str) -> GrubenvError {
    GrubenvError::Value { name, value: excerpt(value), expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::Release;

    fn on_trial(tries: u8) -> BootState {
        let release = Some(Release::example().id());
        let trial = Trial { slot: Slot::B, tries, release, since: Some(BootId(0x0a0b_0c0d)) };
        BootState { trial: Some(trial), ..BootState::with_good(Slot::A) }
    }

    #[test]
    fn round_trips_a_state() {
        let newest = Newest { target: "deb_amd64".parse().unwrap(), build: 2_026_112_301 };
        for state in [
            BootState::with_good(Slot::A),
            on_trial(3),
            BootState { good: Slot::B, failed: Some(Release::example().id()), ..on_trial(0) },
            BootState { newest: Some(newest), boots: 5, ..BootState::with_good(Slot::B) },
        ] {
            let block = Block::parse(&state.to_bytes()).unwrap();
            assert_eq!(BootState::read(&block), Ok(state));
        }
    }

    #[test]
    fn longest_state_leaves_room_for_other_variables() {
        let target = "abcdefghijklmnop_amd64".parse().unwrap();
        let newest = Some(Newest { target, build: u64::MAX });
        let state = BootState { newest, failed: Some(Release::example().id()), ..on_trial(3) };
        let mut block = Block::default();
        state.write(&mut block);
        for slot in Slot::ALL {
            block.set_displayed_version(slot, &"9".repeat(DISPLAYED_VERSION_MAX));
        }
        block.set(DISK, &DiskTag(u64::MAX).to_string());
        block.set("saved_entry", &"x".repeat(32));
        assert!(block.to_bytes().is_ok());
    }

    #[test]
    fn rejects_invalid_values_of_variables_that_grub_uses() {
        let set = |name: &str, value: &str| {
            let mut block = Block::parse(&on_trial(1).to_bytes()).unwrap();
            block.set(name, value);
            BootState::read(&block)
        };
        for (name, value) in [(GOOD, "c"), (TRIAL, "x"), (TRIES_LEFT, "9"), (TRIES_LEFT, "-1")] {
            assert!(set(name, value).is_err(), "{name}={value}");
        }
        for (name, value) in [
            (TRIAL_RELEASE, "x"),
            (TRIAL_SINCE, "1"),
            (FAILED, "0123456789abcdefg"),
            (NEWEST, "deb_amd64"),
            (NEWEST, "deb_amd64:-1"),
            (BOOTS, "x"),
        ] {
            assert!(set(name, value).is_ok(), "{name}={value}");
        }
        assert_eq!(set(TRIAL_RELEASE, "x").unwrap().trial.unwrap().release, None);
    }

    #[test]
    fn reads_a_boot_id_from_a_uuid() {
        let id: BootId = "0a0b0c0d-1111-4222-8333-444444444444\n".parse().unwrap();
        assert_eq!(id, BootId(0x0a0b_0c0d));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("0a0b".parse::<BootId>().is_err() && "+a0b0c0d".parse::<BootId>().is_err());
    }

    #[test]
    fn reads_only_tags_of_sixteen_digits() {
        let tag = DiskTag(0x0a0b_0c0d);
        assert_eq!(tag.to_string().parse(), Ok(tag));
        for text in ["", "0a0b0c0d", "+00000000a0b0c0d", "00000000000000000", "é000000000000000"] {
            assert!(text.parse::<DiskTag>().is_err(), "{text:?}");
        }
    }
}
