//! Spans of time and rates, as people write them.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A number, or a text that says one with its unit. What it means, its key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quantity {
    /// Without a unit.
    Number(u64),
    /// Most likely with one.
    Text(String),
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or a text")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
                Ok(Quantity::Number(number))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                Ok(Quantity::Text(text.to_owned()))
            }
        }
        from.deserialize_any(Either)
    }
}

impl Quantity {
    /// A span of time: seconds, or such as `90s`, `15min`, `1h 30min` (systemd.time(7), from seconds to
    /// days, whole numbers only).
    pub fn span(&self) -> Option<Duration> {
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

    /// Bytes, or such as `500K`, `2M`, `1G`, each 1024 of the one before.
    pub fn bytes(&self) -> Option<NonZeroU64> {
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

/// A span as [`Quantity::span`] reads it.
pub fn span_text(span: Duration) -> String {
    let mut rest = span.as_secs();
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
    fn spans_are_read_as_systemd_reads_them() {
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
            assert_eq!(text(written).span(), Some(Duration::from_secs(seconds)), "{written}");
        }
        assert_eq!(Quantity::Number(60).span(), Some(Duration::from_secs(60)));
        for bad in ["", " ", "min", "1.5h", "-1h", "1week", "1h x", "99999999999999999999s"] {
            assert_eq!(text(bad).span(), None, "{bad}");
        }
        assert_eq!(text(&format!("{}d", u64::MAX)).span(), None);
    }

    #[test]
    fn rates_are_read() {
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
        fn what_is_shown_is_read_again(seconds in 0_u64..10_000_000) {
            let span = Duration::from_secs(seconds);
            prop_assert_eq!(text(&span_text(span)).span(), Some(span));
        }

        #[test]
        fn no_text_panics(written in "[0-9a-z .]{0,24}") {
            let _ = (text(&written).span(), text(&written).bytes());
        }
    }
}
