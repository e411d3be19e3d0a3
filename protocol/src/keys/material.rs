//! The bytes of keys: which ones are keys.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair,
    VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{DecodingKey, EncodingKey};

use super::KeyKind;

/// The DER of an RSA key of 2048 bits with the exponent 65537; of a smaller one it is shorter.
const RSA_DER_MIN: usize = 294;
/// The exponent 65537 in DER, with which the DER of a public key ends. A smaller one has been the
/// way into verifiers that were not strict about the padding.
const RSA_EXPONENT: [u8; 5] = [2, 3, 1, 0, 1];

/// Reads a PKIX public key of this kind. `None`: it is not one, or not one that anybody should
/// trust.
pub(super) fn public(kind: KeyKind, der: &[u8]) -> Option<DecodingKey> {
    let algorithm: &'static dyn VerificationAlgorithm = match kind {
        KeyKind::Ed25519 => &ED25519,
        KeyKind::Ecp256 => &ECDSA_P256_SHA256_FIXED,
        KeyKind::Rsa2048 => &RSA_PKCS1_2048_8192_SHA256,
    };
    let key = ParsedPublicKey::new(algorithm, der).ok()?;
    // It reads other forms as well, a bare point say. A key has one text, so that two can be
    // compared.
    let is_canonical = public_der(&key)? == der;
    let is_sound = match kind {
        KeyKind::Ed25519 => der.last_chunk().is_some_and(is_sound_point),
        // Point on the curve and not at infinity: seen to by the reader above.
        KeyKind::Ecp256 => true,
        KeyKind::Rsa2048 => der.len() >= RSA_DER_MIN && der.ends_with(&RSA_EXPONENT),
    };
    if !is_canonical || !is_sound {
        return None;
    }
    let pem = pem("PUBLIC KEY", der);
    let decoding = match kind {
        KeyKind::Ed25519 => DecodingKey::from_ed_pem(&pem),
        KeyKind::Ecp256 => DecodingKey::from_ec_pem(&pem),
        KeyKind::Rsa2048 => DecodingKey::from_rsa_pem(&pem),
    };
    decoding.ok()
}

/// Whether 32 bytes are an Ed25519 public key that has one encoding (RFC 8032 section 5.1.3: y is
/// less than p) and is not of small order: under such a key one signature is good for many messages.
///
/// A y that belongs to no point of the curve is not told: no signature verifies with it.
fn is_sound_point(point: &[u8; 32]) -> bool {
    let mut y = *point;
    y.reverse();
    // The sign of x. Each of these y has a point of small order with either sign, where there are
    // two.
    y[0] &= 0x7f;
    // As big-endian bytes, numbers compare as they should.
    y < P && !SMALL_ORDER.contains(&y) && y != P_LESS_ONE
}

/// 2^255 - 19
const P: [u8; 32] = field_element(0xed);
/// -1, the y of the point of order 2.
const P_LESS_ONE: [u8; 32] = field_element(0xec);

const fn field_element(last: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = 0x7f;
    bytes[31] = last;
    bytes
}

/// The y of the points of order 4 (0), 1 (1) and 8 (the other two, which add up to p).
const SMALL_ORDER: [[u8; 32]; 4] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[31] = 1;
        one
    },
    [
        0x05, 0xfc, 0x53, 0x6d, 0x88, 0x02, 0x38, 0xb1, 0x39, 0x33, 0xc6, 0xd3, 0x05, 0xac, 0xdf,
        0xd5, 0xf0, 0x98, 0xef, 0xf2, 0x89, 0xf4, 0xc3, 0x45, 0xb0, 0x27, 0xb2, 0xc2, 0x8f, 0x95,
        0xe8, 0x26,
    ],
    [
        0x7a, 0x03, 0xac, 0x92, 0x77, 0xfd, 0xc7, 0x4e, 0xc6, 0xcc, 0x39, 0x2c, 0xfa, 0x53, 0x20,
        0x2a, 0x0f, 0x67, 0x10, 0x0d, 0x76, 0x0b, 0x3c, 0xba, 0x4f, 0xd8, 0x4d, 0x3d, 0x70, 0x6a,
        0x17, 0xc7,
    ],
];

/// Reads PKCS#8: what signs, and the public half as PKIX.
pub(super) fn private(kind: KeyKind, der: &[u8]) -> Option<(EncodingKey, Vec<u8>)> {
    let pem = pem("PRIVATE KEY", der);
    let (encoding, public) = match kind {
        KeyKind::Ed25519 => (
            EncodingKey::from_ed_pem(&pem),
            public_der(Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?.public_key()),
        ),
        KeyKind::Ecp256 => (
            EncodingKey::from_ec_pem(&pem),
            public_der(
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok()?.public_key(),
            ),
        ),
        KeyKind::Rsa2048 => (
            EncodingKey::from_rsa_pem(&pem),
            public_der(RsaKeyPair::from_pkcs8(der).ok()?.public_key()),
        ),
    };
    Some((encoding.ok()?, public?))
}

fn public_der(key: &impl AsDer<PublicKeyX509Der<'static>>) -> Option<Vec<u8>> {
    Some(key.as_der().ok()?.as_ref().to_vec())
}

/// RFC 7468. jsonwebtoken takes keys of every kind in this form alone: its `from_ed_der` wants raw
/// points, and differs from one backend to the next.
fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in STANDARD.encode(der).as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text.into_bytes()
}
