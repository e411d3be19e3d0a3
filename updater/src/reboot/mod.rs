//! Reboots into an installed release: whether it may happen now, and how it is done.
//!
//! Between two runs, only the trial in grubenv is stored. If a reboot has to wait, [`schedule`] starts the
//! next `update` in time, and that run decides again.

mod calendar;
mod decision;
mod execute;
mod logind;

pub(crate) use self::calendar::{CalendarError, Opening, opening};
pub(crate) use self::decision::{Decision, Facts, decide};
pub(crate) use self::execute::{force_reboot, reboot, schedule};
