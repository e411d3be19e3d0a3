//! Confirms the running slot after a healthy boot, which makes it the good slot.

use std::io;
use std::time::Duration;

use protocol::esp::{CONFIRMED, MANIFEST, STARTED, Slot};
use protocol::grubenv::BootState;

use crate::esp::{Access, EspError, RUN, run_directory};
use crate::files::{Entry, FileError, FileSystem, remove_if_exists};
use crate::grubenv_file::GrubenvFile;
use crate::host::{Booted, Host, read_limited};
use crate::trial::{is_abandoned, mark_confirmed, return_failed};

/// How long a confirmation waits for another updater. The wait is long because a host that is not
/// confirmed falls back at its next boot.
const LOCK_TIMEOUT: Duration = Duration::from_secs(300);

/// A file in the run directory that names the slot that was confirmed in this boot.
const CONFIRMED_SLOT: &str = "confirmed";

/// What a confirmation has to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// Nothing.
    Nothing,
    /// The slot is good already, but the failed trial of the other slot or the mark of a confirmed slot
    /// is not on the disk yet. If another updater is writing, the next boot or update records it.
    Record,
    /// The running slot has to become good.
    Slot,
}

impl Pending {
    /// Returns what has to be written to confirm the running slot.
    pub fn of(esp: &dyn FileSystem, grubenv: &GrubenvFile, running: Slot) -> Self {
        let state = mark_confirmed(&grubenv.state, running);
        match state == grubenv.state {
            _ if grubenv.problem.is_some() => Self::Slot,
            true if has_confirmed_mark(esp, running) => Self::Nothing,
            true => Self::Record,
            false if state.good != grubenv.state.good => Self::Slot,
            false => Self::Record,
        }
    }

    /// Returns the access that is needed to the ESP, or `None` if there is nothing to write.
    pub fn access(self) -> Option<Access> {
        match self {
            Self::Nothing => None,
            Self::Record => Some(Access::Write { wait: Duration::ZERO }),
            Self::Slot => Some(Access::Write { wait: LOCK_TIMEOUT }),
        }
    }

    /// Returns whether the confirmation may be skipped after this error.
    pub fn tolerates(self, error: &EspError) -> bool {
        self == Self::Record && matches!(error, EspError::Busy(_))
    }
}

/// The result of a confirmation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmed {
    /// The slot was not made good.
    No {
        /// The reason.
        reason: String,
    },
    /// The slot was good already.
    Already,
    /// The slot was made good.
    Now {
        /// The problem because of which grubenv was recreated, if any.
        grubenv_problem: Option<String>,
    },
}

/// Returns why the running slot must not be confirmed although the host is healthy, or `None` if it may
/// be confirmed.
///
/// A slot that is neither good nor on trial was booted as GRUB's last resort, or was rewritten since. It
/// is confirmed only if its release was confirmed before (`has_confirmed_mark`), or if GRUB could not
/// return from it to the good slot.
pub fn reason_not_to_confirm(
    state: &BootState,
    booted: Booted,
    has_confirmed_mark: bool,
) -> Option<String> {
    let (good, running) = (state.good, booted.slot?);
    if running == good || return_failed(state, booted) {
        None
    } else if is_abandoned(state, running) {
        Some(format!(
            "slot {running} was rolled back and is not confirmed: the next boot returns to slot {good}"
        ))
    } else if booted.on_trial || has_confirmed_mark {
        None
    } else {
        Some(format!(
            "slot {running} is not confirmed: it runs without being on trial, and its release was never confirmed; the next update returns to slot {good} or repairs it"
        ))
    }
}

/// Returns whether a slot has the mark that its release was confirmed once.
pub fn has_confirmed_mark(esp: &dyn FileSystem, slot: Slot) -> bool {
    has_mark(esp, slot, CONFIRMED)
}

fn has_mark(esp: &dyn FileSystem, slot: Slot, name: &str) -> bool {
    esp.metadata(&mark_of(slot, name)).is_ok_and(|mark| mark.is_some())
}

fn mark_of(slot: Slot, name: &str) -> String {
    format!("{}/{name}", slot.directory())
}

/// Marks the release in a slot as confirmed. GRUB reads the mark if grubenv is lost, or if the good slot keeps
/// failing. Errors are only logged, because a host seldom needs the mark.
fn mark(esp: &dyn FileSystem, slot: Slot) {
    log_error(set_mark(esp, slot, CONFIRMED));
}

/// Marks a slot like the other one, which holds the same release.
pub(crate) fn copy_marks(esp: &dyn FileSystem, from: Slot, to: Slot) {
    for name in [CONFIRMED, STARTED] {
        if has_mark(esp, from, name) {
            log_error(set_mark(esp, to, name));
        }
    }
}

/// Marks the release in a slot as one that resets the boot counter. GRUB looks for the mark when the slot
/// keeps failing.
pub fn mark_started(esp: &dyn FileSystem, slot: Slot) -> Result<(), FileError> {
    set_mark(esp, slot, STARTED)
}

/// Returns whether [`mark_started`] has something to write: the slot holds a release without the mark.
pub fn can_mark_started(esp: &dyn FileSystem, slot: Slot) -> bool {
    can_mark(esp, slot, STARTED)
}

fn can_mark(esp: &dyn FileSystem, slot: Slot, name: &str) -> bool {
    let is_release = esp.metadata(&format!("{}/{MANIFEST}", slot.directory()));
    !has_mark(esp, slot, name) && matches!(is_release, Ok(Some(Entry::File { .. })))
}

fn set_mark(esp: &dyn FileSystem, slot: Slot, name: &str) -> Result<(), FileError> {
    if can_mark(esp, slot, name) {
        esp.create(&mark_of(slot, name))?;
        esp.sync_directory(&slot.directory())?;
    }
    Ok(())
}

fn log_error(result: Result<(), FileError>) {
    if let Err(error) = result {
        log::warn!("{error}");
    }
}

/// Removes the mark that the release in a slot was confirmed.
pub fn unmark(esp: &dyn FileSystem, slot: Slot) -> Result<(), FileError> {
    match remove_if_exists(esp, &mark_of(slot, CONFIRMED))? {
        true => esp.sync_directory(&slot.directory()),
        false => Ok(()),
    }
}

/// Makes the running slot good, unless [`reason_not_to_confirm`] returns a reason against it.
pub fn confirm(esp: &dyn FileSystem, booted: Booted) -> Result<Confirmed, FileError> {
    let Some(running) = booted.slot else { return Ok(Confirmed::Already) };
    let mut grubenv = GrubenvFile::read(esp, running);
    if let Some(reason) =
        reason_not_to_confirm(&grubenv.state, booted, has_confirmed_mark(esp, running))
    {
        return Ok(Confirmed::No { reason });
    }
    let grubenv_problem = grubenv.problem.clone();
    let pending = Pending::of(esp, &grubenv, running);
    mark(esp, running);
    let state = mark_confirmed(&grubenv.state, running);
    if state != grubenv.state || grubenv_problem.is_some() {
        grubenv.write(esp, state)?;
    }
    Ok(match pending {
        Pending::Slot => Confirmed::Now { grubenv_problem },
        Pending::Record | Pending::Nothing => Confirmed::Already,
    })
}

/// Returns how the host was booted. It is no longer on trial once its slot was confirmed in this boot.
pub fn booted(host: &Host) -> io::Result<Booted> {
    let slot = host.running()?;
    let on_trial =
        host.on_trial()? && !slot.is_some_and(|slot| is_recorded_as_confirmed(host, slot));
    Ok(Booted { slot, on_trial, id: host.boot_id() })
}

/// Records below /run that the running slot was confirmed in this boot. The record stays readable if the
/// disk fails or is removed.
pub fn record_confirmed(host: &Host, running: Slot) {
    let written = run_directory(host).map_err(|error| error.to_string()).and_then(|directory| {
        let written = std::fs::write(directory.join(CONFIRMED_SLOT), running.to_string());
        written.map_err(|error| error.to_string())
    });
    if let Err(error) = written {
        log::warn!("cannot record that slot {running} was confirmed: {error}");
    }
}

/// Returns whether [`record_confirmed`] recorded this slot in this boot.
pub fn is_recorded_as_confirmed(host: &Host, running: Slot) -> bool {
    let found = read_limited(&host.path(RUN).join(CONFIRMED_SLOT), 1).ok().flatten();
    found.is_some_and(|found| found == running.to_string().as_bytes())
}
