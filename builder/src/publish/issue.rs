//! Signs the manifest of a publication: build number and dates.

use anyhow::{Context, Result};
use jiff::Timestamp;
use protocol::{Claims, Release};
use serde_json::json;

use super::installation::with_installation;
use crate::signing::Signing;

/// The claim of Etcha's run variables that has the build number.
const BUILD_VARIABLE: &str = "etchaosBuild";

/// A manifest that was signed for a publication.
#[derive(Debug, Clone)]
pub(crate) struct Issued {
    /// The release, with its build number.
    pub release: Release,
    /// The token.
    pub text: String,
}

/// Signs a manifest for `release`, which gets the number `build`. The validity period and all other
/// claims are those of `template`, except for the Commands that install the release.
pub(crate) fn issue(
    release: Release,
    build: u64,
    template: &Claims,
    signing: &Signing,
    now: Timestamp,
) -> Result<Issued> {
    let release = Release { build, ..release };
    release.validate()?;
    let issued = u64::try_from(now.as_second()).context("the clock is before 1970")?;
    let validity = match (template.iat, template.exp) {
        (Some(from), Some(to)) => Some(to.saturating_sub(from)),
        _ => None,
    };
    let pattern = with_installation(template.etcha_pattern.as_ref(), &release)?;
    let mut claims = Claims {
        iat: Some(issued),
        nbf: Some(issued),
        exp: validity.map(|validity| issued.saturating_add(validity)),
        jti: Some(format!("{}-{build}", release.target())),
        etcha_pattern: Some(pattern),
        etchaos_release: Some(release.clone()),
        ..template.clone()
    };
    claims.etcha_run_vars.insert(BUILD_VARIABLE.into(), json!(build));
    let text = signing.sign(&claims)? + "\n";
    Ok(Issued { release, text })
}

/// Returns the build number of the next publication: the time in UTC, such as `20261123100000`; always
/// more than `newest`.
///
/// A publisher whose key was stolen starts with an empty destination, where no number is known. The time
/// is then still more than all numbers that hosts have seen.
pub(crate) fn next_build(newest: u64, now: Timestamp) -> u64 {
    let time: u64 = now.strftime("%Y%m%d%H%M%S").to_string().parse().unwrap_or_default();
    time.max(newest.saturating_add(1))
}

/// Returns whether less than half of a manifest's validity period is left.
///
/// Hosts refuse an expired manifest, and the next build may be a week away.
pub(crate) fn is_renewal_due(claims: &Claims, now: Timestamp) -> bool {
    let now = u64::try_from(now.as_second()).unwrap_or_default();
    match (claims.iat, claims.exp) {
        (Some(issued), Some(expires)) => now >= issued.midpoint(expires),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::tests::{release, signing};
    use protocol::token;

    #[test]
    fn build_number_is_the_time_and_increases() {
        let now = "2026-11-23T10:00:00Z".parse().unwrap();
        assert_eq!(next_build(0, now), 20_261_123_100_000);
        assert_eq!(next_build(2_026_112_301, now), 20_261_123_100_000);
        assert_eq!(next_build(20_261_123_100_000, now), 20_261_123_100_001);
        assert_eq!(next_build(20_300_101_000_000, now), 20_300_101_000_001);
    }

    #[test]
    fn renews_manifest_in_second_half_of_its_validity() {
        let claims = Claims { iat: Some(1000), exp: Some(2000), ..Claims::default() };
        let due =
            |claims: &Claims, now| is_renewal_due(claims, Timestamp::from_second(now).unwrap());
        assert!(!due(&claims, 1499));
        assert!(due(&claims, 1500));
        assert!(due(&claims, 3000), "an expired manifest is renewed too");
        assert!(!due(&Claims::default(), 3000), "a manifest without expiry needs no renewal");
    }

    #[test]
    fn keeps_the_validity_period_and_sets_build_and_dates() {
        let template = Claims { iat: Some(100), exp: Some(350), ..Claims::default() };
        let signing = signing();
        let now = Timestamp::from_second(9000).unwrap();
        let issued = issue(release("one"), 7, &template, &signing, now).unwrap();
        let claims = token::verify(&issued.text, &signing.ring().unwrap()).unwrap();
        assert_eq!((claims.iat, claims.nbf, claims.exp), (Some(9000), Some(9000), Some(9250)));
        assert_eq!(claims.jti.as_deref(), Some("deb_amd64-7"));
        assert_eq!(claims.etcha_run_vars[BUILD_VARIABLE], 7);
        assert_eq!(claims.etchaos_release.as_ref().unwrap().build, 7);
    }
}
