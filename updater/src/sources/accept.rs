//! Which Patterns a host accepts from a source, and which of them it keeps. Pure functions.

use protocol::claims::TimeError;
use protocol::pattern::{Command, Entry, Mode, Pattern};
use protocol::{Claims, Verified};

use super::kept::Kept;
use crate::audience;

/// A pulled token that is not accepted, although it is signed by a key of the source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The token has no time of issue.
    #[error("it has no \"iat\", so it cannot be told from an older one")]
    NoIat,
    /// The token is not valid now.
    #[error("it is not valid: {0}")]
    Time(#[from] TimeError),
    /// The token is older than one that was accepted.
    #[error("it was signed at {}, and the one that was accepted last at {}", protocol::date::format_utc(*.iat), protocol::date::format_utc(*.newest))]
    Older {
        /// The time of issue.
        iat: u64,
        /// The time of issue of the newest one.
        newest: u64,
    },
    /// The token is for other hosts.
    #[error("its audience (aud) is neither \"etchaos\" nor the name of this host")]
    Audience,
    /// The token is not a Pattern to keep.
    #[error("{0}")]
    Claims(&'static str),
}

/// Checks whether a pulled token may replace what is kept. `hostname` is the name of this host, and `now` the time
/// in Unix seconds. What is kept already is acceptable for as long as the source offers it.
///
/// # Errors
/// Fails with the reason.
pub fn acceptable(
    token: &str,
    claims: &Verified<Claims>,
    kept: &Kept,
    hostname: Option<&str>,
    now: u64,
) -> Result<(), Refusal> {
    if kept.pattern.current.as_ref().is_some_and(|current| current.token == token) {
        return Ok(());
    }
    let iat = claims.iat.ok_or(Refusal::NoIat)?;
    claims.check_time(now)?;
    if !audience::includes(&claims.aud, hostname) {
        return Err(Refusal::Audience);
    }
    if claims.etchaos_release.is_some() {
        return Err(Refusal::Claims("it is the manifest of a release and not a Pattern"));
    }
    if claims.etcha_pattern.is_none() {
        return Err(Refusal::Claims("it has no claim etchaPattern"));
    }
    if claims.etchaos_mode == Some(Mode::Check) {
        return Err(Refusal::Claims(
            "its claim etchaosMode asks for a check, which is only pushed",
        ));
    }
    // Two tokens of the same second cannot be put in order, so the second one counts as older. If nothing is in force, the
    // boot has lost the first one, or it was taken out of force, and this is the same one.
    let is_older = |newest| match kept.pattern.current {
        Some(_) => iat <= newest,
        None => iat < newest,
    };
    match kept.newest {
        Some(newest) if is_older(newest) => Err(Refusal::Older { iat, newest }),
        _ => Ok(()),
    }
}

/// Returns whether a pushed Pattern is kept, and compared with its successor.
///
/// It is kept if a Command describes a state: it has a `check` and a `change`, or a `remove`. An empty Pattern is
/// kept too, so that everything can be removed. Others, such as the commands that clients of Etcha send, are to
/// run once: `systemctl reboot` must not run after each boot, and must not remove what was pushed before.
pub fn is_kept(pattern: &Pattern) -> bool {
    let mut commands = Vec::new();
    collect(&pattern.run, &mut commands);
    let describes_state = |command: &&Command| {
        command.check.is_some() && command.change.is_some() || command.remove.is_some()
    };
    commands.is_empty() || commands.iter().any(describes_state)
}

fn collect<'a>(entries: &'a [Entry], commands: &mut Vec<&'a Command>) {
    for entry in entries {
        match entry {
            Entry::List(list) => collect(list, commands),
            Entry::Command(command) => {
                if command.commands.is_empty() {
                    commands.push(command);
                }
                collect(&command.commands, commands);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::pattern_of;
    use crate::sources::kept::{Accepted, Way};
    use proptest::prelude::*;
    use protocol::PrivateKey;
    use protocol::pattern::PatternFiles;
    use protocol::token::{sign, verify};
    use serde_json::{Map, json};

    const NOW: u64 = 1_800_000_000;

    fn claims(iat: u64) -> Claims {
        let pattern = Some(PatternFiles::from(&Pattern::default()));
        Claims { iat: Some(iat), etcha_pattern: pattern, ..Claims::default() }
    }

    /// Returns the result for a host with the name `h` that has accepted nothing yet.
    fn result(claims: &Claims) -> Result<(), Refusal> {
        let key = PrivateKey::generate();
        let token = sign(&key, claims).unwrap();
        let claims = verify(&token, &key.public().clone().into()).unwrap();
        acceptable(&token, &claims, &Kept::new("web"), Some("h"), NOW)
    }

    #[test]
    fn refuses_tokens_that_are_no_pattern_for_this_host() {
        assert_eq!(result(&claims(NOW)), Ok(()));
        for aud in ["etchaos", "h"] {
            let claims = Claims { aud: vec!["x".into(), aud.into()], ..claims(NOW) };
            assert_eq!(result(&claims), Ok(()), "{aud}");
        }
        for (claims, reason) in [
            (Claims { iat: None, ..claims(NOW) }, "no \"iat\""),
            (Claims { exp: Some(NOW - 100), ..claims(NOW - 200) }, "expired"),
            (claims(NOW + 100), "clock right"),
            (Claims { aud: vec!["x".into()], ..claims(NOW) }, "audience"),
            (Claims { etcha_pattern: None, ..claims(NOW) }, "no claim etchaPattern"),
            (Claims { etchaos_mode: Some(Mode::Check), ..claims(NOW) }, "only pushed"),
        ] {
            let error = result(&claims).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn what_is_kept_stays_acceptable_after_it_expired() {
        let key = PrivateKey::generate();
        let token = sign(&key, &Claims { exp: Some(NOW - 1000), ..claims(NOW - 2000) }).unwrap();
        let claims = verify(&token, &key.public().clone().into()).unwrap();
        let mut kept = Kept { newest: Some(NOW - 2000), ..Kept::new("web") };
        assert!(acceptable(&token, &claims, &kept, None, NOW).is_err());
        let from = Way::Pull;
        kept.pattern.replace(Some(Accepted {
            token: token.clone(),
            from,
            time: 1,
            vars: Map::new(),
        }));
        assert_eq!(acceptable(&token, &claims, &kept, None, NOW), Ok(()));
    }

    #[test]
    fn keeps_patterns_that_describe_a_state() {
        for (commands, expected) in [
            (json!([]), true),
            (json!([{"id": "a", "check": "c", "change": "d"}]), true),
            (
                json!([{"id": "a", "always": true, "change": "d"}, [{"id": "g", "commands": [{"id": "b", "check": "c", "change": "d"}]}]]),
                true,
            ),
            (json!([{"id": "a", "always": true, "change": "d", "remove": "e"}]), true),
            // What clients of Etcha send for a command.
            (json!([{"id": "etcha push", "always": true, "change": "reboot"}]), false),
            (json!([{"id": "a", "check": "c"}]), false),
            (
                json!([{"id": "a", "always": true, "change": "d"}, {"id": "b", "always": true, "change": "d"}]),
                false,
            ),
        ] {
            let pattern = pattern_of(commands.as_array().unwrap()).unwrap();
            assert_eq!(is_kept(&pattern), expected, "{commands}");
        }
    }

    proptest! {
        #[test]
        fn accepts_only_newer_tokens(
            iat in NOW - 50..NOW,
            newest in proptest::option::of(NOW - 50..NOW),
            has_current: bool,
        ) {
            let key = PrivateKey::generate();
            let token = sign(&key, &claims(iat)).unwrap();
            let claims = verify(&token, &key.public().clone().into()).unwrap();
            let mut kept = Kept { newest, ..Kept::new("web") };
            let other = Accepted { token: "x".into(), from: Way::Pull, time: 1, vars: Map::new() };
            kept.pattern.replace(has_current.then_some(other));
            let expected = newest.is_none_or(|newest| iat > newest || iat == newest && !has_current);
            let found = acceptable(&token, &claims, &kept, None, NOW);
            prop_assert_eq!(found.is_ok(), expected, "{:?}", found);
        }
    }
}
