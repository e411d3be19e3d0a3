//! Unix seconds and dates in UTC, in the Gregorian calendar.

const DAY: u64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01. A year begins with March here, so that the leap day is its last.
const EPOCH: u64 = 719_468;
/// Days in 400 years, after which the calendar begins anew.
const ERA: u64 = 146_097;

/// `2026-09-21 14:15:00 UTC`. Times after the year 9999 are cut to its end.
pub fn text(unix: u64) -> String {
    let unix = unix.min(253_402_300_799);
    let days = unix / DAY + EPOCH;
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, turn) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + turn;
    let (hour, minute, second) = (unix % DAY / 3600, unix % 3600 / 60, unix % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Reads `2026-09-21` and `14:15:00`, which may have a fraction of a second.
pub fn unix(date: &str, time: &str) -> Option<u64> {
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time.split('.').next()?, ':')?;
    let is_sane = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    is_sane.then(|| days(year, month, day) * DAY + hour * 3600 + minute * 60 + second)
}

fn numbers(text: &str, separator: char) -> Option<[u64; 3]> {
    let parts: Option<Vec<u64>> = text.split(separator).map(|part| part.parse().ok()).collect();
    parts?.try_into().ok()
}

fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + day_of_year - EPOCH
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_are_counted() {
        for (shown, seconds) in [
            ("1970-01-01 00:00:00 UTC", 0),
            ("2000-02-29 12:34:56 UTC", 951_827_696),
            ("2026-09-21 14:15:00 UTC", 1_790_000_100),
            ("2100-12-31 23:59:59 UTC", 4_133_980_799),
            ("9999-12-31 23:59:59 UTC", u64::MAX),
        ] {
            assert_eq!(text(seconds), shown);
        }
        assert_eq!(unix("2026-09-21", "14:15:00.25"), Some(1_790_000_100));
        for (date, time) in
            [("2026-13-01", "0:0:0"), ("1-1-1", "0:0:0"), ("x", "y"), ("2026-01", "0:0:0")]
        {
            assert_eq!(unix(date, time), None, "{date} {time}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(seconds in 0_u64..253_402_300_799) {
            let shown = text(seconds);
            let mut words = shown.split(' ');
            let (date, time) = (words.next().unwrap(), words.next().unwrap());
            prop_assert_eq!(unix(date, time), Some(seconds));
        }
    }
}
