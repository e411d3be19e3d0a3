//! When the host may reboot into a new release.

use std::fmt;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};

use super::quantity::{Quantity, format_duration};

/// The `reboot` value as configured: a name, or a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RebootFragment {
    /// `now`
    Now,
    /// `idle`
    Idle,
    /// `never`
    Never,
    /// `{"window": …}`
    Window(WindowFragment),
}

/// A reboot window as configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(crate) struct WindowFragment {
    /// When the window opens: a calendar expression (systemd.time(7)), such as `Sat 02:00`.
    pub(super) window: String,
    /// How long the window stays open.
    pub(super) duration: Quantity,
    /// Whether the host reboots only if no user is logged in and no inhibitor is held. The default is
    /// `true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) idle: Option<bool>,
}

impl<'de> Deserialize<'de> for RebootFragment {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct NameOrWindow;
        impl<'de> Visitor<'de> for NameOrWindow {
            type Value = RebootFragment;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`now`, `idle`, `never` or an object with `window` and `duration`")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<RebootFragment, E> {
                match name {
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
        from.deserialize_any(NameOrWindow)
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
    /// As soon as the release is installed, regardless of users and inhibitors.
    Now,
    /// As soon as no user is logged in and no inhibitor blocks a shutdown.
    #[default]
    Idle,
    /// Never: only the operator reboots the host.
    Never,
    /// Within a window.
    Window(Window),
}

/// A period in which the host may reboot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// When the window opens: a calendar expression (systemd.time(7)).
    pub calendar: String,
    /// How long the window stays open.
    pub duration: Duration,
    /// Whether the host reboots only if no user is logged in and no inhibitor is held.
    pub idle: bool,
}

impl Reboot {
    /// Returns whether logged-in users and inhibitors delay the reboot.
    pub(crate) fn is_idle_only(&self) -> bool {
        match self {
            Self::Now | Self::Never => false,
            Self::Idle => true,
            Self::Window(window) => window.idle,
        }
    }
}

impl Window {
    /// The minimum duration. It leaves time for a timer that fires late, and for the host to shut down.
    const DURATION_MIN: Duration = Duration::from_secs(10 * 60);
    /// The maximum duration. A longer window would be open most of the time.
    const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
    /// The maximum length of a calendar expression, twice that of the longest useful ones.
    const CALENDAR_MAX: usize = 256;

    /// Validates a window. The error message does not contain values. The syntax of the calendar
    /// expression is not checked here, because only systemd can parse it: see
    /// [`crate::reboot::opening`].
    pub(super) fn new(fragment: &WindowFragment) -> Result<Self, String> {
        let WindowFragment { window, duration, idle } = fragment;
        let calendar = window.trim();
        let is_plain = calendar.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        if calendar.is_empty() || calendar.len() > Self::CALENDAR_MAX || !is_plain {
            return Err("\"window\": expected a calendar expression (systemd.time(7)), such as \"Sat 02:00\"".to_owned());
        }
        let range = Self::DURATION_MIN..=Self::DURATION_MAX;
        let duration = duration.duration().filter(|duration| range.contains(duration));
        let duration =
            duration.ok_or("\"duration\": expected a duration from 10min to 7d, such as \"2h\"")?;
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
                write!(f, "window {calendar}, open for {}{idle}", format_duration(*duration))
            }
        }
    }
}
