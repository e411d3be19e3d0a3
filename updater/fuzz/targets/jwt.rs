//! Tokens. A text that verifies is one that was signed, to the byte; and whatever was signed, header
//! and claims are read in one way only.
//!
//! The input is a token as it is; or, after a first byte of 0, a header and claims with a line end
//! between, which are signed here.

#![no_main]

use std::sync::LazyLock;

use fuzz::{RING, SIGNER, signed};
use libfuzzer_sys::fuzz_target;
use protocol::Claims;
use protocol::token::{sign, verify};
use serde_json::{Map, Value};

/// All that was ever signed for this target.
static SIGNED: LazyLock<[String; 2]> = LazyLock::new(|| {
    [include_str!("../corpus/jwt/token"), include_str!("../corpus/jwt/push")].map(|token| {
        verify(token, &RING).expect("it was signed with this key");
        token.to_owned()
    })
});

fuzz_target!(|data: &[u8]| {
    match data {
        [0, rest @ ..] => {
            let mut halves = rest.splitn(2, |byte| *byte == b'\n');
            let (header, claims) = (halves.next(), halves.next());
            read_in_one_way(header.unwrap_or_default(), claims.unwrap_or_default());
        }
        _ => only_what_was_signed(data),
    }
});

fn only_what_was_signed(text: &[u8]) {
    let signed = &*SIGNED;
    let Ok(text) = str::from_utf8(text) else { return };
    if verify(text, &RING).is_ok() {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        assert!(signed.iter().any(|token| token == text), "a forgery: {text}");
    }
}

fn read_in_one_way(header: &[u8], claims: &[u8]) {
    let Ok(verified) = verify(&signed(header, claims), &RING) else { return };
    let members: Map<String, Value> = serde_json::from_slice(header).expect("it was read");
    assert_eq!(members["alg"], "EdDSA");
    assert_eq!(members["kid"], "fuzz");
    for member in ["crit", "b64", "jku", "jwk", "x5u", "x5c"] {
        assert!(!members.contains_key(member), "{member} was overlooked");
    }
    let plain: Map<String, Value> = serde_json::from_slice(claims).expect("it was read");
    for (name, value) in [("exp", verified.exp), ("nbf", verified.nbf), ("iat", verified.iat)] {
        assert_eq!(plain.contains_key(name), value.is_some(), "{name} was overlooked");
        assert_eq!(plain.get(name).and_then(Value::as_u64), value, "{name}");
    }
    // Without the variables, which may hold fractions: those are read to the last digit but one.
    let again = Claims { etcha_run_vars: Map::new(), ..verified.into_inner() };
    let token = sign(&SIGNER, &again).expect("what was read can be written");
    assert_eq!(*verify(&token, &RING).expect("and read again"), again);
}
