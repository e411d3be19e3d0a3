//! Termination signals. A signal requests a stop, so that the VM and the work directory are cleaned
//! up, and the first one determines the exit code.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Received;

use crate::cancel::Cancel;

/// Shells report a process that was ended by signal N with the exit code 128 + N.
const SIGNAL_EXIT_BASE: i32 = 128;

/// The signal that was received, if any.
#[derive(Debug, Clone, Default)]
pub struct Signals(Arc<AtomicI32>);

impl Signals {
    /// Requests a stop through `cancel` at SIGINT, SIGTERM or SIGHUP.
    ///
    /// A SIGHUP that is ignored when the program starts stays ignored, so that `nohup` works.
    ///
    /// # Errors
    /// Fails if the handler cannot be installed.
    pub fn install(cancel: Cancel) -> io::Result<Self> {
        let mut handled = vec![SIGINT, SIGTERM];
        let status = std::fs::read_to_string("/proc/self/status")?;
        if !is_ignored(&status, SIGHUP) {
            handled.push(SIGHUP);
        }
        let mut received = Received::new(handled)?;
        let signals = Self::default();
        let first = Arc::clone(&signals.0);
        thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in received.forever() {
                let _ = first.compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed);
                cancel.cancel();
            }
        })?;
        Ok(signals)
    }

    /// Returns the exit code for the first signal that was received: 130 for SIGINT, 143 for
    /// SIGTERM, 129 for SIGHUP.
    pub fn exit_code(&self) -> Option<u8> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            signal => u8::try_from(SIGNAL_EXIT_BASE + signal).ok(),
        }
    }
}

/// Returns whether the mask `SigIgn` of `/proc/PID/status` (proc_pid_status(5)) contains `signal`.
fn is_ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_mask_of_ignored_signals() {
        let status = "Name:\tx\nSigIgn:\t0000000000000001\nSigCgt:\t0000000000004002\n";
        assert!(is_ignored(status, SIGHUP));
        assert!(!is_ignored(status, SIGINT) && !is_ignored("", SIGHUP));
    }
}
