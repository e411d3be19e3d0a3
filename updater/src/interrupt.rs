//! Handles SIGTERM, SIGINT and SIGHUP.
//!
//! Code that writes checks [`is_requested`] between two pieces and returns an error, so that written data
//! is flushed and the ESP is unmounted. Code that waits, for example for a server, may not reach that
//! check; the process then ends after a grace period of 5 s. This is safe, too, because the kernel removes the
//! mounts of its namespace. In both cases the process ends by the signal: a shell reports 129, 130 or 143,
//! and systemd does not count it as a failure.

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// The time to flush some MiB and to unmount the ESP.
const GRACE_PERIOD: Duration = Duration::from_secs(5);

static CAUGHT: AtomicI32 = AtomicI32::new(0);

/// Starts handling the signals.
///
/// # Errors
/// Fails if the handlers or their thread cannot be set up.
pub fn catch() -> io::Result<()> {
    let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    let mut signals = Signals::new([SIGINT, SIGTERM].into_iter().chain(hangup))?;
    let wait = move || {
        for signal in signals.forever() {
            // A second signal ends the process at once.
            if CAUGHT.swap(signal, Ordering::SeqCst) == 0 {
                std::thread::spawn(|| {
                    std::thread::sleep(GRACE_PERIOD);
                    end_by_signal();
                });
            } else {
                end_by_signal();
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map(|_| ())
}

/// Returns whether the signal is ignored, as nohup(1) arranges for SIGHUP. The mask has one bit for each
/// signal, from signal 1 on (proc_pid_status(5)).
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

/// Returns whether a signal was received.
pub fn is_requested() -> bool {
    CAUGHT.load(Ordering::SeqCst) != 0
}

/// Ends this process by the signal that was received, if there was one.
pub fn end_by_signal() {
    let signal = CAUGHT.load(Ordering::SeqCst);
    if signal != 0 {
        // This fails only for unknown signals.
        let _ = emulate_default_handler(signal);
    }
}
