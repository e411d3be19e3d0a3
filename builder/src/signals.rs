//! Signals that end the builder.

use std::fs;
use std::thread;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The offset that shells add to a signal's number for the exit code.
pub const SIGNAL_BASE: i32 = 128;

/// Ends the process with 128 + N when it receives SIGINT, SIGTERM or SIGHUP.
///
/// There is nothing to clean up: the kernel ends child processes, mounts and containers together with
/// this process. SIGINT is handled even if it was ignored at start, because shells ignore it for
/// commands in the background. SIGHUP stays ignored if it was, because `nohup` asks for that.
///
/// # Errors
/// Fails if the handlers cannot be installed.
pub fn exit_on_signals() -> Result<()> {
    let mut handled = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        handled.push(SIGHUP);
    }
    let mut signals = Signals::new(&handled).context("installing the signal handlers")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            crate::progress::message("interrupted");
            std::process::exit(SIGNAL_BASE + signal);
        }
    });
    Ok(())
}

/// Returns whether this process ignores a signal, according to proc_pid_status(5).
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}
