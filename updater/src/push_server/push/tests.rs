use super::*;
use protocol::PrivateKey;
use protocol::pattern::{Pattern, PatternFiles};
use protocol::token::sign;
use serde_json::json;
use tempfile::TempDir;

const NOW: u64 = 1_800_000_000;
/// The times of a host that has been up for a day.
const CLOCK: Clock = Clock { now: NOW, booted: NOW - 86_400 };

struct Host {
    run: TempDir,
    key: PrivateKey,
}

impl Host {
    fn new() -> Self {
        Self { run: tempfile::tempdir().unwrap(), key: PrivateKey::generate() }
    }

    /// Returns a new instance in which two sources have the same key.
    fn listener(&self) -> Push {
        let accepted = ReplayGuard::open(self.run.path().join("pushed")).unwrap();
        let ring: KeyRing = self.key.public().clone().into();
        Push::new(
            BTreeMap::from([("ci".to_owned(), ring.clone()), ("too".to_owned(), ring)]),
            Runner::new(&crate::host::Host::new(self.run.path()), None, BTreeMap::new()),
            accepted,
        )
    }

    fn sign(&self, claims: &Claims) -> String {
        sign(&self.key, claims).unwrap()
    }

    fn push(&self, claims: &Claims, clock: Clock) -> Result<String, PushError> {
        self.listener().run("ci", &self.sign(claims), false, clock)
    }
}

fn claims() -> Claims {
    let pattern: Pattern = serde_json::from_value(json!({
        "exec": {"command": "/bin/sh", "flags": "-c"},
        "run": [{"id": "x", "check": "false", "change": "echo done"}],
    }))
    .unwrap();
    Claims {
        iat: Some(NOW),
        exp: Some(NOW + 60),
        jti: Some("1".into()),
        etcha_pattern: Some(PatternFiles::from(&pattern)),
        ..Claims::default()
    }
}

fn is_repeated(result: Result<String, PushError>) -> bool {
    matches!(result, Err(PushError::Replay(ReplayError::Repeated)))
}

#[test]
fn runs_a_push_once() {
    let host = Host::new();
    let (listener, token) = (host.listener(), host.sign(&claims()));
    let report = listener.run("ci", &token, false, CLOCK).unwrap();
    assert!(report.contains(r#""outcome":"changed","output":"done""#), "{report}");
    assert!(is_repeated(listener.run("ci", &token, false, CLOCK)));
    assert!(
        is_repeated(listener.run("too", &token, false, CLOCK)),
        "another source with the same key"
    );
    assert!(matches!(listener.run("cd", &token, false, CLOCK), Err(PushError::Source(_))));
    drop(listener);
    assert!(is_repeated(host.listener().run("ci", &token, false, CLOCK)), "after a restart");
}

#[test]
fn rejects_pushes_from_before_the_reboot() {
    // This holds for every accepted skew of the signer's clock, even if the reboot was short.
    for skew in -3000..=20_i64 {
        let iat = NOW.checked_add_signed(skew).unwrap();
        let claims = Claims { iat: Some(iat), exp: Some(iat + 3600), ..claims() };
        let claims = verified(&claims);
        acceptable(&claims, CLOCK).unwrap();
        for (now, booted) in [(NOW + 1, NOW), (NOW + 300, NOW + 100), (NOW + 590, NOW + 550)] {
            let result = acceptable(&claims, Clock { now, booted });
            assert!(matches!(result, Err(PushError::BeforeBoot)), "{skew} {now}");
        }
    }
    // A token is accepted as soon as it cannot have been used before the reboot.
    let clock = Clock { now: NOW, booted: NOW - AHEAD_MAX - 1 };
    assert!(acceptable(&verified(&claims()), clock).is_ok());
    assert_eq!(PushError::BeforeBoot.status(), 425);
}

fn verified(claims: &Claims) -> Verified<Claims> {
    let key = PrivateKey::generate();
    verify(&sign(&key, claims).unwrap(), &key.public().clone().into()).unwrap()
}

#[test]
fn accepts_a_push_again_after_rejecting_it_while_another_ran() {
    let host = Host::new();
    let (listener, token) = (host.listener(), host.sign(&claims()));
    let other = listener.lock().unwrap();
    assert!(matches!(listener.run("ci", &token, false, CLOCK), Err(PushError::AnotherRuns)));
    drop(other);
    assert!(listener.run("ci", &token, false, CLOCK).is_ok());
}

#[test]
fn takes_the_mode_from_the_token() {
    let host = Host::new();
    let token = |mode, jti: &str| {
        host.sign(&Claims { etchaos_mode: mode, jti: Some(jti.into()), ..claims() })
    };
    let listener = host.listener();
    // An attacker on the network may remove or add the query.
    for (jti, check) in [("1", false), ("2", true)] {
        let report = listener.run("ci", &token(Some(Mode::Check), jti), check, CLOCK).unwrap();
        assert!(report.contains("needed") && !report.contains("done"), "{report}");
    }
    for (jti, mode) in [("3", None), ("4", Some(Mode::Change))] {
        let result = listener.run("ci", &token(mode, jti), true, CLOCK);
        assert!(matches!(result, Err(PushError::UnsignedCheck)));
        let report = listener.run("ci", &token(mode, jti), false, CLOCK).unwrap();
        assert!(report.contains("done"), "{report}");
    }
}

#[test]
fn rejects_claims_that_are_not_for_a_push() {
    let host = Host::new();
    let changes: [fn(&mut Claims); 10] = [
        |c| c.iat = None,
        |c| c.exp = None,
        |c| c.exp = Some(NOW + 3601),
        |c| c.exp = Some(u64::MAX),
        |c| (c.iat, c.exp) = (Some(NOW - 600), Some(NOW - 300)),
        |c| (c.iat, c.exp) = (Some(NOW + AHEAD_MAX + 1), Some(NOW + 60)),
        |c| c.jti = None,
        |c| c.jti = Some(String::new()),
        |c| c.aud = vec!["another.host".into()],
        |c| c.etcha_pattern = None,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut bad = claims();
        change(&mut bad);
        assert!(host.push(&bad, CLOCK).is_err(), "change {index}");
    }
    let with_audience = Claims { aud: vec!["x".into(), "etchaos".into()], ..claims() };
    assert!(host.push(&with_audience, CLOCK).is_ok());
}
