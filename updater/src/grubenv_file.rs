//! grubenv on the ESP: read, changed in memory, written.

use protocol::esp::{GRUBENV, Slot};
use protocol::grubenv::{Block, BootState, SIZE};

use crate::files::{FileError, FileSystem, overwrite, read_limited};
use crate::host::Booted;
use crate::plan::Slots;

/// grubenv.
#[derive(Debug, Clone)]
pub struct GrubenvFile {
    /// What GRUB goes by.
    pub state: BootState,
    /// Why `state` is not what the file says, if it is missing or damaged.
    pub problem: Option<String>,
    block: Block,
}

impl GrubenvFile {
    /// Reads it. One that is missing, damaged or unreadable never stops anybody: in its place comes
    /// a state in which `otherwise` is good.
    pub fn read(esp: &dyn FileSystem, otherwise: Slot) -> Self {
        let recreated = |problem: String, block: Block| Self {
            state: BootState::with_good(otherwise),
            problem: Some(problem),
            block,
        };
        let bytes = match read_limited(esp, GRUBENV, SIZE as u64) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return recreated("grubenv is missing".into(), Block::default()),
            Err(error) => {
                return recreated(
                    format!("grubenv cannot be read: {}", error.why),
                    Block::default(),
                );
            }
        };
        let block = match Block::parse(&bytes) {
            Ok(block) => block,
            Err(error) => return recreated(error.to_string(), Block::default()),
        };
        match BootState::read(&block) {
            Ok(state) => Self { state, problem: None, block },
            Err(error) => recreated(error.to_string(), block),
        }
    }

    /// The same, where what runs and what is in the slots says what is good otherwise.
    pub fn of_host(esp: &dyn FileSystem, booted: Booted, slots: &Slots) -> Self {
        Self::read(esp, good_without_grubenv(booted, slots))
    }

    /// Writes another state, in place and flushed. Variables that are not ours stay.
    pub fn write(&mut self, esp: &dyn FileSystem, state: BootState) -> Result<(), FileError> {
        state.write(&mut self.block);
        // Variables of others that leave no room are worth less than a host that boots.
        let bytes = self.block.to_bytes().unwrap_or_else(|error| {
            log::warn!("{error}: other programs' variables are dropped");
            state.to_bytes()
        });
        overwrite(esp, GRUBENV, &bytes)?;
        self.state = state;
        self.problem = None;
        Ok(())
    }

    /// Sets the version that GRUB shows for a slot. Written with the next state.
    pub fn show_version(&mut self, slot: Slot, version: &str) {
        self.block.set_displayed_version(slot, version);
    }
}

/// The slot to take for good where grubenv does not say: the one that runs, unless the boot loader
/// tried it (then it is the other one, whatever became of grubenv since); or what GRUB would end up
/// with.
pub fn good_without_grubenv(booted: Booted, slots: &Slots) -> Slot {
    match booted.slot {
        Some(running) if booted.on_trial => running.other(),
        Some(running) => running,
        None if !slots.a.is_whole() && slots.b.is_whole() => Slot::B,
        None => Slot::A,
    }
}
