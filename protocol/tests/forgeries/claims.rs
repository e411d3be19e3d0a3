//! Malformed and ambiguous claims, signed by a trusted key.

use protocol::claims::TimeError;
use protocol::token::{TokenError, verify};
use protocol::{Claims, Verified};

use crate::Signer;

impl Signer {
    fn verify(&self, claims: impl AsRef<[u8]>) -> Result<Verified<Claims>, TokenError> {
        verify(&self.token(claims), &self.ring)
    }
}

#[test]
fn accepts_valid_claims() {
    let signer = Signer::new();
    for good in [
        "{}",
        " {\n} ",
        r#"{"iat":0,"nbf":1,"exp":18446744073709551615}"#,
        r#"{"aud":"a"}"#,
        r#"{"aud":["a","b"]}"#,
        // RFC 7519 section 4: unknown claims are ignored.
        r#"{"x":null,"y":[{"a":1},{"a":1}],"z":-1.5e3}"#,
    ] {
        signer.verify(good).unwrap_or_else(|error| panic!("{error}: {good}"));
    }
}

#[test]
fn rejects_malformed_and_ambiguous_claims() {
    let signer = Signer::new();
    let deep =
        |open: &str, close: &str| format!(r#"{{"x":{}1{}}}"#, open.repeat(200), close.repeat(200));
    let bomb = format!(r#"{{"x":{}"#, "[".repeat(500_000));
    let (lists, objects) = (deep("[", "]"), deep(r#"{"a":"#, "}"));
    for bad in [
        // Duplicate names.
        r#"{"exp":1,"exp":2}"#,
        r#"{"exp":1,"\u0065xp":2}"#,
        r#"{"exp":1,"e\u0078\u0070":1}"#,
        r#"{"x":1,"x":1}"#,
        r#"{"aud":"a","aud":["a"]}"#,
        r#"{"etchaRunVars":{"a":1,"a":2}}"#,
        r#"{"etchaRunVars":{"x":[{"a":1,"\u0061":2}]}}"#,
        r#"{"etchaPattern":{"entrypoint":"a","files":{"a":"1","a":"2"}}}"#,
        r#"{"etchaosRelease":{"schema":2},"etchaosRelease":{"schema":2}}"#,
        r#"{"etchaosRelease":{"schema":2,"schema":1}}"#,
        r#"{"etchaosRelease":{"schema":2,"artifacts":[{"url":"a","url":"b"}]}}"#,
        // Numbers.
        r#"{"exp":1.5}"#,
        r#"{"exp":1e3}"#,
        r#"{"exp":1.0}"#,
        r#"{"exp":-1}"#,
        r#"{"exp":-0}"#,
        r#"{"exp":1e400}"#,
        r#"{"exp":-1e400}"#,
        r#"{"x":1e400}"#,
        r#"{"exp":18446744073709551616}"#,
        r#"{"exp":"1"}"#,
        r#"{"exp":true}"#,
        r#"{"exp":[1]}"#,
        r#"{"exp":0x10}"#,
        r#"{"exp":010}"#,
        r#"{"exp":Infinity}"#,
        r#"{"exp":NaN}"#,
        // A null must not mean "no expiry time" or "any audience".
        r#"{"exp":null}"#,
        r#"{"nbf":null}"#,
        r#"{"iat":null}"#,
        r#"{"jti":null}"#,
        r#"{"aud":null}"#,
        r#"{"aud":[null]}"#,
        r#"{"etchaosRelease":null}"#,
        // Shapes.
        r#"{"etchaosMode":{"check":null}}"#,
        r#"{"etchaPattern":["a",{}]}"#,
        "",
        " ",
        "null",
        "true",
        "5",
        "\"x\"",
        "[]",
        "[null,null]",
        "{",
        "{}}",
        "{} {}",
        "{}x",
        "{}\0",
        r#"{"iss":"\ud800"}"#,
        r#"{"x":"\ud800"}"#,
        "{\"iss\":\"a\nb\"}",
        "\u{feff}{}",
        &lists,
        &objects,
        &bomb,
    ] {
        let shown: String = bad.chars().take(80).collect();
        match signer.verify(bad) {
            Ok(_) => panic!("accepted: {shown}"),
            Err(error) => assert!(
                matches!(error, TokenError::Claims(_) | TokenError::Shape(_)),
                "{shown}: {error}"
            ),
        }
    }
    for bytes in
        [&b"{\"iss\":\"\xff\"}"[..], b"{\"x\":\"\xc0\xaf\"}", b"\xff\xfe{\0}\0", b"\x1f\x8b\x08"]
    {
        assert!(signer.verify(bytes).is_err(), "{bytes:02x?}");
    }
}

#[test]
fn reports_times_outside_the_validity() {
    let signer = Signer::new();
    let now = 1_800_000_000;
    let check = |claims: String| signer.verify(claims).unwrap().check_time(now);
    assert_eq!(check(format!(r#"{{"iat":{now},"nbf":{now},"exp":{}}}"#, now + 1)), Ok(()));
    for claim in ["iat", "nbf"] {
        for from in [now + 61, now + 86_400, u64::MAX] {
            let error = check(format!(r#"{{"{claim}":{from},"exp":{}}}"#, u64::MAX));
            assert!(matches!(error, Err(TimeError::NotYetValid { .. })), "{claim} {from}");
        }
    }
    for exp in [0, 1, now - 60] {
        assert!(matches!(check(format!(r#"{{"exp":{exp}}}"#)), Err(TimeError::Expired { .. })));
    }
}
