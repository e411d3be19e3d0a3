//! Durations and rates in human-readable form.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A number, or a text with a number and its unit. The key that has the value determines its meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Quantity {
    /// A number without a unit.
    Number(u64),
    /// A text, usually with a unit.
    Text(String),
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct NumberOrText;
        impl Visitor<'_> for NumberOrText {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or a string")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
                Ok(Quantity::Number(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                Ok(Quantity::Text(text.to_owned()))
            }
        }
        from.deserialize_any(NumberOrText)
    }
}

impl Quantity {
    /// Returns the value as a duration: a number of seconds, or a text such as `90s`, `15min` or
    /// `1h 30min`. This is the syntax of systemd.time(7), limited to whole numbers and to units from
    /// seconds to days.
    pub(super) fn duration(&self) -> Option<Duration> {
        let text = match self {
            Self::Number(seconds) => return Some(Duration::from_secs(*seconds)),
            Self::Text(text) => text,
        };
        let mut rest = text.trim();
        let mut seconds = None;
        while !rest.is_empty() {
            let (number, after) = leading_number(rest)?;
            let after = after.trim_start();
            let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, after) = after.split_at(end);
            let part = number.checked_mul(unit_seconds(unit)?)?;
            seconds = Some(seconds.unwrap_or(0_u64).checked_add(part)?);
            rest = after.trim_start();
        }
        seconds.map(Duration::from_secs)
    }

    /// Returns the value in bytes: a number, or a text such as `500K`, `2M` or `1G` with multiples of
    /// 1024.
    pub(super) fn bytes(&self) -> Option<NonZeroU64> {
        let text = match self {
            Self::Number(bytes) => return NonZeroU64::new(*bytes),
            Self::Text(text) => text,
        };
        let (number, unit) = leading_number(text.trim())?;
        let factor = match unit.trim_start() {
            "" => 1,
            "K" => 1 << 10,
            "M" => 1 << 20,
            "G" => 1 << 30,
            _ => return None,
        };
        NonZeroU64::new(number.checked_mul(factor)?)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl serde::Serialize for Quantity {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => to.serialize_u64(*number),
            Self::Text(text) => to.serialize_str(text),
        }
    }
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

fn unit_seconds(unit: &str) -> Option<u64> {
    match unit {
        "" | "s" | "sec" | "second" | "seconds" => Some(1),
        "m" | "min" | "minute" | "minutes" => Some(60),
        "h" | "hr" | "hour" | "hours" => Some(3600),
        "d" | "day" | "days" => Some(24 * 3600),
        _ => None,
    }
}

/// Formats a duration in the syntax that [`Quantity::duration`] parses.
pub(crate) fn format_duration(duration: Duration) -> String {
    let mut rest = duration.as_secs();
    let mut parts = Vec::new();
    for (unit, seconds) in [("d", 24 * 3600), ("h", 3600), ("min", 60), ("s", 1)] {
        if rest >= seconds {
            parts.push(format!("{}{unit}", rest / seconds));
            rest %= seconds;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Quantity {
        Quantity::Text(text.to_owned())
    }

    #[test]
    fn parses_durations_like_systemd() {
        for (written, seconds) in [
            ("90s", 90),
            ("90", 90),
            ("15min", 900),
            ("15 min", 900),
            ("1h 30min", 5400),
            ("1h30m", 5400),
            (" 2 hours ", 7200),
            ("1d", 86400),
        ] {
            assert_eq!(text(written).duration(), Some(Duration::from_secs(seconds)), "{written}");
        }
        assert_eq!(Quantity::Number(60).duration(), Some(Duration::from_secs(60)));
        for bad in ["", " ", "min", "1.5h", "-1h", "1week", "1h x", "99999999999999999999s"] {
            assert_eq!(text(bad).duration(), None, "{bad}");
        }
        assert_eq!(text(&format!("{}d", u64::MAX)).duration(), None);
    }

    #[test]
    fn parses_rates() {
        let bytes = |quantity: Quantity| quantity.bytes().map(NonZeroU64::get);
        assert_eq!(bytes(Quantity::Number(5000)), Some(5000));
        assert_eq!(bytes(text("500K")), Some(500 << 10));
        assert_eq!(bytes(text("2 M")), Some(2 << 20));
        assert_eq!(bytes(text("1G")), Some(1 << 30));
        for bad in ["", "0", "0K", "K", "1.5M", "1T", "1MB", "1m", "-1", "99999999999999G"] {
            assert_eq!(bytes(text(bad)), None, "{bad}");
        }
        assert_eq!(bytes(Quantity::Number(0)), None);
    }

    proptest! {
        #[test]
        fn parses_formatted_durations(seconds in 0_u64..10_000_000) {
            let duration = Duration::from_secs(seconds);
            prop_assert_eq!(text(&format_duration(duration)).duration(), Some(duration));
        }

        #[test]
        fn does_not_panic_on_any_text(written in "[0-9a-z .]{0,24}") {
            let _ = (text(&written).duration(), text(&written).bytes());
        }
    }
}
