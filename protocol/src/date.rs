//! Conversion between Unix seconds and dates in UTC.

use jiff::SignedDuration;
use jiff::civil::{DateTime, date};

const UNIX_EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// Returns a time as `2026-09-21 14:15:00 UTC`. Times after the year 9999 are shown as its last second.
pub fn format_utc(unix: u64) -> String {
    let seconds = i64::try_from(unix).unwrap_or(i64::MAX);
    let time = UNIX_EPOCH.saturating_add(SignedDuration::from_secs(seconds));
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Returns the Unix seconds of a date such as `2026-09-21` and a time such as `14:15:00` in UTC. The
/// time may have a fraction of a second, which is ignored.
pub fn parse_utc(date: &str, time: &str) -> Option<u64> {
    let time = DateTime::strptime("%Y-%m-%d %H:%M:%S%.f", format!("{date} {time}")).ok()?;
    time.duration_since(UNIX_EPOCH).as_secs().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn formats_and_parses_dates() {
        for (shown, seconds) in [
            ("1970-01-01 00:00:00 UTC", 0),
            ("2000-02-29 12:34:56 UTC", 951_827_696),
            ("2026-09-21 14:15:00 UTC", 1_790_000_100),
            ("2100-12-31 23:59:59 UTC", 4_133_980_799),
            ("9999-12-31 23:59:59 UTC", u64::MAX),
        ] {
            assert_eq!(format_utc(seconds), shown);
        }
        assert_eq!(parse_utc("2026-09-21", "14:15:00.25"), Some(1_790_000_100));
        for (date, time) in [
            ("2026-13-01", "0:0:0"),
            ("2026-02-30", "0:0:0"),
            ("1-1-1", "0:0:0"),
            ("x", "y"),
            ("2026-01", "0:0:0"),
        ] {
            assert_eq!(parse_utc(date, time), None, "{date} {time}");
        }
    }

    proptest! {
        #[test]
        fn parses_what_it_formats(seconds in 0_u64..253_402_300_799) {
            let shown = format_utc(seconds);
            let mut words = shown.split(' ');
            let (date, time) = (words.next().unwrap(), words.next().unwrap());
            prop_assert_eq!(parse_utc(date, time), Some(seconds));
        }
    }
}
