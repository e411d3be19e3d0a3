//! grubenv on the ESP: read, changed in memory, written.

use protocol::esp::{GRUBENV, Slot};
use protocol::grubenv::{Block, BootState, SIZE};

use crate::files::{FileError, FileSystem, overwrite, read_limited};
use crate::host::Booted;
use crate::slot_content::Slots;

/// The content of grubenv.
#[derive(Debug, Clone)]
pub struct GrubenvFile {
    /// The boot state.
    pub state: BootState,
    /// Why the file could not be used and `state` is a default.
    pub problem: Option<String>,
    block: Block,
}

impl GrubenvFile {
    /// Reads the file. It never fails: if the file is missing, damaged or unreadable, the state is one
    /// in which `default_good` is good.
    pub fn read(esp: &dyn FileSystem, default_good: Slot) -> Self {
        let with_default = |problem: String, block: Block| Self {
            state: BootState::with_good(default_good),
            problem: Some(problem),
            block,
        };
        let bytes = match read_limited(esp, GRUBENV, SIZE as u64) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return with_default("grubenv is missing".into(), Block::default()),
            Err(FileError { error, .. }) => {
                let problem = format!("grubenv cannot be read: {error}");
                return with_default(problem, Block::default());
            }
        };
        let block = match Block::parse(&bytes) {
            Ok(block) => block,
            Err(error) => return with_default(error.to_string(), Block::default()),
        };
        match BootState::read(&block) {
            Ok(state) => Self { state, problem: None, block },
            Err(error) => with_default(error.to_string(), block),
        }
    }

    /// Reads the file, and derives a missing good slot from the running slot and the slots' contents.
    pub fn of_host(esp: &dyn FileSystem, booted: Booted, slots: &Slots) -> Self {
        Self::read(esp, good_without_grubenv(booted, slots))
    }

    /// Overwrites the file in place with another state and flushes it. Variables of other programs are
    /// kept.
    pub fn write(&mut self, esp: &dyn FileSystem, state: BootState) -> Result<(), FileError> {
        state.write(&mut self.block);
        // If the variables of other programs leave no room, a host that boots matters more.
        let bytes = self.block.to_bytes().unwrap_or_else(|error| {
            log::warn!("{error}: dropping the variables of other programs from grubenv");
            state.to_bytes()
        });
        overwrite(esp, GRUBENV, &bytes)?;
        self.state = state;
        self.problem = None;
        Ok(())
    }

    /// Sets the version that GRUB's menu shows for a slot. The next [`GrubenvFile::write`] stores it.
    pub fn show_version(&mut self, slot: Slot, version: &str) {
        self.block.set_displayed_version(slot, version);
    }
}

/// Returns the slot that counts as good if grubenv is lost. It is the running slot, or the other one if
/// the running slot is on trial. If this ESP was not booted, it is the slot that GRUB would boot.
pub fn good_without_grubenv(booted: Booted, slots: &Slots) -> Slot {
    match booted.slot {
        Some(running) if booted.on_trial => running.other(),
        Some(running) => running,
        None if !slots.a.is_complete() && slots.b.is_complete() => Slot::B,
        None => Slot::A,
    }
}
