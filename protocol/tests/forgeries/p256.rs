//! ES256: ECDSA on P-256 (RFC 7518 section 3.4).

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING,
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
};
use protocol::{KeyRing, PublicKey};

use crate::{
    CLAIMS, assert_accepted, assert_signatures_rejected, der, difference, flipped_bits, header,
    key_text, message, sum, tlv, trusted, with_signature, wrong_lengths,
};

/// The order of the group.
const N: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
    0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
/// The prime of the field.
const P: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
];

struct Fixture {
    pkcs8: Vec<u8>,
    public: Vec<u8>,
    ring: KeyRing,
    message: String,
    /// r and s.
    signature: Vec<u8>,
}

fn sign(algorithm: &'static EcdsaSigningAlgorithm, pkcs8: &[u8], message: &[u8]) -> Vec<u8> {
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8).unwrap();
    pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
}

pub(crate) fn pkcs8(algorithm: &'static EcdsaSigningAlgorithm) -> Vec<u8> {
    EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap().as_ref().to_vec()
}

fn fixture() -> Fixture {
    let pkcs8 = pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING);
    let (key, ring) = trusted("ecp256", &pkcs8, "ec");
    let message = message(header("ES256", "ec"), CLAIMS);
    let signature = sign(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, message.as_bytes());
    assert_accepted(&with_signature(&message, &signature), &ring);
    Fixture { pkcs8, public: der(&key.public().to_string()), ring, message, signature }
}

fn number(last: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[31] = last;
    bytes
}

#[test]
fn rejects_numbers_out_of_range() {
    let fixture = fixture();
    let (r, s) = fixture.signature.split_at(32);
    let n_less_one = difference(&N, &number(1));
    let n_more_one = sum(&N, &number(1));
    let numbers: [(&str, &[u8]); 8] = [
        ("0", &number(0)),
        ("1", &number(1)),
        ("n", &N),
        ("n - 1", &n_less_one),
        ("n + 1", &n_more_one),
        ("p", &P),
        ("2^256 - 1", &[0xff; 32]),
        ("valid", r),
    ];
    for (name, r) in numbers {
        for (other, s) in &numbers[..7] {
            let kind = format!("r = {name}, s = {other}");
            crate::assert_signature_rejected(
                &kind,
                &with_signature(&fixture.message, [r, s].concat()),
                &fixture.ring,
            );
        }
    }
    for (name, r) in &numbers[..7] {
        let kind = format!("r = {name}, s is valid");
        crate::assert_signature_rejected(
            &kind,
            &with_signature(&fixture.message, [r, s].concat()),
            &fixture.ring,
        );
    }
}

#[test]
fn rejects_forged_signatures() {
    let fixture = fixture();
    let (r, s) = fixture.signature.split_at(32);
    let both = |r: &[u8], s: &[u8]| [r, s].concat();
    let asn1 = sign(&ECDSA_P256_SHA256_ASN1_SIGNING, &fixture.pkcs8, fixture.message.as_bytes());
    let of = |text: &[u8]| sign(&ECDSA_P256_SHA256_FIXED_SIGNING, &fixture.pkcs8, text);
    let integer = |number: &[u8]| tlv(2, &[&[0][..], number].concat());
    let other = pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING);
    let p384 = pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING);
    assert_signatures_rejected(
        &fixture.message,
        &fixture.ring,
        [
            ("DER", asn1),
            ("DER of the valid signature", tlv(0x30, &both(&integer(r), &integer(s)))),
            ("r and s swapped", both(s, r)),
            ("-r", both(&difference(&N, r), s)),
            ("-r and -s", both(&difference(&N, r), &difference(&N, s))),
            ("a zero before each number", both(&both(&[0], r), &both(&[0], s))),
            ("as long as with P-384", both(&both(&[0; 16], r), &both(&[0; 16], s))),
            ("as long as with P-521", both(&both(&[0; 34], r), &both(&[0; 34], s))),
            ("of another message", of(b"x")),
            ("of the claims only", of(CLAIMS.as_bytes())),
            (
                "of another key",
                sign(&ECDSA_P256_SHA256_FIXED_SIGNING, &other, fixture.message.as_bytes()),
            ),
            (
                "of a P-384 key",
                sign(&ECDSA_P384_SHA384_FIXED_SIGNING, &p384, fixture.message.as_bytes()),
            ),
        ],
    );
    assert_signatures_rejected(&fixture.message, &fixture.ring, wrong_lengths(&fixture.signature));
    assert_signatures_rejected(&fixture.message, &fixture.ring, flipped_bits(&fixture.signature));
}

/// RFC 7518 does not require the smaller of s and n - s, and the signers of Go do not choose it. That is
/// safe here because a signature never serves as an identifier: releases are identified by their
/// claims, and pushes by the digest of what is signed.
#[test]
fn accepts_the_negated_s_with_the_same_claims() {
    let fixture = fixture();
    let (r, s) = fixture.signature.split_at(32);
    let second = with_signature(&fixture.message, [r, &difference(&N, s)].concat());
    assert_eq!(
        assert_accepted(&second, &fixture.ring),
        assert_accepted(&with_signature(&fixture.message, &fixture.signature), &fixture.ring)
    );
}

#[test]
fn rejects_invalid_points_as_keys() {
    let fixture = fixture();
    let is_rejected = |der: &[u8]| key_text("ecp256public", der, "x").parse::<PublicKey>().is_err();
    assert!(!is_rejected(&fixture.public));
    let (prefix, point) = fixture.public.split_at(fixture.public.len() - 65);
    let algorithm = &prefix[2..prefix.len() - 3];
    let with_point =
        |point: &[u8]| tlv(0x30, &[algorithm, &tlv(3, &[&[0][..], point].concat())].concat());
    assert_eq!(with_point(point), fixture.public);
    let mut off_curve = point.to_vec();
    off_curve[64] ^= 1;
    let compressed = [&[2 + (point[64] & 1)][..], &point[1..33]].concat();
    let hybrid = [&[6 + (point[64] & 1)][..], &point[1..]].concat();
    let p384 = pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING);
    let p384 = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &p384).unwrap();
    let p384: aws_lc_rs::encoding::PublicKeyX509Der<'_> =
        aws_lc_rs::signature::KeyPair::public_key(&p384).as_der().unwrap();
    for (kind, der) in [
        ("off the curve", with_point(&off_curve)),
        ("compressed", with_point(&compressed)),
        ("hybrid", with_point(&hybrid)),
        ("at infinity", with_point(&[0])),
        ("x and y of 0", with_point(&[&[4][..], &[0; 64]].concat())),
        ("x of p", with_point(&[&[4][..], &P, &point[33..]].concat())),
        ("a bare point", point.to_vec()),
        ("an extra byte", [&fixture.public[..], &[0]].concat()),
        ("a P-384 key", p384.as_ref().to_vec()),
    ] {
        assert!(is_rejected(&der), "{kind}");
    }
}
