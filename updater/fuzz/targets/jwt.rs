//! Tokens. Only texts that were signed verify, and a signed header and claims have one reading only.
//!
//! The input is a token. If its first byte is 0, it is a header and claims separated by a line end,
//! which the target signs.

#![no_main]

use std::sync::LazyLock;

use fuzz::{RING, SIGNER, signed};
use libfuzzer_sys::fuzz_target;
use protocol::Claims;
use protocol::token::{sign, verify};
use serde_json::{Map, Value};

/// All tokens that were signed for this target.
static SIGNED: LazyLock<[String; 2]> = LazyLock::new(|| {
    [include_str!("../corpus/jwt/token"), include_str!("../corpus/jwt/push")].map(|token| {
        verify(token, &RING).expect("the token was signed with this key");
        token.to_owned()
    })
});

fuzz_target!(|data: &[u8]| {
    match data {
        [0, rest @ ..] => {
            let mut halves = rest.splitn(2, |byte| *byte == b'\n');
            let (header, claims) = (halves.next(), halves.next());
            check_signed(header.unwrap_or_default(), claims.unwrap_or_default());
        }
        _ => check_token(data),
    }
});

fn check_token(text: &[u8]) {
    let signed = &*SIGNED;
    let Ok(text) = str::from_utf8(text) else { return };
    if verify(text, &RING).is_ok() {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        assert!(signed.iter().any(|token| token == text), "accepted a forgery: {text}");
    }
}

fn check_signed(header: &[u8], claims: &[u8]) {
    let Ok(verified) = verify(&signed(header, claims), &RING) else { return };
    let members: Map<String, Value> = serde_json::from_slice(header).expect("verify has read it");
    assert_eq!(members["alg"], "EdDSA");
    // Without an id, the trusted keys are tried.
    assert!(members.get("kid").is_none_or(|kid| kid == "fuzz" || kid == ""));
    for member in ["crit", "b64", "jku", "jwk", "x5u", "x5c"] {
        assert!(!members.contains_key(member), "{member} was ignored");
    }
    let plain: Map<String, Value> = serde_json::from_slice(claims).expect("verify has read it");
    for (name, value) in [("exp", verified.exp), ("nbf", verified.nbf), ("iat", verified.iat)] {
        assert_eq!(plain.contains_key(name), value.is_some(), "{name} was ignored");
        assert_eq!(plain.get(name).and_then(Value::as_u64), value, "{name}");
    }
    // The variables are removed because fractions in them may change in the last digit.
    let again = Claims { etcha_run_vars: Map::new(), ..verified.into_inner() };
    let token = sign(&SIGNER, &again).expect("claims that were read can be signed");
    assert_eq!(*verify(&token, &RING).expect("the new token verifies"), again);
}
