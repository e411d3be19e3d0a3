//! When the host may reboot into a new release.

use std::fmt;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};

use super::quantity::{Quantity, span_text};

/// When the host may reboot into a new release, as it is written: a word, or a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RebootFragment {
    /// `now`
    Now,
    /// `idle`
    Idle,
    /// `never`
    Never,
    /// `{"window": …}`
    Window(WindowFragment),
}

/// A time in which the host may reboot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct WindowFragment {
    /// When it opens: a calendar expression of systemd.time(7), such as `Sat 02:00`.
    pub window: String,
    /// How long it stays open.
    pub duration: Quantity,
    /// Whether logged-in users and inhibitors keep it shut. Default: they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<bool>,
}

impl<'de> Deserialize<'de> for RebootFragment {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RebootFragment;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`now`, `idle`, `never` or an object with `window` and `duration`")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<RebootFragment, E> {
                match word {
                    "now" => Ok(RebootFragment::Now),
                    "idle" => Ok(RebootFragment::Idle),
                    "never" => Ok(RebootFragment::Never),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RebootFragment, A::Error> {
                WindowFragment::deserialize(MapAccessDeserializer::new(map))
                    .map(RebootFragment::Window)
            }
        }
        from.deserialize_any(Either)
    }
}

impl Serialize for RebootFragment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Now => to.serialize_str("now"),
            Self::Idle => to.serialize_str("idle"),
            Self::Never => to.serialize_str("never"),
            Self::Window(window) => window.serialize(to),
        }
    }
}

/// When the host may reboot into a new release.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Reboot {
    /// As soon as it is installed, whoever is logged in.
    Now,
    /// As soon as nobody is logged in and nobody holds an inhibitor against a shutdown.
    #[default]
    Idle,
    /// When somebody else reboots.
    Never,
    /// In a window.
    Window(Window),
}

/// A time in which the host may reboot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// When it opens, as systemd reads it.
    pub calendar: String,
    /// How long it stays open.
    pub duration: Duration,
    /// Whether logged-in users and inhibitors keep it shut.
    pub idle: bool,
}

impl Reboot {
    /// Whether logged-in users and inhibitors matter.
    pub fn is_idle_only(&self) -> bool {
        match self {
            Self::Now | Self::Never => false,
            Self::Idle => true,
            Self::Window(window) => window.idle,
        }
    }
}

impl Window {
    /// Long enough for a timer that is late to hit it, and for the host to shut down.
    const DURATION_MIN: Duration = Duration::from_secs(10 * 60);
    /// What is open for longer is always open.
    const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
    /// The longest expressions that make sense have half of this.
    const CALENDAR_MAX: usize = 256;

    /// What is wrong with a window is told without its values. Whether systemd can read the calendar
    /// expression is not asked here: see [`crate::reboot::opening`].
    pub(super) fn new(fragment: &WindowFragment) -> Result<Self, String> {
        let WindowFragment { window, duration, idle } = fragment;
        let calendar = window.trim();
        let is_plain = calendar.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        if calendar.is_empty() || calendar.len() > Self::CALENDAR_MAX || !is_plain {
            return Err("\"window\": expected a calendar expression of systemd.time(7), such as \"Sat 02:00\"".to_owned());
        }
        let range = Self::DURATION_MIN..=Self::DURATION_MAX;
        let duration = duration.span().filter(|span| range.contains(span));
        let duration =
            duration.ok_or("\"duration\": expected a span of 10min to 7d, such as \"2h\"")?;
        Ok(Self { calendar: calendar.to_owned(), duration, idle: idle.unwrap_or(true) })
    }
}

impl fmt::Display for Reboot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now => f.write_str("now"),
            Self::Idle => f.write_str("idle"),
            Self::Never => f.write_str("never"),
            Self::Window(Window { calendar, duration, idle }) => {
                let idle = if *idle { ", if idle" } else { "" };
                write!(f, "window {calendar}, open for {}{idle}", span_text(*duration))
            }
        }
    }
}
