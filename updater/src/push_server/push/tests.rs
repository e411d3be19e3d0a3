use super::*;
use protocol::PrivateKey;
use protocol::pattern::{Filter, Pattern, PatternFiles};
use protocol::token::sign;
use serde_json::json;
use tempfile::TempDir;

const NOW: u64 = 1_800_000_000;
/// The times of a host that has been up for a day.
const CLOCK: Clock = Clock { now: NOW, booted: NOW - 86_400 };

/// A key of OpenSSL, which is used only in tests.
const EC_PRIVATE: &str = "\
     ecp256private:MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgoobWJiAD/HXcf+MCRhIGWhsGdFd9\
     Jc0Mb74QWOxch7ShRANCAAQHUU5o/whoUWccm+LF8/UynvKBjvEoa/4n+gwz7qKx/EB1BHnh0Rzsh7y78/XtjyV8jN\
     ySf7oM59jeunwVIrWW:test";

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
        let sources = BTreeMap::from([("ci".to_owned(), ring.clone()), ("too".to_owned(), ring)]);
        Push::new(sources, self.runner(), accepted)
    }

    fn runner(&self) -> Runner {
        Runner::new(&crate::host::Host::new(self.run.path()), None, BTreeMap::new())
    }

    fn sign(&self, claims: &Claims) -> String {
        sign(&self.key, claims).unwrap()
    }

    fn push(&self, claims: &Claims, clock: Clock) -> Result<(StatusCode, String), PushError> {
        self.listener().run("ci", &self.sign(claims), &Query::default(), clock)
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

fn is_repeated(result: Result<(StatusCode, String), PushError>) -> bool {
    matches!(result, Err(PushError::Replay(ReplayError::Repeated)))
}

#[test]
fn runs_a_push_once() {
    let host = Host::new();
    let (listener, token) = (host.listener(), host.sign(&claims()));
    let (status, report) = listener.run("ci", &token, &Query::default(), CLOCK).unwrap();
    assert_eq!(status, 200);
    assert!(report.contains(r#""outcome":"changed","output":"done""#), "{report}");
    assert!(is_repeated(listener.run("ci", &token, &Query::default(), CLOCK)));
    assert!(
        is_repeated(listener.run("too", &token, &Query::default(), CLOCK)),
        "another source with the same key"
    );
    assert!(matches!(
        listener.run("cd", &token, &Query::default(), CLOCK),
        Err(PushError::Source(_))
    ));
    drop(listener);
    assert!(
        is_repeated(host.listener().run("ci", &token, &Query::default(), CLOCK)),
        "after a restart"
    );
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
    assert_eq!(PushError::Replay(ReplayError::Full).status(), 429);
}

fn verified(claims: &Claims) -> Verified<Claims> {
    let key = PrivateKey::generate();
    verify(&sign(&key, claims).unwrap(), &key.public().clone().into()).unwrap()
}

#[test]
fn a_push_waits_while_another_pattern_runs() {
    let host = Host::new();
    let (listener, token) = (host.listener(), host.sign(&claims()));
    let run = |listener: &Push| listener.run("ci", &token, &Query::default(), CLOCK);
    let impatient = Push { wait: Duration::ZERO, ..host.listener() };
    let turn = host.runner().turn().unwrap().unwrap();
    assert!(matches!(run(&impatient), Err(PushError::AnotherRuns)));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| run(&listener));
        sleep(2 * POLL_INTERVAL);
        assert!(!waiting.is_finished());
        drop(turn);
        // The token was not used up by the push that was refused.
        assert_eq!(waiting.join().unwrap().unwrap().0, 200);
    });
}

#[test]
fn a_long_validity_is_shortened() {
    let with_exp = |exp| Claims { exp: Some(exp), ..claims() };
    for exp in [NOW + VALIDITY_MAX + 1, NOW + 86_400, u64::MAX] {
        assert_eq!(acceptable(&verified(&with_exp(exp)), CLOCK).unwrap(), NOW + VALIDITY_MAX);
    }
    let late = Clock { now: NOW + VALIDITY_MAX + STORE_AFTER, ..CLOCK };
    let error = acceptable(&verified(&with_exp(NOW + 86_400)), late).unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
}

#[test]
fn a_query_only_restricts_what_the_token_allows() {
    let host = Host::new();
    let listener = host.listener();
    let push = |mode, check: bool, jti: &str| {
        let claims = Claims { etchaos_mode: mode, jti: Some(jti.into()), ..claims() };
        let query = Query { check, ..Query::default() };
        listener.run("ci", &host.sign(&claims), &query, CLOCK).unwrap().1
    };
    // An attacker on the network may remove or add the query.
    for (jti, mode, check) in [
        ("1", Some(Mode::Check), false),
        ("2", Some(Mode::Check), true),
        ("3", None, true),
        ("4", Some(Mode::Change), true),
    ] {
        let report = push(mode, check, jti);
        assert!(report.contains("needed") && !report.contains("done"), "{jti}: {report}");
        assert!(report.contains(r#""mode":"check""#), "{report}");
    }
    for (jti, mode) in [("5", None), ("6", Some(Mode::Change))] {
        let report = push(mode, false, jti);
        assert!(report.contains("done") && report.contains(r#""mode":"change""#), "{report}");
    }
    // A token is used up by a check as well: otherwise, whoever saw it could push it as a change.
    let token = host.sign(&Claims { jti: Some("7".into()), ..claims() });
    let check = Query { check: true, ..Query::default() };
    assert!(listener.run("ci", &token, &check, CLOCK).is_ok());
    assert!(is_repeated(listener.run("ci", &token, &Query::default(), CLOCK)));

    let filter = |text: &str, jti: &str| {
        let query = Query { filter: Some(Filter::new(text).unwrap()), ..Query::default() };
        let token = host.sign(&Claims { jti: Some(jti.into()), ..claims() });
        listener.run("ci", &token, &query, CLOCK).unwrap().1
    };
    assert!(filter("^ci$", "8").contains("done"));
    assert!(!filter("other", "9").contains("done"));
}

/// Etcha's client sends such tokens.
#[test]
fn accepts_tokens_without_exp_and_jti_for_five_minutes() {
    let host = Host::new();
    let fresh =
        |iat: u64| Claims { iat: Some(iat), nbf: Some(iat), exp: None, jti: None, ..claims() };
    let oldest = NOW - FRESH - 59;
    for iat in [NOW + AHEAD_MAX, NOW, NOW - FRESH, oldest] {
        host.push(&fresh(iat), CLOCK).unwrap();
        // It stays used up for as long as it is fresh.
        assert!(is_repeated(host.push(&fresh(iat), CLOCK)), "{iat}");
    }
    for iat in [NOW + AHEAD_MAX + 1, oldest - 1, 0] {
        assert!(host.push(&fresh(iat), CLOCK).is_err(), "{iat}");
    }
    let rebooted = Clock { now: NOW + 30, booted: NOW + 10 };
    assert!(matches!(host.push(&fresh(NOW), rebooted), Err(PushError::BeforeBoot)));
}

#[test]
fn a_token_is_known_by_what_is_signed() {
    // Etcha's client writes the same jti into each token of a Pattern.
    let host = Host::new();
    let at = |iat: u64| Claims { iat: Some(iat), jti: Some("id".into()), ..claims() };
    host.push(&at(NOW), CLOCK).unwrap();
    host.push(&at(NOW - 1), CLOCK).unwrap();
    assert!(is_repeated(host.push(&at(NOW), CLOCK)));
    // ECDSA gives another signature each time, and every signature has a second form that is valid too.
    let host = Host { key: EC_PRIVATE.parse().unwrap(), ..host };
    let (one, other) = (host.sign(&claims()), host.sign(&claims()));
    assert_ne!(one, other);
    let listener = host.listener();
    listener.run("ci", &one, &Query::default(), CLOCK).unwrap();
    assert!(is_repeated(listener.run("ci", &other, &Query::default(), CLOCK)));
    assert!(is_repeated(listener.run("ci", &format!("{one}\n"), &Query::default(), CLOCK)));
    // The key has another id, or none, in another source.
    let unnamed = EC_PRIVATE.rsplit_once(':').unwrap().0.parse::<PrivateKey>().unwrap();
    let ring: KeyRing = unnamed.public().clone().into();
    let accepted = ReplayGuard::open(host.run.path().join("pushed")).unwrap();
    let listener = Push::new([("unnamed".to_owned(), ring)].into(), host.runner(), accepted);
    assert!(is_repeated(listener.run("unnamed", &one, &Query::default(), CLOCK)));
}

#[test]
fn rejects_claims_that_are_not_for_a_push() {
    let host = Host::new();
    let changes: [fn(&mut Claims); 5] = [
        |c| c.iat = None,
        |c| (c.iat, c.exp) = (Some(NOW - 600), Some(NOW - 300)),
        |c| (c.iat, c.exp) = (Some(NOW + AHEAD_MAX + 1), Some(NOW + 60)),
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
