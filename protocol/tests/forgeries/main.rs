//! Every kind of forgery that the public test groups for JWS, Ed25519, ECDSA and RSA PKCS#1 v1.5
//! know, made here with keys of our own. Each table begins with what is good, so that a token is
//! never refused for another reason than the one it is in the table for.

mod claims;
mod ed25519;
mod header;
mod manifest;
mod p256;
mod rsa;
mod text;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use protocol::token::{TokenError, verify};
use protocol::{Claims, KeyRing, PrivateKey, Verified};

/// What a token of these tests says, unless it says something else.
pub const CLAIMS: &str = r#"{"iss":"etchaos"}"#;

/// As the parts of a token are written.
pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A header of ours.
pub fn header(alg: &str, kid: &str) -> String {
    format!(r#"{{"typ":"JWT","alg":"{alg}","kid":"{kid}"}}"#)
}

/// What is signed.
pub fn message(header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
    format!("{}.{}", base64url(header), base64url(claims))
}

/// A whole token.
pub fn with_signature(message: &str, signature: impl AsRef<[u8]>) -> String {
    format!("{message}.{}", base64url(signature))
}

/// The DER of a key string.
pub fn der(key: &str) -> Vec<u8> {
    STANDARD.decode(key.split(':').nth(1).unwrap()).unwrap()
}

/// A key string.
pub fn key_text(kind: &str, der: impl AsRef<[u8]>, id: &str) -> String {
    format!("{kind}:{}:{id}", STANDARD.encode(der))
}

/// A key of this kind and the ring that trusts it.
pub fn trusted(kind: &str, pkcs8: impl AsRef<[u8]>, id: &str) -> (PrivateKey, KeyRing) {
    let key: PrivateKey = key_text(&format!("{kind}private"), pkcs8, id).parse().unwrap();
    let ring = key.public().clone().into();
    (key, ring)
}

/// Signs claims with a key that is trusted.
struct Signer {
    key: Ed25519KeyPair,
    ring: KeyRing,
}

impl Signer {
    fn new() -> Self {
        let (key, ring) = trusted("ed25519", der(&PrivateKey::generate().reveal()), "k1");
        Self { key: Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der(&key.reveal())).unwrap(), ring }
    }

    fn token(&self, claims: impl AsRef<[u8]>) -> String {
        let message = message(header("EdDSA", "k1"), claims);
        with_signature(&message, self.key.sign(message.as_bytes()))
    }
}

/// It verifies, and says [`CLAIMS`].
#[track_caller]
pub fn accepted(token: &str, ring: &KeyRing) -> Verified<Claims> {
    let claims = verify(token, ring).unwrap_or_else(|error| panic!("{error}: {token}"));
    assert_eq!(claims.iss.as_deref(), Some("etchaos"));
    claims
}

/// It does not, and nobody that is trusted is said to have signed it.
#[track_caller]
pub fn refused(kind: &str, token: &str, ring: &KeyRing) -> TokenError {
    match verify(token, ring) {
        Ok(_) => panic!("accepted: {kind}: {token}"),
        Err(error) => {
            assert!(!error.has_valid_signature(), "{kind}: {error}");
            error
        }
    }
}

/// It is refused for its signature.
#[track_caller]
pub fn unsigned(kind: &str, token: &str, ring: &KeyRing) {
    let error = refused(kind, token, ring);
    assert!(matches!(error, TokenError::Signature { .. }), "{kind}: {error}");
}

/// Forged signatures of a message, each under its name.
#[track_caller]
pub fn none_verifies<S: AsRef<[u8]>>(
    message: &str,
    ring: &KeyRing,
    forged: impl IntoIterator<Item = (&'static str, S)>,
) {
    for (kind, signature) in forged {
        match signature.as_ref() {
            // Not even the shape of a token.
            [] => _ = refused(kind, &with_signature(message, []), ring),
            some => unsigned(kind, &with_signature(message, some), ring),
        }
    }
}

/// Signatures that are another length than they should be.
pub fn lengths(good: &[u8]) -> [(&'static str, Vec<u8>); 10] {
    let of = |before: &[u8], kept: &[u8], after: &[u8]| [before, kept, after].concat();
    [
        ("empty", Vec::new()),
        ("one byte", vec![0]),
        ("half of it", good[..good.len() / 2].to_vec()),
        ("without its last byte", good[..good.len() - 1].to_vec()),
        ("without its first byte", good[1..].to_vec()),
        ("with a zero after", of(&[], good, &[0])),
        ("with garbage after", of(&[], good, &[0xaa; 4])),
        ("with a zero before", of(&[0], good, &[])),
        ("with garbage before", of(&[0xaa; 4], good, &[])),
        ("twice", of(good, good, &[])),
    ]
}

/// Signatures with one bit changed.
pub fn flips(good: &[u8]) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    (0..good.len() * 8).map(|bit| {
        let mut bad = good.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        ("one bit changed", bad)
    })
}

/// `a + b` of big-endian numbers of one length, without the carry out of it.
pub fn sum(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut carry = 0;
    let digits = a.iter().zip(b).rev().map(|(a, b)| {
        let digit = u16::from(*a) + u16::from(*b) + carry;
        carry = digit >> 8;
        digit.to_le_bytes()[0]
    });
    let mut sum: Vec<u8> = digits.collect();
    sum.reverse();
    sum
}

/// `a - b`, the same way.
pub fn difference(a: &[u8], b: &[u8]) -> Vec<u8> {
    let one = [vec![0; b.len() - 1], vec![1]].concat();
    let complement: Vec<u8> = b.iter().map(|byte| !byte).collect();
    sum(&sum(a, &complement), &one)
}

/// A DER element.
pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut element = match length {
        0..0x80 => vec![tag, length as u8],
        0x80..0x100 => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    element.extend(content);
    element
}
