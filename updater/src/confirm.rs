//! After a healthy boot: the running slot is good.

use protocol::esp::Slot;
use protocol::grubenv::BootState;

use crate::bootstate::Grubenv;
use crate::esp::Esp;
use crate::files::FileError;

/// What confirming did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmed {
    /// It was good already.
    Already,
    /// It is now.
    Now {
        /// Why grubenv was made anew, if it was.
        recreated: Option<String>,
    },
}

/// The state after the running slot was found healthy. A trial of the other slot stays: it is still
/// to be tried, or it failed and is to be remembered.
pub fn confirmed(state: BootState, running: Slot) -> BootState {
    BootState { good: running, trial: state.trial.filter(|trial| trial.slot != running) }
}

/// Whether there is nothing left to confirm, so that nothing needs to be written.
pub fn is_confirmed(esp: &Esp, running: Slot) -> bool {
    let grubenv = Grubenv::read(esp, running);
    grubenv.problem.is_none() && confirmed(grubenv.state, running) == grubenv.state
}

/// Makes the running slot the good one.
pub fn confirm(esp: &Esp, running: Slot) -> Result<Confirmed, FileError> {
    let mut grubenv = Grubenv::read(esp, running);
    let recreated = grubenv.problem.clone();
    let state = confirmed(grubenv.state, running);
    if state == grubenv.state && recreated.is_none() {
        return Ok(Confirmed::Already);
    }
    grubenv.write(esp, state)?;
    Ok(Confirmed::Now { recreated })
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::grubenv::Trial;

    #[test]
    fn the_running_slot_is_good_and_the_other_ones_trial_stays() {
        let state = |good, trial: Option<(Slot, u8)>| BootState {
            good,
            trial: trial.map(|(slot, tries)| Trial { slot, tries }),
        };
        let (a, b) = (Slot::A, Slot::B);
        for (before, running, after) in [
            (state(a, Some((b, 2))), b, state(b, None)),
            (state(a, Some((b, 0))), b, state(b, None)),
            (state(a, Some((b, 0))), a, state(a, Some((b, 0)))),
            (state(a, Some((b, 3))), a, state(a, Some((b, 3)))),
            (state(a, None), a, state(a, None)),
            (state(a, None), b, state(b, None)),
        ] {
            assert_eq!(confirmed(before, running), after);
        }
    }
}
