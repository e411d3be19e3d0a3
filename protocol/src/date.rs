//! Conversion between Unix seconds and dates in UTC (proleptic Gregorian calendar).

const DAY: u64 = 86_400;
/// The number of days from 0000-03-01 to 1970-01-01. Years begin in March in these calculations, which
/// makes the leap day the last day of a year.
const EPOCH: u64 = 719_468;
/// The number of days in 400 years, after which the calendar repeats.
const ERA: u64 = 146_097;

/// Returns a time as `2026-09-21 14:15:00 UTC`. Times after the year 9999 are shown as its last second.
pub fn format_utc(unix: u64) -> String {
    let unix = unix.min(253_402_300_799);
    let days = unix / DAY + EPOCH;
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + next_year;
    let (hour, minute, second) = (unix % DAY / 3600, unix % 3600 / 60, unix % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Returns the Unix seconds of a date such as `2026-09-21` and a time such as `14:15:00` in UTC. The
/// time may have a fraction of a second, which is ignored.
pub fn parse_utc(date: &str, time: &str) -> Option<u64> {
    let [year, month, day] = three_numbers(date, '-')?;
    let [hour, minute, second] = three_numbers(time.split('.').next()?, ':')?;
    let is_valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    is_valid.then(|| days_since_epoch(year, month, day) * DAY + hour * 3600 + minute * 60 + second)
}

fn three_numbers(text: &str, separator: char) -> Option<[u64; 3]> {
    let parts: Option<Vec<u64>> = text.split(separator).map(|part| part.parse().ok()).collect();
    parts?.try_into().ok()
}

fn days_since_epoch(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + day_of_year - EPOCH
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
        for (date, time) in
            [("2026-13-01", "0:0:0"), ("1-1-1", "0:0:0"), ("x", "y"), ("2026-01", "0:0:0")]
        {
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
