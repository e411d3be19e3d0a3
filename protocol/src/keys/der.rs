//! The DER of keys: reading it, and rejecting insecure keys.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa;
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair,
    VerificationAlgorithm,
};
use jsonwebtoken::{DecodingKey, EncodingKey};

use super::kind::KeyKind;

/// The length of the DER of an RSA public key with 2048 bits and the exponent 65537. The DER of a
/// smaller key is shorter.
const RSA_DER_MIN: usize = 294;
/// The exponent 65537 in DER, which ends the DER of a public key. Smaller exponents have made forgeries
/// possible with verifiers that do not check the padding strictly.
const RSA_EXPONENT: [u8; 5] = [2, 3, 1, 0, 1];
/// The length of the PKCS#8 header in front of an `RSAPrivateKey` (RFC 8017) of 2048 to 8192 bits:
/// sequence, version, algorithm and octet string.
const RSA_PKCS8_HEADER: usize = 4 + 3 + 15 + 4;

/// Reads a PKIX public key. Returns `None` if it is not a key of this kind, not in canonical DER, or
/// not secure.
pub(super) fn public(kind: KeyKind, der: &[u8]) -> Option<DecodingKey> {
    let algorithm: &'static dyn VerificationAlgorithm = match kind {
        KeyKind::Ed25519 => &ED25519,
        KeyKind::Ecp256 => &ECDSA_P256_SHA256_FIXED,
        KeyKind::Rsa2048 => &RSA_PKCS1_2048_8192_SHA256,
    };
    let key = ParsedPublicKey::new(algorithm, der).ok()?;
    // The parser accepts other encodings as well, such as a bare point. A key must have only one
    // encoding, because keys are compared by their DER.
    if public_der(&key)? != der {
        return None;
    }
    // jsonwebtoken expects bare points for the curves, and PKCS#1 for RSA.
    match kind {
        KeyKind::Ed25519 => {
            let point = der.last_chunk().filter(|point| is_secure_point(point))?;
            Some(DecodingKey::from_ed_der(point))
        }
        // The parser rejects the point at infinity and points that are not on the curve.
        KeyKind::Ecp256 => Some(DecodingKey::from_ec_der(der.last_chunk::<65>()?)),
        KeyKind::Rsa2048 if der.len() >= RSA_DER_MIN && der.ends_with(&RSA_EXPONENT) => {
            Some(DecodingKey::from_rsa_der(rsa::PublicKey::from_der(der).ok()?.as_ref()))
        }
        KeyKind::Rsa2048 => None,
    }
}

/// Returns the PKIX of an RSA public key. Both numbers are big-endian and may have leading zeros.
pub(super) fn rsa_public(modulus: &[u8], exponent: &[u8]) -> Option<Vec<u8>> {
    let without_zeros = |number: &[u8]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        number[zeros..].to_vec()
    };
    let (n, e) = (without_zeros(modulus), without_zeros(exponent));
    public_der(&PublicKeyComponents { n, e })
}

/// Returns whether an Ed25519 public key is in canonical encoding (RFC 8032 section 5.1.3: y is less
/// than p) and not of small order. With a key of small order, one signature is valid for many
/// messages.
///
/// A y without a point on the curve is not detected. No signature verifies with such a key.
fn is_secure_point(point: &[u8; 32]) -> bool {
    let mut y = *point;
    y.reverse();
    // The top bit is the sign of x. Whether a point has small order does not depend on it.
    y[0] &= 0x7f;
    // Big-endian byte arrays compare like the numbers.
    y < P && !SMALL_ORDER.contains(&y) && y != P_LESS_ONE
}

/// 2^255 - 19
const P: [u8; 32] = field_element(0xed);
/// p - 1, the y of the point of order 2.
const P_LESS_ONE: [u8; 32] = field_element(0xec);

const fn field_element(last: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = 0x7f;
    bytes[31] = last;
    bytes
}

/// The y of the points of order 4 (0), of order 1 (1), and of order 8 (the other two, whose sum is p).
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

/// Reads a PKCS#8 private key. Returns the signing key and the PKIX DER of the public key.
pub(super) fn private(kind: KeyKind, der: &[u8]) -> Option<(EncodingKey, Vec<u8>)> {
    match kind {
        KeyKind::Ed25519 => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
            Some((EncodingKey::from_ed_der(der), public_der(pair.public_key())?))
        }
        KeyKind::Ecp256 => {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok()?;
            Some((EncodingKey::from_ec_der(der), public_der(pair.public_key())?))
        }
        KeyKind::Rsa2048 => {
            let pair = RsaKeyPair::from_pkcs8(der).ok()?;
            // jsonwebtoken expects PKCS#1. Encoding the key again removes any optional fields of
            // PKCS#8, so the header has a fixed length.
            let pkcs8: Pkcs8V1Der<'_> = pair.as_der().ok()?;
            let pkcs1 = pkcs8.as_ref().get(RSA_PKCS8_HEADER..)?;
            RsaKeyPair::from_der(pkcs1).ok()?;
            Some((EncodingKey::from_rsa_der(pkcs1), public_der(pair.public_key())?))
        }
    }
}

fn public_der(key: &impl AsDer<PublicKeyX509Der<'static>>) -> Option<Vec<u8>> {
    Some(key.as_der().ok()?.as_ref().to_vec())
}
