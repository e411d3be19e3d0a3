//! The claims of a JWT, and the manifest that they make.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::date::text;
use crate::json;
use crate::pattern::{Mode, PatternFiles};
use crate::release::{Release, ReleaseError};
use crate::token::Verified;

/// The time to judge a manifest by, in Unix seconds: what the clock says, but not before the running
/// image was built.
///
/// A machine whose battery is dead, or whose clock somebody has set back, would otherwise take a
/// manifest that expired long ago. `built` is a time that has passed for certain: the image that
/// holds this program could not be made before it. A clock that is ahead cannot be told; it makes
/// manifests expire early, which is an error that says so and harms nothing.
pub fn effective_time(clock: u64, built: u64) -> u64 {
    clock.max(built)
}

/// Clocks of hosts and CI may differ by this many seconds.
const LEEWAY: u64 = 60;

/// The claims that EtchaOS reads and writes: the registered ones of RFC 7519, Etcha's, and our own.
/// Times are Unix seconds. Claims that are not listed are ignored, as RFC 7519 section 4 demands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// Issuer.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub iss: Option<String>,
    /// Subject.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub sub: Option<String>,
    /// Audience; one string or a list of them.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// Issued at.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub iat: Option<u64>,
    /// Not before.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub nbf: Option<u64>,
    /// Expires at.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub exp: Option<u64>,
    /// An id that no other token has.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub jti: Option<String>,
    /// The version of the program that wrote the token.
    #[serde(
        rename = "etchaVersion",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub etcha_version: Option<String>,
    /// One `name version arch` a line: what the build put in.
    #[serde(
        rename = "etchaBuildManifest",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub etcha_build_manifest: Option<String>,
    /// A Pattern.
    #[serde(
        rename = "etchaPattern",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "json::object"
    )]
    pub etcha_pattern: Option<PatternFiles>,
    /// Variables of a Pattern's run.
    #[serde(rename = "etchaRunVars", skip_serializing_if = "Map::is_empty")]
    pub etcha_run_vars: Map<String, Value>,
    /// What a pushed Pattern may do; without it, everything. It is signed, so that nobody on the way
    /// can make a change of a check.
    #[serde(
        rename = "etchaosMode",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "mode"
    )]
    pub etchaos_mode: Option<Mode>,
    /// What the release is, if this is a manifest.
    #[serde(
        rename = "etchaosRelease",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "json::object"
    )]
    pub etchaos_release: Option<Release>,
}

/// A token that is not valid now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// `exp` has passed.
    #[error(
        "it expired at {}, and it is {}; if the clock is right, a newer one must be published",
        text(*exp),
        text(*now)
    )]
    Expired {
        /// When it expired.
        exp: u64,
        /// The time of the check.
        now: u64,
    },
    /// A manifest without `exp`.
    #[error(
        "it has no \"exp\": whoever serves it could keep hosts from updates for ever; sign it with an end"
    )]
    Endless,
    /// `nbf` or `iat` lies ahead.
    #[error("it is valid from {}, and it is {}; is the clock right?", text(*from), text(*now))]
    NotYet {
        /// When it begins.
        from: u64,
        /// The time of the check.
        now: u64,
    },
}

impl Claims {
    /// Whether the token is valid at `now` (Unix seconds), give or take a minute. A claim that is
    /// not there does not limit.
    pub fn check_time(&self, now: u64) -> Result<(), TimeError> {
        if let Some(exp) = self.exp
            && now >= exp.saturating_add(LEEWAY)
        {
            return Err(TimeError::Expired { exp, now });
        }
        match self.nbf.max(self.iat) {
            Some(from) if now.saturating_add(LEEWAY) < from => Err(TimeError::NotYet { from, now }),
            _ => Ok(()),
        }
    }
}

/// The claims of a release: a token with a valid `etchaosRelease`.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// What the release is; has passed [`Release::validate`].
    pub release: Release,
    /// All claims.
    pub claims: Claims,
}

impl Manifest {
    /// Whether a manifest that a CDN offers is valid at `now`: see [`effective_time`]. It must have
    /// an end. (The one inside a disk image has none, and none is asked for of what is installed.)
    pub fn check_time(&self, now: u64) -> Result<(), TimeError> {
        match self.claims.exp {
            None => Err(TimeError::Endless),
            Some(_) => self.claims.check_time(now),
        }
    }
}

/// A verified token that is not a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// There is no such claim.
    #[error("the token has no claim \"etchaosRelease\": it is not a manifest")]
    NotAManifest,
    /// The claim is there and wrong.
    #[error(transparent)]
    Release(#[from] ReleaseError),
}

impl TryFrom<Verified<Claims>> for Verified<Manifest> {
    type Error = ManifestError;

    fn try_from(token: Verified<Claims>) -> Result<Self, ManifestError> {
        token.try_map(|claims| {
            let release = claims.etchaos_release.clone().ok_or(ManifestError::NotAManifest)?;
            release.validate()?;
            Ok(Manifest { release, claims })
        })
    }
}

/// A claim that is there has a value: `null` is not "no limit".
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Mode>, D::Error> {
    json::word(deserializer).map(Some)
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
    fn times_are_checked_with_a_minute_of_leeway() {
        let claims =
            Claims { iat: Some(1000), nbf: Some(1100), exp: Some(2000), ..Claims::default() };
        assert!(matches!(claims.check_time(1000), Err(TimeError::NotYet { from: 1100, .. })));
        assert_eq!(claims.check_time(1040), Ok(()));
        assert_eq!(claims.check_time(2059), Ok(()));
        assert!(matches!(claims.check_time(2060), Err(TimeError::Expired { .. })));
        assert_eq!(Claims::default().check_time(0), Ok(()));
        assert_eq!(Claims { exp: Some(u64::MAX), ..claims }.check_time(u64::MAX - 70), Ok(()));
    }

    #[test]
    fn times_are_told_as_dates() {
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
    fn a_clock_behind_the_image_is_not_believed() {
        let (built, exp) = (1_763_600_000, 1_763_600_000 + 86_400);
        for (clock, expected) in [(0, built), (built - 1, built), (built, built), (exp, exp)] {
            assert_eq!(effective_time(clock, built), expected);
        }
        // A manifest that expired before the image was built is expired on a host without a clock.
        let stale = Claims { iat: Some(built - 200), exp: Some(built - 100), ..Claims::default() };
        assert_eq!(stale.check_time(built - 150), Ok(()));
        let judged = stale.check_time(effective_time(0, built));
        assert!(matches!(judged, Err(TimeError::Expired { .. })));
        // The newest is good on it, though its clock says that it lies ahead.
        let newest = Claims { iat: Some(built), exp: Some(exp), ..Claims::default() };
        assert!(matches!(newest.check_time(0), Err(TimeError::NotYet { .. })));
        assert_eq!(newest.check_time(effective_time(0, built)), Ok(()));
    }

    #[test]
    fn a_manifest_has_an_end() {
        let manifest = |exp| Manifest {
            release: crate::release::tests::example(),
            claims: Claims { exp, ..Claims::default() },
        };
        assert_eq!(manifest(Some(1000)).check_time(1000), Ok(()));
        assert!(matches!(manifest(Some(1000)).check_time(1060), Err(TimeError::Expired { .. })));
        assert_eq!(manifest(None).check_time(1000), Err(TimeError::Endless));
    }

    #[test]
    fn an_audience_may_be_one_or_many() {
        let one: Claims = serde_json::from_str(r#"{"aud": "a"}"#).unwrap();
        let many: Claims = serde_json::from_str(r#"{"aud": ["a", "b"]}"#).unwrap();
        assert_eq!((one.aud.len(), many.aud.len()), (1, 2));
    }
}
