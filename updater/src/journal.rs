//! Logging: to journald with fields where it listens, else to standard error.

use std::io::Write;

use log::{LevelFilter, Log, Metadata, Record};
use systemd_journal_logger::{JournalLog, connected_to_journal};

/// Plain lines on standard error.
struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // Other crates' lines are of no use to an operator.
        if record.target().starts_with("updater") {
            line(format_args!("{}: {}", record.level().as_str().to_lowercase(), record.args()));
        }
    }

    fn flush(&self) {}
}

/// Not `eprintln`, which panics where nobody listens. There is nobody left to tell.
fn line(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Logs from now on. Call it once.
pub fn init() {
    log::set_max_level(LevelFilter::Info);
    let to_journal = connected_to_journal()
        && JournalLog::new().and_then(|log| log.install().map_err(std::io::Error::other)).is_ok();
    // A second logger is refused, and then the first one is there, which is all that is wanted.
    if !to_journal && log::set_logger(&Stderr).is_err() {
        line(format_args!("warning: logging was set up twice"));
    }
}
