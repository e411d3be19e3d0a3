//! After a healthy boot: the running slot is good.

use std::io;
use std::time::Duration;

use protocol::esp::{CONFIRMED, MANIFEST, Slot};
use protocol::grubenv::BootState;

use crate::esp::{Access, EspError, RUN, run_directory};
use crate::files::{Entry, FileError, FileSystem, remove_if_exists};
use crate::grubenv_file::GrubenvFile;
use crate::host::{Booted, Host, read_limited};
use crate::trial::{is_abandoned, mark_confirmed, return_failed};

/// A healthy boot that is not confirmed would be undone by the next one, so it is worth waiting for
/// another updater.
const WAIT: Duration = Duration::from_secs(300);

/// In our directory below /run, until the next boot: the slot that was confirmed in this one.
const REMEMBERED: &str = "confirmed";

/// What there is to confirm, from the side of grubenv.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Nothing.
    Nothing,
    /// The running slot is good, but the disk could say more: that the other slot's trial has failed, or
    /// that this slot was confirmed. If somebody else is writing, that can wait for the next boot or
    /// update.
    Memory,
    /// The running slot.
    Slot,
}

impl Open {
    /// What is open while `running` runs.
    pub fn of(esp: &dyn FileSystem, grubenv: &GrubenvFile, running: Slot) -> Self {
        let state = mark_confirmed(&grubenv.state, running);
        match state == grubenv.state {
            _ if grubenv.problem.is_some() => Self::Slot,
            true if has_confirmed_mark(esp, running) => Self::Nothing,
            true => Self::Memory,
            false if state.good != grubenv.state.good => Self::Slot,
            false => Self::Memory,
        }
    }

    /// How to open the ESP for it; not at all, if there is nothing to write.
    pub fn access(self) -> Option<Access> {
        match self {
            Self::Nothing => None,
            Self::Memory => Some(Access::Write { wait: Duration::ZERO }),
            Self::Slot => Some(Access::Write { wait: WAIT }),
        }
    }

    /// Whether this error leaves the host as safe as it was.
    pub fn tolerates(self, error: &EspError) -> bool {
        self == Self::Memory && matches!(error, EspError::Busy(_))
    }
}

/// What confirming did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmed {
    /// It did not make the slot good.
    No {
        /// Why.
        why: String,
    },
    /// The slot was good already.
    Already,
    /// It is now.
    Now {
        /// Why grubenv was made anew, if it was.
        recreated: Option<String>,
    },
}

/// Why a healthy boot does not make the running slot good, if it does not.
///
/// Without a trial in this boot GRUB took that slot as its last resort, or it was written anew since.
/// Then only the mark says that it is what was confirmed (`has_confirmed_mark`); or that it was left in vain.
pub fn why_not(state: &BootState, booted: Booted, has_confirmed_mark: bool) -> Option<String> {
    let (good, running) = (state.good, booted.slot?);
    if running == good || return_failed(state, booted) {
        None
    } else if is_abandoned(state, running) {
        Some(format!(
            "slot {running} is left for slot {good} at the next boot: it is not confirmed"
        ))
    } else if booted.on_trial || has_confirmed_mark {
        None
    } else {
        Some(format!(
            "slot {running} runs and is not on trial, and what is in it was never confirmed: it is not confirmed now; the next update goes back to slot {good}, or heals it"
        ))
    }
}

/// Whether this slot has the mark of one that was confirmed.
pub fn has_confirmed_mark(esp: &dyn FileSystem, slot: Slot) -> bool {
    esp.metadata(&mark_of(slot)).is_ok_and(|mark| mark.is_some())
}

fn mark_of(slot: Slot) -> String {
    format!("{}/{CONFIRMED}", slot.directory())
}

/// For a boot loader that finds no grubenv. A host without the mark boots as well, so this never fails.
fn mark(esp: &dyn FileSystem, slot: Slot) {
    let is_release = esp.metadata(&format!("{}/{MANIFEST}", slot.directory()));
    if has_confirmed_mark(esp, slot) || !matches!(is_release, Ok(Some(Entry::File { .. }))) {
        return;
    }
    let marked = esp.create(&mark_of(slot)).and_then(|_| esp.sync_directory(&slot.directory()));
    if let Err(error) = marked {
        log::warn!("{error}");
    }
}

/// What is in this slot is not to be taken for good any more.
pub fn unmark(esp: &dyn FileSystem, slot: Slot) -> Result<(), FileError> {
    match remove_if_exists(esp, &mark_of(slot))? {
        true => esp.sync_directory(&slot.directory()),
        false => Ok(()),
    }
}

/// Makes the running slot the good one, if nothing speaks against it.
pub fn confirm(esp: &dyn FileSystem, booted: Booted) -> Result<Confirmed, FileError> {
    let Some(running) = booted.slot else { return Ok(Confirmed::Already) };
    let mut grubenv = GrubenvFile::read(esp, running);
    if let Some(why) = why_not(&grubenv.state, booted, has_confirmed_mark(esp, running)) {
        return Ok(Confirmed::No { why });
    }
    let recreated = grubenv.problem.clone();
    let open = Open::of(esp, &grubenv, running);
    mark(esp, running);
    let state = mark_confirmed(&grubenv.state, running);
    if state != grubenv.state || recreated.is_some() {
        grubenv.write(esp, state)?;
    }
    Ok(match open {
        Open::Slot => Confirmed::Now { recreated },
        Open::Memory | Open::Nothing => Confirmed::Already,
    })
}

/// How this system was booted, as far as the host says. It is not on trial any more once it was
/// confirmed.
pub fn booted(host: &Host) -> io::Result<Booted> {
    let slot = host.running()?;
    let on_trial = host.on_trial()? && !slot.is_some_and(|slot| is_remembered(host, slot));
    Ok(Booted { slot, on_trial, id: host.boot_id() })
}

/// Remembers until the next boot that the running slot was confirmed, for when the disk does not say
/// so: it may be taken away, or break.
pub fn remember(host: &Host, running: Slot) {
    let written = run_directory(host).map_err(|error| error.to_string()).and_then(|directory| {
        let written = std::fs::write(directory.join(REMEMBERED), running.to_string());
        written.map_err(|error| error.to_string())
    });
    if let Err(why) = written {
        log::warn!("cannot remember that slot {running} was confirmed: {why}");
    }
}

/// Whether [`remember`] was told so in this boot.
pub fn is_remembered(host: &Host, running: Slot) -> bool {
    let found = read_limited(&host.path(RUN).join(REMEMBERED), 1).ok().flatten();
    found.is_some_and(|found| found == running.to_string().as_bytes())
}
