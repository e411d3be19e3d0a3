//! After a healthy boot: the running slot is good.

use std::time::Duration;

use protocol::esp::Slot;

use crate::bootstate::Grubenv;
use crate::esp::{Access, EspError, RUN, run_folder};
use crate::files::{FileError, FileSystem};
use crate::host::{Host, read_if_there};
use crate::trial::confirmed;

/// A healthy boot that is not confirmed would be undone by the next one, so it is worth waiting for
/// another updater.
const WAIT: Duration = Duration::from_secs(300);

/// In our folder, until the next boot: the slot that was confirmed in this one.
const CONFIRMED: &str = "confirmed";

/// What there is to confirm, from the side of grubenv.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Nothing.
    Nothing,
    /// The running slot is good, but grubenv could say more: that the other slot's trial has failed.
    /// If somebody else is writing, that can wait for the next boot or update.
    Memory,
    /// The running slot.
    Slot,
}

impl Open {
    /// What is open while `running` runs.
    pub fn of(grubenv: &Grubenv, running: Slot) -> Self {
        let state = confirmed(&grubenv.state, running);
        match state == grubenv.state {
            _ if grubenv.problem.is_some() => Self::Slot,
            true => Self::Nothing,
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
    /// The slot was good already.
    Already,
    /// It is now.
    Now {
        /// Why grubenv was made anew, if it was.
        recreated: Option<String>,
    },
}

/// Makes the running slot the good one.
pub fn confirm(esp: &dyn FileSystem, running: Slot) -> Result<Confirmed, FileError> {
    let mut grubenv = Grubenv::read(esp, running);
    let recreated = grubenv.problem.clone();
    let open = Open::of(&grubenv, running);
    if open != Open::Nothing {
        grubenv.write(esp, confirmed(&grubenv.state, running))?;
    }
    Ok(match open {
        Open::Slot => Confirmed::Now { recreated },
        Open::Memory | Open::Nothing => Confirmed::Already,
    })
}

/// Remembers until the next boot that the running slot was confirmed, for when the disk does not say
/// so: it may be taken away, or break.
pub fn remember(host: &Host, running: Slot) {
    let written = run_folder(host).map_err(|error| error.to_string()).and_then(|folder| {
        let written = std::fs::write(folder.join(CONFIRMED), running.to_string());
        written.map_err(|error| error.to_string())
    });
    if let Err(why) = written {
        log::warn!("cannot remember that slot {running} was confirmed: {why}");
    }
}

/// Whether [`remember`] was told so in this boot.
pub fn is_remembered(host: &Host, running: Slot) -> bool {
    let found = read_if_there(&host.path(RUN).join(CONFIRMED), 1).ok().flatten();
    found.is_some_and(|found| found == running.to_string().as_bytes())
}
