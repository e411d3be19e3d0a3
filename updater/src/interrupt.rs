//! An end that is asked for: SIGTERM, SIGINT, and SIGHUP when a terminal goes away.
//!
//! Whoever writes looks here between two pieces and ends in order: what was written is flushed, and
//! the ESP is unmounted. Whoever waits, for a server say, may not get to look, and is ended a moment
//! later; nothing is lost by that either, since the kernel unmounts what only this process sees. In
//! both cases the process ends by the signal: 129, 130 or 143 in a shell, and no failure for systemd.

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// To flush some MiB and to unmount.
const GRACE: Duration = Duration::from_secs(5);

static CAUGHT: AtomicI32 = AtomicI32::new(0);

/// From now on these signals are caught.
pub fn catch() -> io::Result<()> {
    let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    let mut signals = Signals::new([SIGINT, SIGTERM].into_iter().chain(hangup))?;
    let wait = move || {
        for signal in signals.forever() {
            // Who asks twice is in a hurry.
            if CAUGHT.swap(signal, Ordering::SeqCst) == 0 {
                std::thread::spawn(|| {
                    std::thread::sleep(GRACE);
                    end();
                });
            } else {
                end();
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map(|_| ())
}

/// Whether who started this process wants it to overlook the signal, as nohup does. proc_pid_status(5):
/// the mask has a bit for each signal, from 1 on.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

/// Whether the end was asked for.
pub fn is_asked_for() -> bool {
    CAUGHT.load(Ordering::SeqCst) != 0
}

/// Ends this process by the signal that it caught; if there was one.
pub fn end() {
    let signal = CAUGHT.load(Ordering::SeqCst);
    if signal != 0 {
        // It fails for signals that it does not know. It knows these.
        let _ = emulate_default_handler(signal);
    }
}
