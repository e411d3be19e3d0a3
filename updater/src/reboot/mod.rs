//! Reboots into an installed release: whether it may happen now, and how it is done.
//!
//! Between two runs nothing is stored but the trial in grubenv. A reboot that has to wait is decided again
//! by the next `update`, which [`schedule`] starts in time.

mod calendar;
mod decision;
mod execute;
mod logind;

pub(crate) use self::calendar::{CalendarError, Opening, opening};
pub(crate) use self::decision::{Decision, Facts, decide};
pub(crate) use self::execute::{force_reboot, reboot, schedule};
