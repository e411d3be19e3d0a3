//! Sets up logging: to journald with fields if stderr is connected to it, otherwise to stderr.

use std::io::Write;

use log::{LevelFilter, Log, Metadata, Record};
use systemd_journal_logger::{JournalLog, connected_to_journal};

/// The prefix of the targets that are logged. Lines of other crates do not help an operator.
const TARGET: &str = "updater";

/// A logger that writes plain lines to stderr.
struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_updater(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if is_updater(record.metadata()) {
            let level = record.level().as_str().to_lowercase();
            write_line(format_args!("{level}: {}", record.args()));
        }
    }

    fn flush(&self) {}
}

/// A logger that passes the lines of this crate to journald.
struct Journal(JournalLog);

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_updater(metadata) && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if is_updater(record.metadata()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

fn is_updater(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with(TARGET)
}

/// Writes a line to stderr. Unlike `eprintln`, this does not panic if stderr is closed.
fn write_line(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Sets up logging. Call it once.
///
/// The level is `debug` if `verbose` is set, otherwise that of `RUST_LOG`, otherwise `info`.
pub fn init(verbose: bool) {
    let filter = std::env::var("RUST_LOG").unwrap_or_default();
    let from_environment = level(&filter);
    log::set_max_level(match verbose {
        true => from_environment.unwrap_or(LevelFilter::Debug).max(LevelFilter::Debug),
        false => from_environment.unwrap_or(LevelFilter::Info),
    });
    let to_journal = connected_to_journal()
        && JournalLog::new().is_ok_and(|log| log::set_boxed_logger(Box::new(Journal(log))).is_ok());
    if !to_journal && log::set_logger(&Stderr).is_err() {
        write_line(format_args!("warning: logging was set up twice"));
    }
    if from_environment.is_none() && !filter.trim().is_empty() {
        log::warn!(
            "RUST_LOG={filter:?} is ignored: expected off, error, warn, info, debug or trace, or updater=LEVEL"
        );
    }
}

/// Reads the level of this crate from a list such as `debug` or `hyper=warn,updater=debug`. The last
/// matching entry counts. Returns `None` if none matches or one is invalid.
fn level(filter: &str) -> Option<LevelFilter> {
    let mut found = None;
    for entry in filter.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (target, level) = entry.split_once('=').unwrap_or((TARGET, entry));
        let level = level.trim().parse().ok()?;
        if target.trim() == TARGET {
            found = Some(level);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_levels() {
        for (filter, expected) in [
            ("debug", Some(LevelFilter::Debug)),
            ("TRACE", Some(LevelFilter::Trace)),
            (" updater=debug ", Some(LevelFilter::Debug)),
            ("hyper=warn,updater=debug", Some(LevelFilter::Debug)),
            ("warn,updater=off", Some(LevelFilter::Off)),
            ("", None),
            ("loud", None),
            ("hyper=debug", None),
            ("debug,updater=loud", None),
        ] {
            assert_eq!(level(filter), expected, "{filter:?}");
        }
    }
}
