//! GRUB's environment block: 1024 bytes that say which slot is good and which is on trial.
//!
//! The format is GRUB's (manual, "Environment block"): a fixed first line, `name=value` lines, and
//! `#` up to the end. GRUB overwrites the block in place and so do we, because a rename on FAT is
//! not atomic. What is read back after a power cut is whole only because every variable lies within
//! the first 512 bytes, which a disk writes as one sector; [`Block::to_bytes`] refuses more.

use std::collections::BTreeMap;

use crate::esp::Slot;
use crate::target::shortened;

/// The size that GRUB demands.
pub const SIZE: usize = 1024;
/// The part that a disk writes as a whole.
const SECTOR: usize = 512;
/// The first line.
const SIGNATURE: &str = "# GRUB Environment Block\n";
/// How often a new release may try to boot before GRUB gives up on it.
pub const TRIES: u8 = 3;

/// A version that is longer is not shown: two of them have to fit into the sector, with our three
/// variables and what others put there.
const SHOWN_VERSION_MAX: usize = 64;

const GOOD: &str = "etchaos_good";
const TRIAL: &str = "etchaos_trial";
const TRIES_LEFT: &str = "etchaos_tries";

/// A block that GRUB or we cannot use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrubenvError {
    /// Another size than GRUB's.
    #[error("grubenv has {0} bytes, expected {SIZE}")]
    Size(usize),
    /// The first line is missing.
    #[error("grubenv does not begin with GRUB's first line")]
    Signature,
    /// A line that is not `name=value`, or bytes that are not UTF-8.
    #[error("grubenv has a damaged line {0:?}")]
    Line(String),
    /// A variable that does not say what it should.
    #[error("grubenv says {name}={value:?}, expected {expected}")]
    Value {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// The variables would not fit into one sector.
    #[error(
        "the variables of grubenv take {0} bytes, more than the {SECTOR} that a disk writes at once"
    )]
    TooLong(usize),
}

/// The variables of a block. Those that are not ours are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block(BTreeMap<String, String>);

impl Block {
    /// Reads a block.
    pub fn parse(bytes: &[u8]) -> Result<Self, GrubenvError> {
        if bytes.len() != SIZE {
            return Err(GrubenvError::Size(bytes.len()));
        }
        let text = str::from_utf8(bytes).map_err(|_| GrubenvError::Line("(not UTF-8)".into()))?;
        let mut rest = text.strip_prefix(SIGNATURE).ok_or(GrubenvError::Signature)?;
        let mut variables = BTreeMap::new();
        while !rest.is_empty() && !rest.starts_with('#') {
            let (line, after) = unescaped_line(rest);
            let (name, value) = line
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| GrubenvError::Line(shortened(&line)))?;
            variables.insert(name.to_owned(), value.to_owned());
            rest = after;
        }
        Ok(Self(variables))
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    /// Sets the version that GRUB shows when it boots a slot.
    pub fn show_version(&mut self, slot: Slot, version: &str) {
        let shown = if version.len() > SHOWN_VERSION_MAX { "" } else { version };
        self.set(&format!("etchaos_version_{slot}"), shown);
    }

    /// The block as it is written. Ours come first in the alphabet's order, so the same variables
    /// always give the same bytes.
    pub fn to_bytes(&self) -> Result<[u8; SIZE], GrubenvError> {
        let mut text = SIGNATURE.to_owned();
        for (name, value) in &self.0 {
            let value = value.replace('\\', "\\\\").replace('\n', "\\\n");
            text.push_str(&format!("{name}={value}\n"));
        }
        if text.len() > SECTOR {
            return Err(GrubenvError::TooLong(text.len()));
        }
        let mut bytes = [b'#'; SIZE];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(bytes)
    }
}

/// A slot on trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// The slot.
    pub slot: Slot,
    /// How often GRUB will still boot it. At 0 the trial has failed, unless it is running.
    pub tries: u8,
}

/// What GRUB decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootState {
    /// The last slot that was confirmed; what GRUB boots without a trial, and falls back to.
    pub good: Slot,
    /// The slot that GRUB tries first, if any.
    pub trial: Option<Trial>,
}

impl BootState {
    /// One good slot and no trial.
    pub fn settled(good: Slot) -> Self {
        Self { good, trial: None }
    }

    /// Reads our variables out of a block.
    pub fn read(block: &Block) -> Result<Self, GrubenvError> {
        let slot = |name: &'static str, value: &str| {
            value.parse().map_err(|()| GrubenvError::Value {
                name,
                value: shortened(value),
                expected: "a or b",
            })
        };
        let good = slot(GOOD, block.get(GOOD).unwrap_or_default())?;
        let trial = match block.get(TRIAL).unwrap_or_default() {
            "" => None,
            name => {
                let tries = block.get(TRIES_LEFT).unwrap_or_default();
                let left = tries.parse().ok().filter(|left| *left <= TRIES);
                let left = left.ok_or_else(|| GrubenvError::Value {
                    name: TRIES_LEFT,
                    value: shortened(tries),
                    expected: "0 to 3",
                })?;
                Some(Trial { slot: slot(TRIAL, name)?, tries: left })
            }
        };
        Ok(Self { good, trial })
    }

    /// Writes our variables into a block.
    pub fn write(&self, block: &mut Block) {
        let (trial, tries) = match self.trial {
            Some(Trial { slot, tries }) => (slot.to_string(), tries),
            None => (String::new(), 0),
        };
        block.set(GOOD, &self.good.to_string());
        block.set(TRIAL, &trial);
        block.set(TRIES_LEFT, &tries.to_string());
    }

    /// A block with these variables alone.
    pub fn to_bytes(&self) -> [u8; SIZE] {
        let mut block = Block::default();
        self.write(&mut block);
        block.to_bytes().expect("three short variables fit into a sector")
    }
}

/// The first line without its escapes, and what comes after it.
fn unescaped_line(text: &str) -> (String, &str) {
    let mut line = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '\n' => return (line, &text[at + 1..]),
            '\\' => line.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => line.push(c),
        }
    }
    (line, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_state_round_trips() {
        for state in [
            BootState::settled(Slot::A),
            BootState { good: Slot::A, trial: Some(Trial { slot: Slot::B, tries: 3 }) },
            BootState { good: Slot::B, trial: Some(Trial { slot: Slot::A, tries: 0 }) },
        ] {
            let block = Block::parse(&state.to_bytes()).unwrap();
            assert_eq!(BootState::read(&block), Ok(state));
        }
    }

    #[test]
    fn what_grub_writes_is_read_and_foreign_variables_stay() {
        // As written by grub-editenv: variables in the order they were set.
        let mut bytes = b"# GRUB Environment Block\nsaved_entry=x\\\\y\netchaos_tries=2\netchaos_trial=b\netchaos_good=a\n".to_vec();
        bytes.resize(SIZE, b'#');
        let mut block = Block::parse(&bytes).unwrap();
        assert_eq!(block.get("saved_entry"), Some("x\\y"));
        let state = BootState::read(&block).unwrap();
        assert_eq!(state.trial, Some(Trial { slot: Slot::B, tries: 2 }));
        BootState::settled(Slot::B).write(&mut block);
        let again = Block::parse(&block.to_bytes().unwrap()).unwrap();
        assert_eq!(again.get("saved_entry"), Some("x\\y"));
        assert_eq!(BootState::read(&again), Ok(BootState::settled(Slot::B)));
    }

    #[test]
    fn damage_is_an_error_that_says_what() {
        let good = BootState::settled(Slot::A).to_bytes();
        assert_eq!(Block::parse(&good[..1000]), Err(GrubenvError::Size(1000)));
        assert_eq!(Block::parse(&[0; SIZE]), Err(GrubenvError::Signature));
        let mut block = Block::default();
        block.set("x", &"y".repeat(600));
        assert!(matches!(block.to_bytes(), Err(GrubenvError::TooLong(_))));
        for (name, value) in [(GOOD, "c"), (TRIAL, "x"), (TRIES_LEFT, "9"), (TRIES_LEFT, "-1")] {
            let mut block = Block::parse(
                &BootState { good: Slot::A, trial: Some(Trial { slot: Slot::B, tries: 1 }) }
                    .to_bytes(),
            )
            .unwrap();
            block.set(name, value);
            assert!(BootState::read(&block).is_err(), "{name}={value}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), SIZE)) {
            let _ = Block::parse(&bytes);
            let mut signed = bytes;
            signed[..SIGNATURE.len()].copy_from_slice(SIGNATURE.as_bytes());
            let _ = Block::parse(&signed);
        }

        #[test]
        fn any_variables_round_trip(values in proptest::collection::btree_map("[a-z_]{1,8}", "[ -~\n]{0,20}", 0..8)) {
            let block = Block(values);
            prop_assert_eq!(Block::parse(&block.to_bytes().unwrap()), Ok(block));
        }
    }
}
