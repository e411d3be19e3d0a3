//! EdDSA with Ed25519 (RFC 8032, RFC 8037).

use aws_lc_rs::signature::Ed25519KeyPair;
use protocol::keys::KeyError;
use protocol::{KeyRing, PrivateKey, PublicKey};

use crate::{
    CLAIMS, assert_accepted, assert_signature_rejected, assert_signatures_rejected, der,
    flipped_bits, header, key_text, message, sum, with_signature, wrong_lengths,
};

/// The order of the base point, big-endian.
const L: [u8; 32] = [
    0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14, 0xde, 0xf9, 0xde, 0xa2, 0xf7, 0x9c,
    0xd6, 0x58, 0x12, 0x63, 0x1a, 0x5c, 0xf5, 0xd3, 0xed,
];
/// The y of a point of order 8, little-endian.
const ORDER_8: [u8; 32] = [
    0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
    0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
];
/// p minus the y above, which also has points of order 8.
const OTHER_ORDER_8: [u8; 32] = [
    0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
    0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
];

/// Returns p + `offset`, little-endian, which is a non-canonical encoding of `offset`.
fn p_plus(offset: i16) -> [u8; 32] {
    let mut y = [0xff; 32];
    y[0] = u8::try_from(0xed + offset).unwrap();
    y[31] = 0x7f;
    y
}

fn small(y: u8) -> [u8; 32] {
    let mut point = [0; 32];
    point[0] = y;
    point
}

/// Returns the points of small order, in every encoding that some library accepts.
fn small_order() -> Vec<[u8; 32]> {
    let y = [small(0), small(1), p_plus(-1), ORDER_8, OTHER_ORDER_8, p_plus(0), p_plus(1)];
    y.into_iter().flat_map(|y| [y, with_sign(y)]).collect()
}

fn with_sign(mut point: [u8; 32]) -> [u8; 32] {
    point[31] |= 0x80;
    point
}

fn public_key(point: &[u8]) -> Result<PublicKey, KeyError> {
    let prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    key_text("ed25519public", [&prefix[..], point].concat(), "ed").parse()
}

struct Fixture {
    pair: Ed25519KeyPair,
    ring: KeyRing,
    message: String,
    /// R and S.
    signature: Vec<u8>,
}

fn fixture() -> Fixture {
    let key = PrivateKey::generate();
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der(&key.reveal())).unwrap();
    let message = message(header("EdDSA", key.id()), CLAIMS);
    let signature = pair.sign(message.as_bytes()).as_ref().to_vec();
    let ring = key.public().clone().into();
    assert_accepted(&with_signature(&message, &signature), &ring);
    Fixture { pair, ring, message, signature }
}

/// Returns the signatures with `S + n * L` in place of S, for every n from 1 to 14.
fn add_multiples_of_order(signature: &[u8]) -> Vec<Vec<u8>> {
    let (r, s) = signature.split_at(32);
    let mut s: Vec<u8> = s.iter().rev().copied().collect();
    let mut changed = Vec::new();
    // S is less than L, and 15 * L is less than 2^256, so the sums fit into 32 bytes.
    for _ in 0..14 {
        s = sum(&s, &L);
        changed.push([r, &s.iter().rev().copied().collect::<Vec<u8>>()].concat());
    }
    changed
}

#[test]
fn rejects_signatures_with_a_multiple_of_the_order_added() {
    let fixture = fixture();
    let forged = add_multiples_of_order(&fixture.signature).into_iter().map(|s| ("S + n L", s));
    assert_signatures_rejected(&fixture.message, &fixture.ring, forged);
}

#[test]
fn rejects_forged_signatures() {
    let fixture = fixture();
    let (r, s) = fixture.signature.split_at(32);
    let both = |r: &[u8], s: &[u8]| [r, s].concat();
    let l: Vec<u8> = L.iter().rev().copied().collect();
    let mut l_less_one = l.clone();
    l_less_one[0] -= 1;
    let high_bits = |bits: u8| {
        let mut high = fixture.signature.clone();
        high[63] |= bits;
        high
    };
    assert_signatures_rejected(
        &fixture.message,
        &fixture.ring,
        [
            ("all zeros", vec![0; 64]),
            ("all ones", vec![0xff; 64]),
            ("R and S swapped", both(s, r)),
            ("S = 0", both(r, &[0; 32])),
            ("S = 1", both(r, &small(1))),
            ("S = L", both(r, &l)),
            ("S = L - 1", both(r, &l_less_one)),
            ("S = p", both(r, &p_plus(0))),
            ("S = p - 1", both(r, &p_plus(-1))),
            ("S with bit 253", high_bits(0x20)),
            ("S with bit 254", high_bits(0x40)),
            ("S with bit 255", high_bits(0x80)),
            ("R = 2, not on the curve", both(&small(2), s)),
            ("R with the other sign", both(&with_sign_flipped(r), s)),
            (
                "of the message without its first byte",
                fixture.pair.sign(&fixture.message.as_bytes()[1..]).as_ref().to_vec(),
            ),
            ("of the claims only", fixture.pair.sign(CLAIMS.as_bytes()).as_ref().to_vec()),
            (
                "of the message with a dot",
                fixture.pair.sign(format!("{}.", fixture.message).as_bytes()).as_ref().to_vec(),
            ),
        ],
    );
    assert_signatures_rejected(&fixture.message, &fixture.ring, wrong_lengths(&fixture.signature));
    assert_signatures_rejected(&fixture.message, &fixture.ring, flipped_bits(&fixture.signature));
}

fn with_sign_flipped(r: &[u8]) -> Vec<u8> {
    let mut flipped = r.to_vec();
    flipped[31] ^= 0x80;
    flipped
}

#[test]
fn rejects_an_r_of_small_order() {
    let fixture = fixture();
    let s = &fixture.signature[32..];
    for r in small_order() {
        let forged = [&[0; 32][..], s].map(|s| ("R of small order", [&r[..], s].concat()));
        assert_signatures_rejected(&fixture.message, &fixture.ring, forged);
    }
}

#[test]
fn rejects_a_signature_of_another_message() {
    let fixture = fixture();
    for claims in ["{}", r#"{"iss":"etchaoS"}"#, r#"{"iss":"etchaos" }"#] {
        let kid = fixture.ring.ids().next().unwrap();
        let other = message(header("EdDSA", kid), claims);
        assert_signature_rejected(
            "another message",
            &with_signature(&other, &fixture.signature),
            &fixture.ring,
        );
    }
}

/// With the neutral point as key, R = 1 and S = 0 would be a signature of every message.
#[test]
fn rejects_keys_of_small_order_or_in_non_canonical_encoding() {
    let valid = PrivateKey::generate().public().to_string();
    assert!(public_key(&der(&valid)[12..]).is_ok());
    for point in small_order() {
        assert!(public_key(&point).is_err(), "{point:02x?}");
    }
    // All numbers of 255 bits that are not less than p.
    for offset in 0..19 {
        let point = p_plus(offset);
        assert!(
            public_key(&point).is_err() && public_key(&with_sign(point)).is_err(),
            "p + {offset}"
        );
    }
    assert!(public_key(&[0xff; 32]).is_err());
}

#[test]
fn rejects_other_encodings_of_a_key() {
    let valid = der(&PrivateKey::generate().public().to_string());
    let point = &valid[12..];
    let is_rejected =
        |der: &[u8]| key_text("ed25519public", der, "x").parse::<PublicKey>().is_err();
    assert!(!is_rejected(&valid));
    let long_form = [&[0x30, 0x81, 0x2a][..], &valid[2..]].concat();
    let with_null = [
        &[0x30, 0x2c, 0x30, 0x07, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x05, 0x00, 0x03, 0x21, 0x00][..],
        point,
    ]
    .concat();
    let mut x25519 = valid.clone();
    x25519[8] = 0x6e;
    let extra_byte = [&valid[..], &[0]].concat();
    for (kind, der) in [
        ("a bare point", point),
        ("a length in long form", &long_form),
        ("parameters, which Ed25519 does not have", &with_null),
        ("an X25519 key", &x25519),
        ("an extra byte", &extra_byte),
        ("a missing byte", &valid[..valid.len() - 1]),
        ("nothing", &[]),
    ] {
        assert!(is_rejected(der), "{kind}");
    }
}
