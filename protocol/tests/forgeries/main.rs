//! Forged tokens and keys of the kinds that the public test vectors for JWS, Ed25519, ECDSA and RSA
//! PKCS#1 v1.5 contain, made with generated keys. Each test also checks that the unchanged token is
//! accepted, so that the change must be the reason for a rejection.

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

/// The default claims of a token.
pub const CLAIMS: &str = r#"{"iss":"etchaos"}"#;

/// Encodes a part of a token.
pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Returns a valid header.
pub fn header(alg: &str, kid: &str) -> String {
    format!(r#"{{"typ":"JWT","alg":"{alg}","kid":"{kid}"}}"#)
}

/// Returns the text that is signed: the encoded header and claims.
pub fn message(header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
    format!("{}.{}", base64url(header), base64url(claims))
}

/// Returns a token.
pub fn with_signature(message: &str, signature: impl AsRef<[u8]>) -> String {
    format!("{message}.{}", base64url(signature))
}

/// Returns the DER in a key string.
pub fn der(key: &str) -> Vec<u8> {
    STANDARD.decode(key.split(':').nth(1).unwrap()).unwrap()
}

/// Returns a key string.
pub fn key_text(kind: &str, der: impl AsRef<[u8]>, id: &str) -> String {
    format!("{kind}:{}:{id}", STANDARD.encode(der))
}

/// Returns a key of this kind and a ring that contains it.
pub fn trusted(kind: &str, pkcs8: impl AsRef<[u8]>, id: &str) -> (PrivateKey, KeyRing) {
    let key: PrivateKey = key_text(&format!("{kind}private"), pkcs8, id).parse().unwrap();
    let ring = key.public().clone().into();
    (key, ring)
}

/// Signs claims with a trusted key.
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

/// Asserts that the token verifies and has the claims [`CLAIMS`].
#[track_caller]
pub fn assert_accepted(token: &str, ring: &KeyRing) -> Verified<Claims> {
    let claims = verify(token, ring).unwrap_or_else(|error| panic!("{error}: {token}"));
    assert_eq!(claims.iss.as_deref(), Some("etchaos"));
    claims
}

/// Asserts that the token is rejected and is not reported as signed by a trusted key.
#[track_caller]
pub fn assert_rejected(kind: &str, token: &str, ring: &KeyRing) -> TokenError {
    match verify(token, ring) {
        Ok(_) => panic!("accepted: {kind}: {token}"),
        Err(error) => {
            assert!(!error.has_valid_signature(), "{kind}: {error}");
            error
        }
    }
}

/// Asserts that the token is rejected because of its signature.
#[track_caller]
pub fn assert_signature_rejected(kind: &str, token: &str, ring: &KeyRing) {
    let error = assert_rejected(kind, token, ring);
    assert!(matches!(error, TokenError::Signature { .. }), "{kind}: {error}");
}

/// Asserts that the message is rejected with each of these named signatures.
#[track_caller]
pub fn assert_signatures_rejected<S: AsRef<[u8]>>(
    message: &str,
    ring: &KeyRing,
    forged: impl IntoIterator<Item = (&'static str, S)>,
) {
    for (kind, signature) in forged {
        match signature.as_ref() {
            // Without a signature the text does not have the form of a token.
            [] => _ = assert_rejected(kind, &with_signature(message, []), ring),
            some => assert_signature_rejected(kind, &with_signature(message, some), ring),
        }
    }
}

/// Returns signatures of wrong lengths.
pub fn wrong_lengths(valid: &[u8]) -> [(&'static str, Vec<u8>); 10] {
    let join = |before: &[u8], kept: &[u8], after: &[u8]| [before, kept, after].concat();
    [
        ("empty", Vec::new()),
        ("one byte", vec![0]),
        ("the first half", valid[..valid.len() / 2].to_vec()),
        ("without its last byte", valid[..valid.len() - 1].to_vec()),
        ("without its first byte", valid[1..].to_vec()),
        ("followed by a zero", join(&[], valid, &[0])),
        ("followed by garbage", join(&[], valid, &[0xaa; 4])),
        ("preceded by a zero", join(&[0], valid, &[])),
        ("preceded by garbage", join(&[0xaa; 4], valid, &[])),
        ("twice", join(valid, valid, &[])),
    ]
}

/// Returns the signatures that differ in one bit.
pub fn flipped_bits(valid: &[u8]) -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    (0..valid.len() * 8).map(|bit| {
        let mut bad = valid.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        ("one bit changed", bad)
    })
}

/// Returns `a + b` of big-endian numbers of the same length, without the final carry.
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

/// Returns `a - b` of big-endian numbers of the same length, without the final borrow.
pub fn difference(a: &[u8], b: &[u8]) -> Vec<u8> {
    let one = [vec![0; b.len() - 1], vec![1]].concat();
    let complement: Vec<u8> = b.iter().map(|byte| !byte).collect();
    sum(&sum(a, &complement), &one)
}

/// Returns a DER element.
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
