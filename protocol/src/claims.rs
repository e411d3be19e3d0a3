//! The claims of a token, and the check of their times.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::date::format_utc;
use crate::json;
use crate::pattern::{Mode, PatternFiles};
use crate::release::Release;
use crate::shell::ShellClaim;

/// The tolerance, in seconds, for a difference between the clocks of the signer and the host.
const LEEWAY: u64 = 60;

/// Returns the time at which to check a manifest, in Unix seconds: the time of the clock, but not
/// before the epoch of the running image.
///
/// Without this lower bound, a machine with a dead battery or a clock that was set back would accept
/// a manifest that expired long ago. The image could not be built before its epoch, so that time has
/// certainly passed. A clock that is ahead cannot be detected; it makes manifests expire early, which
/// is reported as an error and does no harm.
pub fn effective_time(clock: u64, image_epoch: u64) -> u64 {
    clock.max(image_epoch)
}

/// The claims that EtchaOS reads and writes: the registered claims of RFC 7519, those of Etcha, and
/// those of EtchaOS. Times are Unix seconds. Other claims are ignored, as RFC 7519 section 4
/// requires.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// Issuer.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub iss: Option<String>,
    /// Subject.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub sub: Option<String>,
    /// Audience: one string or a list of strings.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// Time of issue.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub iat: Option<u64>,
    /// Start of validity.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub nbf: Option<u64>,
    /// Expiry time.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub exp: Option<u64>,
    /// Unique identifier of the token.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub jti: Option<String>,
    /// Version of the program that wrote the token.
    #[serde(
        rename = "etchaVersion",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub etcha_version: Option<String>,
    /// The packages of the build, one `name version arch` per line.
    #[serde(
        rename = "etchaBuildManifest",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub etcha_build_manifest: Option<String>,
    /// The Pattern.
    #[serde(
        rename = "etchaPattern",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "json::object"
    )]
    pub etcha_pattern: Option<PatternFiles>,
    /// Variables for the run of the Pattern.
    #[serde(
        rename = "etchaRunVars",
        skip_serializing_if = "Map::is_empty",
        deserialize_with = "null_is_empty"
    )]
    pub etcha_run_vars: Map<String, Value>,
    /// The mode in which to run a pushed Pattern; [`Mode::Change`] if it is absent. It is part of the
    /// signed claims because an attacker could otherwise turn a check into a change.
    #[serde(
        rename = "etchaosMode",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "mode"
    )]
    pub etchaos_mode: Option<Mode>,
    /// The connection that a shell is asked for on, if the token asks for one.
    #[serde(
        rename = "etchaosShell",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "json::object"
    )]
    pub etchaos_shell: Option<ShellClaim>,
    /// The release, if the token is a manifest.
    #[serde(
        rename = "etchaosRelease",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "json::object"
    )]
    pub etchaos_release: Option<Release>,
    /// The figures of the release, such as the time of its boot. They are no part of the release: hosts
    /// ignore them, and two manifests of the same release may have different ones.
    #[serde(rename = "etchaosFigures", skip_serializing_if = "Option::is_none")]
    pub etchaos_figures: Option<Value>,
}

/// Why a token is not valid at a given time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// `exp` has passed.
    #[error(
        "it expired at {}, and it is now {}; if the clock is right, publish a newer one",
        format_utc(*exp),
        format_utc(*now)
    )]
    Expired {
        /// The expiry time.
        exp: u64,
        /// The time of the check.
        now: u64,
    },
    /// The manifest has no `exp`.
    #[error(
        "it has no \"exp\": a CDN could serve it indefinitely and keep hosts from updating; sign it with an expiry time"
    )]
    NoExpiry,
    /// `nbf` or `iat` is in the future.
    #[error(
        "it is valid from {}, and it is now {}; is the clock right?",
        format_utc(*from),
        format_utc(*now)
    )]
    NotYetValid {
        /// The start of validity: the later of `nbf` and `iat`.
        from: u64,
        /// The time of the check.
        now: u64,
    },
}

impl Claims {
    /// Checks that the token is valid at `now`, in Unix seconds, with a tolerance of 60 seconds. An
    /// absent claim sets no limit.
    pub fn check_time(&self, now: u64) -> Result<(), TimeError> {
        if let Some(exp) = self.exp
            && now >= exp.saturating_add(LEEWAY)
        {
            return Err(TimeError::Expired { exp, now });
        }
        match self.nbf.max(self.iat) {
            Some(from) if now.saturating_add(LEEWAY) < from => {
                Err(TimeError::NotYetValid { from, now })
            }
            _ => Ok(()),
        }
    }
}

/// Reads the value of a claim. Rejects `null`, which would otherwise mean "no limit".
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// Reads an object. `null` is an empty one: a program in Go writes a map so that was never set.
fn null_is_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Map<String, Value>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Mode>, D::Error> {
    json::unit_variant(deserializer).map(Some)
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_times_with_a_leeway_of_one_minute() {
        let claims =
            Claims { iat: Some(1000), nbf: Some(1100), exp: Some(2000), ..Claims::default() };
        assert!(matches!(claims.check_time(1000), Err(TimeError::NotYetValid { from: 1100, .. })));
        assert_eq!(claims.check_time(1040), Ok(()));
        assert_eq!(claims.check_time(2059), Ok(()));
        assert!(matches!(claims.check_time(2060), Err(TimeError::Expired { .. })));
        assert_eq!(Claims::default().check_time(0), Ok(()));
        assert_eq!(Claims { exp: Some(u64::MAX), ..claims }.check_time(u64::MAX - 70), Ok(()));
    }

    #[test]
    fn time_errors_show_dates() {
        let claims = Claims { exp: Some(1_790_000_100), ..Claims::default() };
        let error = claims.check_time(1_795_416_967).unwrap_err().to_string();
        for part in ["2026-09-21 14:15:00 UTC", "2026-11-23 06:56:07 UTC", "clock is right"] {
            assert!(error.contains(part), "{error}");
        }
        let claims = Claims { nbf: Some(1_790_000_100), ..Claims::default() };
        let error = claims.check_time(0).unwrap_err().to_string();
        for part in ["2026-09-21 14:15:00 UTC", "1970-01-01 00:00:00 UTC", "is the clock right?"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_clock_behind_the_image_epoch_is_ignored() {
        let (epoch, exp) = (1_763_600_000, 1_763_600_000 + 86_400);
        for (clock, expected) in [(0, epoch), (epoch - 1, epoch), (epoch, epoch), (exp, exp)] {
            assert_eq!(effective_time(clock, epoch), expected);
        }
        // A manifest that expired before the image was built is rejected even if the clock is wrong.
        let stale = Claims { iat: Some(epoch - 200), exp: Some(epoch - 100), ..Claims::default() };
        assert_eq!(stale.check_time(epoch - 150), Ok(()));
        let checked = stale.check_time(effective_time(0, epoch));
        assert!(matches!(checked, Err(TimeError::Expired { .. })));
        // The newest manifest is accepted although it is in the future by the clock.
        let newest = Claims { iat: Some(epoch), exp: Some(exp), ..Claims::default() };
        assert!(matches!(newest.check_time(0), Err(TimeError::NotYetValid { .. })));
        assert_eq!(newest.check_time(effective_time(0, epoch)), Ok(()));
    }

    #[test]
    fn reads_an_audience_of_one_or_many() {
        let one: Claims = serde_json::from_str(r#"{"aud": "a"}"#).unwrap();
        let many: Claims = serde_json::from_str(r#"{"aud": ["a", "b"]}"#).unwrap();
        assert_eq!((one.aud.len(), many.aud.len()), (1, 2));
    }

    #[test]
    fn reads_absent_variables() {
        for json in [r#"{"etchaRunVars": null}"#, r#"{"etchaRunVars": {}}"#, "{}"] {
            assert_eq!(serde_json::from_str::<Claims>(json).unwrap(), Claims::default());
        }
        assert!(serde_json::from_str::<Claims>(r#"{"etchaRunVars": []}"#).is_err());
    }
}
