use super::*;
use protocol::PrivateKey;
use protocol::pattern::{Pattern, PatternFiles};
use protocol::token::sign;
use serde_json::json;
use tempfile::TempDir;

const NOW: u64 = 1_800_000_000;
/// Up for a day.
const CLOCK: Clock = Clock { now: NOW, booted: NOW - 86_400 };

struct Host {
    run: TempDir,
    key: PrivateKey,
}

impl Host {
    fn new() -> Self {
        Self { run: tempfile::tempdir().unwrap(), key: PrivateKey::generate() }
    }

    /// A listener that was started now, with two names for one key.
    fn listener(&self) -> Push {
        let seen = Seen::open(self.run.path().join("pushed")).unwrap();
        let ring: KeyRing = self.key.public().clone().into();
        Push::new(BTreeMap::from([("ci".to_owned(), ring.clone()), ("too".to_owned(), ring)]), seen)
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

fn is_again(result: Result<String, PushError>) -> bool {
    matches!(result, Err(PushError::Seen(SeenError::Again)))
}

#[test]
fn a_push_runs_once() {
    let host = Host::new();
    let (listener, token) = (host.listener(), host.sign(&claims()));
    let report = listener.run("ci", &token, false, CLOCK).unwrap();
    assert!(report.contains(r#""outcome":"changed","output":"done\n""#), "{report}");
    assert!(is_again(listener.run("ci", &token, false, CLOCK)));
    assert!(is_again(listener.run("too", &token, false, CLOCK)), "another name for the same key");
    assert!(matches!(listener.run("cd", &token, false, CLOCK), Err(PushError::Source(_))));
    drop(listener);
    assert!(is_again(host.listener().run("ci", &token, false, CLOCK)), "after a restart");
}

#[test]
fn what_was_pushed_before_a_reboot_is_not_taken_after_it() {
    // Whatever the signer's clock said, within what is taken, and however short the reboot was.
    for skew in -3000..=20_i64 {
        let iat = NOW.checked_add_signed(skew).unwrap();
        let claims = Claims { iat: Some(iat), exp: Some(iat + 3600), ..claims() };
        let claims = verified(&claims);
        acceptable(&claims, CLOCK).unwrap();
        for (now, booted) in [(NOW + 1, NOW), (NOW + 300, NOW + 100), (NOW + 590, NOW + 550)] {
            let judged = acceptable(&claims, Clock { now, booted });
            assert!(matches!(judged, Err(PushError::BeforeBoot)), "{skew} {now}");
        }
    }
    // A new one is, as soon as it can be told apart.
    let clock = Clock { now: NOW, booted: NOW - AHEAD_MAX - 1 };
    assert!(acceptable(&verified(&claims()), clock).is_ok());
    assert_eq!(PushError::BeforeBoot.status(), 425);
}

fn verified(claims: &Claims) -> Verified<Claims> {
    let key = PrivateKey::generate();
    verify(&sign(&key, claims).unwrap(), &key.public().clone().into()).unwrap()
}

#[test]
fn a_push_that_came_at_a_bad_moment_may_come_again() {
    let host = Host::new();
    let (listener, token) = (host.listener(), host.sign(&claims()));
    let other = listener.alone().unwrap();
    assert!(matches!(listener.run("ci", &token, false, CLOCK), Err(PushError::Busy)));
    drop(other);
    assert!(listener.run("ci", &token, false, CLOCK).is_ok());
}

#[test]
fn whether_something_may_be_changed_is_signed() {
    let host = Host::new();
    let of = |mode, jti: &str| {
        host.sign(&Claims { etchaos_mode: mode, jti: Some(jti.into()), ..claims() })
    };
    let listener = host.listener();
    // Somebody on the way takes the query off, or puts it on.
    for (jti, asked) in [("1", false), ("2", true)] {
        let report = listener.run("ci", &of(Some(Mode::Check), jti), asked, CLOCK).unwrap();
        assert!(report.contains("failed") && !report.contains("done"), "{report}");
    }
    for (jti, mode) in [("3", None), ("4", Some(Mode::Change))] {
        let refused = listener.run("ci", &of(mode, jti), true, CLOCK);
        assert!(matches!(refused, Err(PushError::UnsignedCheck)));
        let report = listener.run("ci", &of(mode, jti), false, CLOCK).unwrap();
        assert!(report.contains("done"), "{report}");
    }
}

#[test]
fn claims_that_are_not_a_pushs_are_refused() {
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
        |c| c.aud = vec!["somebody.else".into()],
        |c| c.etcha_pattern = None,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut bad = claims();
        change(&mut bad);
        assert!(host.push(&bad, CLOCK).is_err(), "change {index}");
    }
    let ours = Claims { aud: vec!["x".into(), "etchaos".into()], ..claims() };
    assert!(host.push(&ours, CLOCK).is_ok());
}
