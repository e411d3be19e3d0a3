//! Our variables in the block.

use std::fmt;
use std::str::FromStr;

use super::{Block, GrubenvError, SIZE};
use crate::esp::Slot;
use crate::release::ReleaseId;
use crate::target::{Target, shortened};

/// How often a new release may try to boot before GRUB gives up on it.
pub const TRIES: u8 = 3;

/// A version that is longer is not shown: two of them have to fit into the sector, with our other
/// variables and what others put there.
const SHOWN_VERSION_MAX: usize = 64;

/// The variable with the slot that was confirmed last, `a` or `b`.
pub const GOOD: &str = "etchaos_good";
/// The variable with the slot on trial, `a` or `b`; empty without a trial.
pub const TRIAL: &str = "etchaos_trial";
/// The variable with the tries that are left. GRUB counts it down.
pub const TRIES_LEFT: &str = "etchaos_tries";
// GRUB keeps these as they are.
const TRIAL_RELEASE: &str = "etchaos_trial_release";
const TRIAL_SINCE: &str = "etchaos_trial_since";
const FAILED: &str = "etchaos_failed";
const NEWEST: &str = "etchaos_newest";

/// One run of the kernel, by the first 32 bits of `/proc/sys/kernel/random/boot_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootId(pub u32);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl FromStr for BootId {
    type Err = ();

    /// Reads eight hexadecimal digits, or a whole UUID that begins with them.
    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.get(..8).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        u32::from_str_radix(digits.ok_or(())?, 16).map(Self).map_err(|_| ())
    }
}

/// A slot on trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// The slot.
    pub slot: Slot,
    /// How often GRUB will still boot it. At 0 the trial has failed, unless it is running.
    pub tries: u8,
    /// What is tried, to be remembered if it fails.
    pub release: Option<ReleaseId>,
    /// The boot in which the trial was asked for. With all tries left in a later boot, GRUB did not
    /// try.
    pub since: Option<BootId>,
}

/// The newest build that was ever offered by a CDN, of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newest {
    /// Builds of different targets cannot be compared.
    pub target: Target,
    /// Its number.
    pub build: u64,
}

/// What GRUB decides by, and what must not be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootState {
    /// The last slot that was confirmed; what GRUB boots without a trial, and falls back to.
    pub good: Slot,
    /// The slot that GRUB tries first, if any.
    pub trial: Option<Trial>,
    /// The release that failed its trial, or that the operator went back from.
    pub failed: Option<ReleaseId>,
    /// An older manifest is not news.
    pub newest: Option<Newest>,
}

impl BootState {
    /// One good slot and no trial.
    pub fn with_good(good: Slot) -> Self {
        Self { good, trial: None, failed: None, newest: None }
    }

    /// Reads our variables out of a block. What GRUB goes by must make sense; the rest is forgotten
    /// where it does not.
    pub fn read(block: &Block) -> Result<Self, GrubenvError> {
        let good = slot(block, GOOD)?;
        let trial = match block.get(TRIAL).unwrap_or_default() {
            "" => None,
            _ => Some(Trial {
                slot: slot(block, TRIAL)?,
                tries: tries(block)?,
                release: remembered(block, TRIAL_RELEASE),
                since: remembered(block, TRIAL_SINCE),
            }),
        };
        let newest = block.get(NEWEST).and_then(|text| {
            let (target, build) = text.split_once(':')?;
            Some(Newest { target: target.parse().ok()?, build: build.parse().ok()? })
        });
        Ok(Self { good, trial, failed: remembered(block, FAILED), newest })
    }

    /// Writes our variables into a block.
    pub fn write(&self, block: &mut Block) {
        let Self { good, trial, failed, newest } = self;
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
        ] {
            block.set(name, &value);
        }
    }

    /// A block with these variables alone.
    pub fn to_bytes(&self) -> [u8; SIZE] {
        let mut block = Block::default();
        self.write(&mut block);
        block.to_bytes().expect("seven short variables fit into a sector")
    }
}

impl Block {
    /// Sets the version that GRUB shows when it boots a slot.
    pub fn show_version(&mut self, slot: Slot, version: &str) {
        let shown = if version.len() > SHOWN_VERSION_MAX { "" } else { version };
        self.set(&format!("etchaos_version_{slot}"), shown);
    }
}

fn text(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn remembered<T: FromStr>(block: &Block, name: &str) -> Option<T> {
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
    GrubenvError::Value { name, value: shortened(value), expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::tests::example;

    fn on_trial(tries: u8) -> BootState {
        let release = Some(example().id());
        let trial = Trial { slot: Slot::B, tries, release, since: Some(BootId(0x0a0b_0c0d)) };
        BootState { trial: Some(trial), ..BootState::with_good(Slot::A) }
    }

    #[test]
    fn a_state_round_trips() {
        let newest = Newest { target: "deb_amd64".parse().unwrap(), build: 2_026_112_301 };
        for state in [
            BootState::with_good(Slot::A),
            on_trial(3),
            BootState { good: Slot::B, failed: Some(example().id()), ..on_trial(0) },
            BootState { newest: Some(newest), ..BootState::with_good(Slot::B) },
        ] {
            let block = Block::parse(&state.to_bytes()).unwrap();
            assert_eq!(BootState::read(&block), Ok(state));
        }
    }

    #[test]
    fn the_longest_state_leaves_room_for_others() {
        let target = "abcdefghijklmnop_amd64".parse().unwrap();
        let newest = Some(Newest { target, build: u64::MAX });
        let state = BootState { newest, failed: Some(example().id()), ..on_trial(3) };
        let mut block = Block::default();
        state.write(&mut block);
        for slot in Slot::ALL {
            block.show_version(slot, &"9".repeat(SHOWN_VERSION_MAX));
        }
        block.set("saved_entry", &"x".repeat(32));
        assert!(block.to_bytes().is_ok());
    }

    #[test]
    fn what_grub_goes_by_must_make_sense() {
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
        ] {
            assert!(set(name, value).is_ok(), "{name}={value}");
        }
        assert_eq!(set(TRIAL_RELEASE, "x").unwrap().trial.unwrap().release, None);
    }

    #[test]
    fn a_boot_is_known_by_the_beginning_of_its_uuid() {
        let id: BootId = "0a0b0c0d-1111-4222-8333-444444444444\n".parse().unwrap();
        assert_eq!(id, BootId(0x0a0b_0c0d));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("0a0b".parse::<BootId>().is_err() && "+a0b0c0d".parse::<BootId>().is_err());
    }
}
