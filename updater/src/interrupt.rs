//! An end that is asked for: SIGTERM and SIGINT.
//!
//! Whoever writes looks here between two pieces and ends in order: what was written is flushed, and
//! the ESP is unmounted. Whoever waits, for a server say, may not get to look, and is ended a moment
//! later; nothing is lost by that either, since the kernel unmounts what only this process sees. In
//! both cases the process ends by the signal: 130 or 143 in a shell, and no failure for systemd.

use std::io;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// To flush some MiB and to unmount.
const GRACE: Duration = Duration::from_secs(5);

static CAUGHT: AtomicI32 = AtomicI32::new(0);

/// From now on these signals are caught.
pub fn catch() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
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
