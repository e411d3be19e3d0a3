//! The file grubenv on the ESP. It is read, changed in memory, and written.

use protocol::boot_order::{Environment, Save, SlotFiles};
use protocol::esp::{GRUBENV, Slot};
use protocol::grubenv::{Block, BootState, DISK, DiskTag, SIZE};

use crate::files::{Entry, FileError, FileSystem, overwrite, read_limited};
use crate::host::Booted;
use crate::trial::mark_running;

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

    /// Reads the file, and derives a missing good slot from the running slot and the files of the slots.
    pub fn of_host(esp: &dyn FileSystem, booted: Booted) -> Self {
        let is_file = |path: &str| matches!(esp.metadata(path), Ok(Some(Entry::File { .. })));
        Self::read(esp, good_without_grubenv(booted, |slot| SlotFiles::find(slot, is_file)))
    }

    /// Overwrites the file in place with another state and flushes it. Variables of other programs are
    /// kept. Resets the boot counter, because the host has started.
    pub fn write(&mut self, esp: &dyn FileSystem, state: BootState) -> Result<(), FileError> {
        let state = mark_running(&state);
        state.write(&mut self.block);
        // The variables of other programs are dropped if they leave no room: a host has to boot.
        let bytes = self.block.to_bytes().or_else(|error| {
            log::warn!("{error}: dropping the variables of other programs from grubenv");
            self.block = self.own_variables(&state);
            self.block.to_bytes()
        });
        let bytes = bytes.unwrap_or_else(|_| state.to_bytes());
        overwrite(esp, GRUBENV, &bytes)?;
        self.state = state;
        self.problem = None;
        Ok(())
    }

    /// Returns a block with the variables of the state, and the tag of the disk.
    fn own_variables(&self, state: &BootState) -> Block {
        let mut block = Block::default();
        state.write(&mut block);
        if let Some(tag) = self.tag() {
            block.set(DISK, &tag.to_string());
        }
        block
    }

    /// Returns the tag of the disk.
    pub fn tag(&self) -> Option<DiskTag> {
        self.block.get(DISK)?.parse().ok()
    }

    /// Sets the tag of the disk. The next [`GrubenvFile::write`] stores it.
    pub fn set_tag(&mut self, tag: DiskTag) {
        self.block.set(DISK, &tag.to_string());
    }

    /// Sets the version that GRUB's menu shows for a slot. The next [`GrubenvFile::write`] stores it.
    pub fn show_version(&mut self, slot: Slot, version: &str) {
        self.block.set_displayed_version(slot, version);
    }
}

/// Returns the slot that counts as good if grubenv is lost. It is the running slot, or the other one if
/// the running slot is on trial. If this ESP was not booted, it is the slot that counts as good for GRUB,
/// for which `files` returns the manifest and the mark of a slot.
pub fn good_without_grubenv(booted: Booted, files: impl Fn(Slot) -> SlotFiles) -> Slot {
    match booted.slot {
        Some(running) if booted.on_trial => running.other(),
        Some(running) => running,
        None => Environment::default().decide(files, Save::Stored).good,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::esp::{Access, Esp};
    use crate::host::Host;

    #[test]
    fn derives_the_good_slot_if_grubenv_is_missing() {
        let on_trial = |slot| Booted { slot: Some(slot), on_trial: true, id: None };
        let running = |slot| Booted { slot: Some(slot), on_trial: false, id: None };
        let unknown = Booted::default();
        for (booted, files, expected) in [
            (running(Slot::B), &["a/release.jwt", "a/good"][..], Slot::B),
            (on_trial(Slot::B), &["b/release.jwt", "b/good"], Slot::A),
            (unknown, &["a/release.jwt", "b/release.jwt"], Slot::A),
            (unknown, &["a/release.jwt", "b/release.jwt", "b/good"], Slot::B),
            (unknown, &["a/release.jwt", "a/good", "b/release.jwt", "b/good"], Slot::A),
            // Without a manifest, a slot is empty or partly written.
            (unknown, &["a/vmlinuz", "a/good", "b/release.jwt"], Slot::B),
            (unknown, &["a/release.jwt/", "b/release.jwt"], Slot::B),
            (unknown, &[], Slot::A),
        ] {
            let directory = tempfile::tempdir().unwrap();
            for file in files {
                let path = directory.path().join("etchaos").join(file);
                if file.ends_with('/') {
                    std::fs::create_dir_all(path).unwrap();
                } else {
                    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                    std::fs::write(path, "").unwrap();
                }
            }
            let host = Host::new("/nonexistent");
            let esp = Esp::open(&host, Some(directory.path()), Access::Read).unwrap().unwrap();
            let grubenv = GrubenvFile::of_host(&esp, booted);
            assert_eq!(grubenv.state.good, expected, "{booted:?} {files:?}");
            assert_eq!(grubenv.problem.as_deref(), Some("grubenv is missing"));
        }
    }
}
