//! Whether a reboot window is open, according to `systemd-analyze calendar`, which knows time zones, leap
//! days, and the hours that daylight saving time skips or repeats.

use protocol::date;

use crate::config::Window;
use crate::process::{ProcessError, QUERY_TIMEOUT, systemd};

/// The state of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// The window is open.
    Open,
    /// The window opens at this time, in Unix seconds.
    At(u64),
    /// The calendar expression has no time in the future.
    Never,
}

/// The state of a window could not be determined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CalendarError {
    /// systemd does not accept the expression. The message contains neither the expression nor the output
    /// of systemd, which quotes it: a value of the configuration may be a secret in the wrong place.
    #[error(
        "\"reboot\" of the configuration has a \"window\" that systemd cannot read ({0}): check the expression with \"systemd-analyze calendar\"; its time zone must be installed on this host, and only UTC is on every host"
    )]
    Invalid(std::process::ExitStatus),
    /// systemd-analyze cannot be run.
    #[error("\"reboot\" of the configuration has a \"window\" that cannot be checked: {0}")]
    Run(ProcessError),
    /// The output has another form than expected.
    #[error(
        "cannot read the output of \"systemd-analyze calendar\" for the reboot window: expected a line \"Next elapse:\" or \"(in UTC):\""
    )]
    Output,
}

impl From<ProcessError> for CalendarError {
    fn from(error: ProcessError) -> Self {
        match error {
            ProcessError::Failed { status, .. } => Self::Invalid(status),
            error => Self::Run(error),
        }
    }
}

/// Returns the state of a window at a time in Unix seconds.
///
/// A window is open if it opened less than its duration ago, so one query from that time on is enough,
/// also for a window over midnight.
///
/// # Errors
/// Fails if systemd-analyze cannot be run or does not accept the expression.
pub(crate) fn opening(window: &Window, now: u64) -> Result<Opening, CalendarError> {
    let base = now.saturating_sub(window.duration.as_secs());
    let command =
        ["systemd-analyze", "calendar", "--iterations=1", &format!("--base-time=@{base}"), "--"];
    let output = systemd(&command, QUERY_TIMEOUT).secret_arg(&window.calendar).stdout()?;
    Ok(match next_elapse(&output).ok_or(CalendarError::Output)? {
        None => Opening::Never,
        Some(at) if at <= now => Opening::Open,
        Some(at) => Opening::At(at),
    })
}

/// Returns the time in the output in Unix seconds, or `Some(None)` if there is none in the future.
///
/// If the local time zone is not UTC, a second line has the time in UTC. Of the first line only UTC is
/// read.
fn next_elapse(output: &str) -> Option<Option<u64>> {
    let line =
        |name: &str| output.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    match (line("(in UTC):"), line("Next elapse:")) {
        (None, Some("never")) => Some(None),
        (Some(time), _) | (None, Some(time)) => Some(Some(unix(time)?)),
        (None, None) => None,
    }
}

/// Converts a time like `Sat 2026-11-28 02:00:00 UTC`, which may have a fraction of a second, to Unix
/// seconds.
fn unix(text: &str) -> Option<u64> {
    let mut fields = text.split_whitespace();
    let (_weekday, day, time) = (fields.next()?, fields.next()?, fields.next()?);
    if fields.next() != Some("UTC") {
        return None;
    }
    date::parse_utc(day, time)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::process::systemd_stdout;

    #[test]
    fn reads_the_next_elapse() {
        let local = "  Original form: Sat 02:00\n    Next elapse: Sat 2026-11-28 02:00:00 CET\n       (in UTC): Sat 2026-11-28 01:00:00 UTC\n       From now: 4 days left\n";
        assert_eq!(next_elapse(local), Some(Some(1_795_827_600)));
        let utc = "    Next elapse: Sat 2026-11-28 02:00:00 UTC\n       From now: 4 days left\n";
        assert_eq!(next_elapse(utc), Some(Some(1_795_831_200)));
        assert_eq!(next_elapse("    Next elapse: never\n"), Some(None));
        let with_fraction = "Next elapse: Mon 2026-09-21 14:15:00.250000 UTC";
        assert_eq!(next_elapse(with_fraction), Some(Some(1_790_000_100)));
        for bad in ["", "Next elapse: soon", "Next elapse: Sat 2026-11-28 02:00:00 CET"] {
            assert_eq!(next_elapse(bad), None, "{bad}");
        }
    }

    /// Returns whether systemd-analyze is installed. These tests need it.
    fn is_installed() -> bool {
        let installed = systemd_stdout(&["systemd-analyze", "--version"], QUERY_TIMEOUT).is_ok();
        assert!(
            installed || std::env::var("CI").is_err(),
            "systemd-analyze is needed for this test"
        );
        if !installed {
            eprintln!("SKIPPED: systemd-analyze is not installed");
        }
        installed
    }

    fn opening_at(calendar: &str, hours: u64, now: &str) -> Opening {
        let duration = Duration::from_secs(hours * 3600);
        let window = Window { calendar: calendar.into(), duration, idle: true };
        opening(&window, unix(now).unwrap()).unwrap()
    }

    #[test]
    fn windows_open_and_close() {
        if !is_installed() {
            return;
        }
        let at = |text: &str| Opening::At(unix(text).unwrap());
        let saturday = "Sat 02:00 UTC";
        assert_eq!(
            opening_at(saturday, 2, "Sat 2026-11-28 01:59:59 UTC"),
            at("Sat 2026-11-28 02:00:00 UTC")
        );
        assert_eq!(opening_at(saturday, 2, "Sat 2026-11-28 02:00:00 UTC"), Opening::Open);
        assert_eq!(opening_at(saturday, 2, "Sat 2026-11-28 03:59:59 UTC"), Opening::Open);
        assert_eq!(
            opening_at(saturday, 2, "Sat 2026-11-28 04:00:00 UTC"),
            at("Sat 2026-12-05 02:00:00 UTC")
        );
        // A window that spans midnight and the end of a year.
        assert_eq!(opening_at("23:00 UTC", 3, "Fri 2027-01-01 01:59:59 UTC"), Opening::Open);
        assert_eq!(
            opening_at("23:00 UTC", 3, "Fri 2027-01-01 02:00:00 UTC"),
            at("Fri 2027-01-01 23:00:00 UTC")
        );
        assert_eq!(opening_at("2020-01-01 UTC", 1, "Sat 2026-11-28 00:00:00 UTC"), Opening::Never);
    }

    #[test]
    fn windows_follow_their_time_zone() {
        if !is_installed() {
            return;
        }
        let zone = "02:30 Europe/Berlin";
        // Winter and summer.
        assert_eq!(opening_at(zone, 1, "Mon 2026-01-05 01:45:00 UTC"), Opening::Open);
        assert_eq!(opening_at(zone, 1, "Mon 2026-07-06 00:45:00 UTC"), Opening::Open);
        assert_eq!(
            opening_at(zone, 1, "Mon 2026-07-06 01:45:00 UTC"),
            Opening::At(unix("Tue 2026-07-07 00:30:00 UTC").unwrap())
        );
        // On 29 March 2026 02:30 does not exist in Berlin, and the window opens at another time of that
        // night or on the next day. On 25 October 02:30 exists twice.
        for now in ["Sun 2026-03-29 00:00:00 UTC", "Sat 2026-10-24 23:00:00 UTC"] {
            let Opening::At(at) = opening_at(zone, 1, now) else { panic!("{now}") };
            let wait = at - unix(now).unwrap();
            assert!((1..=25 * 3600 + 1800).contains(&wait), "{now}: {wait}");
        }
    }

    #[test]
    fn rejects_invalid_expressions() {
        if !is_installed() {
            return;
        }
        // A time zone that the host does not know must not be ignored. An image without
        // /usr/share/zoneinfo knows only UTC.
        for bad in ["someday", "--version", "25:00", "Sat 02:00 Mars/Olympus", "Sat 02:00 LMT"] {
            let window =
                Window { calendar: bad.into(), duration: Duration::from_secs(3600), idle: true };
            let error = opening(&window, 1_790_000_000).unwrap_err().to_string();
            assert!(error.contains("cannot read") && !error.contains(bad), "{error}");
            assert!(error.contains("only UTC is on every host"), "{error}");
        }
    }
}
