//! Whether a window is open, by systemd's own reading of its calendar expression: time zones, leap days
//! and the hours that daylight saving skips or repeats are its matter.

use protocol::date;

use super::{CommandError, output};
use crate::config::Window;

/// What a window is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It is open.
    Open,
    /// It opens then, in Unix seconds.
    At(u64),
    /// Its expression lies in the past.
    Never,
}

/// A window of which nothing is known.
#[derive(Debug, thiserror::Error)]
pub enum CalendarError {
    /// Its expression is none. Neither it nor what systemd says is shown: that would quote it.
    #[error(
        "\"reboot\" of the configuration has a \"window\" that systemd cannot read ({0}): \"systemd-analyze calendar\" explains what is wrong with an expression; a time zone has to be one that this host has, and UTC is the only one that every host has"
    )]
    Refused(std::process::ExitStatus),
    /// Nobody could be asked.
    #[error("\"reboot\" of the configuration has a \"window\", and {0}")]
    Ask(CommandError),
    /// It said something else than it should.
    #[error(
        "systemd-analyze calendar says nothing of the next time that the reboot window opens, expected a line \"Next elapse:\" or \"(in UTC):\""
    )]
    Answer,
}

impl From<CommandError> for CalendarError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Failed { status, .. } => Self::Refused(status),
            other => Self::Ask(other),
        }
    }
}

/// Asks whether a window is open at a time, in Unix seconds.
///
/// It is, if it opened within the time that it stays open: so one question is enough, also for a window
/// over midnight.
pub fn opening(window: &Window, now: u64) -> Result<Opening, CalendarError> {
    let base = now.saturating_sub(window.duration.as_secs());
    let words = [
        "systemd-analyze",
        "calendar",
        "--iterations=1",
        &format!("--base-time=@{base}"),
        "--",
        &window.calendar,
    ];
    let answer = output(&words.map(str::to_owned))?;
    Ok(match next_elapse(&answer).ok_or(CalendarError::Answer)? {
        None => Opening::Never,
        Some(at) if at <= now => Opening::Open,
        Some(at) => Opening::At(at),
    })
}

/// The time in the answer, in Unix seconds; `Some(None)` if there will be none.
///
/// Where the zone is not UTC, a second line has the time in UTC; of the first one only UTC is taken.
fn next_elapse(answer: &str) -> Option<Option<u64>> {
    let line =
        |name: &str| answer.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    match (line("(in UTC):"), line("Next elapse:")) {
        (None, Some("never")) => Some(None),
        (Some(time), _) | (None, Some(time)) => Some(Some(unix(time)?)),
        (None, None) => None,
    }
}

/// `Sat 2026-11-28 02:00:00 UTC`, which may have a fraction of a second, in Unix seconds.
fn unix(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    let (_weekday, day, time) = (words.next()?, words.next()?, words.next()?);
    if words.next() != Some("UTC") {
        return None;
    }
    date::parse_utc(day, time)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn answers_are_read() {
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

    /// Whether systemd-analyze is here. Without it these tests prove nothing.
    fn is_here() -> bool {
        let is_here = output(&["systemd-analyze", "--version"].map(str::to_owned)).is_ok();
        assert!(is_here || std::env::var("CI").is_err(), "systemd-analyze is needed for this test");
        if !is_here {
            eprintln!("SKIPPED: there is no systemd-analyze here");
        }
        is_here
    }

    fn asked(calendar: &str, hours: u64, now: &str) -> Opening {
        let duration = Duration::from_secs(hours * 3600);
        let window = Window { calendar: calendar.into(), duration, idle: true };
        opening(&window, unix(now).unwrap()).unwrap()
    }

    #[test]
    fn windows_open_and_shut() {
        if !is_here() {
            return;
        }
        let at = |text: &str| Opening::At(unix(text).unwrap());
        let saturday = "Sat 02:00 UTC";
        assert_eq!(
            asked(saturday, 2, "Sat 2026-11-28 01:59:59 UTC"),
            at("Sat 2026-11-28 02:00:00 UTC")
        );
        assert_eq!(asked(saturday, 2, "Sat 2026-11-28 02:00:00 UTC"), Opening::Open);
        assert_eq!(asked(saturday, 2, "Sat 2026-11-28 03:59:59 UTC"), Opening::Open);
        assert_eq!(
            asked(saturday, 2, "Sat 2026-11-28 04:00:00 UTC"),
            at("Sat 2026-12-05 02:00:00 UTC")
        );
        // Over midnight, and over a year's end.
        assert_eq!(asked("23:00 UTC", 3, "Fri 2027-01-01 01:59:59 UTC"), Opening::Open);
        assert_eq!(
            asked("23:00 UTC", 3, "Fri 2027-01-01 02:00:00 UTC"),
            at("Fri 2027-01-01 23:00:00 UTC")
        );
        assert_eq!(asked("2020-01-01 UTC", 1, "Sat 2026-11-28 00:00:00 UTC"), Opening::Never);
    }

    #[test]
    fn windows_follow_their_time_zone() {
        if !is_here() {
            return;
        }
        let zone = "02:30 Europe/Berlin";
        // Winter and summer.
        assert_eq!(asked(zone, 1, "Mon 2026-01-05 01:45:00 UTC"), Opening::Open);
        assert_eq!(asked(zone, 1, "Mon 2026-07-06 00:45:00 UTC"), Opening::Open);
        assert_eq!(
            asked(zone, 1, "Mon 2026-07-06 01:45:00 UTC"),
            Opening::At(unix("Tue 2026-07-07 00:30:00 UTC").unwrap())
        );
        // On 29 March 2026 there is no 02:30 in Berlin: the window stays shut until the next day, or
        // opens at another time of that night. On 25 October there are two. In all cases it opens.
        for now in ["Sun 2026-03-29 00:00:00 UTC", "Sat 2026-10-24 23:00:00 UTC"] {
            let Opening::At(at) = asked(zone, 1, now) else { panic!("{now}") };
            let wait = at - unix(now).unwrap();
            assert!((1..=25 * 3600 + 1800).contains(&wait), "{now}: {wait}");
        }
    }

    #[test]
    fn expressions_that_are_none_are_refused() {
        if !is_here() {
            return;
        }
        // A zone that the host does not have is not taken for another one: to an image without
        // /usr/share/zoneinfo Europe/Berlin is what Mars/Olympus is here.
        for bad in ["someday", "--version", "25:00", "Sat 02:00 Mars/Olympus", "Sat 02:00 LMT"] {
            let window =
                Window { calendar: bad.into(), duration: Duration::from_secs(3600), idle: true };
            let error = opening(&window, 1_790_000_000).unwrap_err().to_string();
            assert!(error.contains("cannot read") && !error.contains(bad), "{error}");
            assert!(error.contains("UTC is the only one"), "{error}");
        }
    }
}
