//! RS256: RSA with PKCS#1 v1.5 padding and SHA-256 (RFC 7518 section 3.3, RFC 8017 section 8.2).

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use num_bigint::BigUint;
use protocol::{KeyRing, PublicKey};
use sha2::{Digest, Sha256};

use crate::{
    CLAIMS, assert_accepted, assert_signatures_rejected, header, key_text, message, sum, tlv,
    trusted, with_signature, wrong_lengths,
};

/// The length of a modulus of 2048 bits in bytes.
const SIZE: usize = 256;
/// The DER in front of a SHA-256 digest (RFC 8017 section 9.2, note 1).
const DIGEST_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

struct Fixture {
    pair: RsaKeyPair,
    ring: KeyRing,
    message: String,
    signature: Vec<u8>,
    /// The modulus and the private exponent.
    n: Vec<u8>,
    d: BigUint,
}

fn fixture() -> Fixture {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let pkcs8: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let (_, ring) = trusted("rsa2048", pkcs8.as_ref(), "rsa");
    let message = message(header("RS256", "rsa"), CLAIMS);
    let signature = sign(&pair, &RSA_PKCS1_SHA256, message.as_bytes());
    assert_accepted(&with_signature(&message, &signature), &ring);
    // PKCS#8 has a version, an algorithm and an octet string, which contains version, n, e, d and more.
    let key = elements(&elements(pkcs8.as_ref())[0])[2].clone();
    let numbers = elements(&elements(&key)[0]);
    let n = numbers[1][numbers[1].len() - SIZE..].to_vec();
    let d = BigUint::from_bytes_be(&numbers[3]);
    Fixture { pair, ring, message, signature, n, d }
}

/// Returns the contents of consecutive DER elements.
fn elements(mut der: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let [_, first, rest @ ..] = der {
        let (length, rest) = match first {
            0x82 => (usize::from(rest[0]) << 8 | usize::from(rest[1]), &rest[2..]),
            0x81 => (usize::from(rest[0]), &rest[1..]),
            short => (usize::from(*short), rest),
        };
        found.push(rest[..length].to_vec());
        der = &rest[length..];
    }
    found
}

fn sign(pair: &RsaKeyPair, padding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

impl Fixture {
    /// Returns the signature whose padded block is `block`. Only the owner of the key can make it.
    fn sign_block(&self, block: &[u8]) -> Vec<u8> {
        assert_eq!(block.len(), SIZE);
        let n = BigUint::from_bytes_be(&self.n);
        let power = BigUint::from_bytes_be(block).modpow(&self.d, &n).to_bytes_be();
        [vec![0; SIZE - power.len()], power].concat()
    }
}

/// Returns the block `00 01 ff … 00` followed by `content`.
fn padded(content: &[u8]) -> Vec<u8> {
    let ones = vec![0xff; SIZE - 3 - content.len()];
    [&[0, 1][..], &ones, &[0], content].concat()
}

#[test]
fn rejects_blocks_without_exact_padding() {
    let fixture = fixture();
    let digest = Sha256::digest(fixture.message.as_bytes()).to_vec();
    let info = [&DIGEST_INFO[..], &digest].concat();
    let block = padded(&info);
    assert_eq!(
        fixture.sign_block(&block),
        fixture.signature,
        "the block is that of the valid signature"
    );

    let algorithm = &DIGEST_INFO[4..15];
    let rebuilt = |algorithm: &[u8], digest: &[u8]| {
        padded(&tlv(0x30, &[tlv(0x30, algorithm), tlv(4, digest)].concat()))
    };
    let short = |ones: usize| {
        let head = [&[0, 1][..], &vec![0xff; ones], &[0], &info].concat();
        let garbage = vec![0xaa; SIZE - head.len()];
        [head, garbage].concat()
    };
    let changed = |at: usize, to: u8| {
        let mut changed = block.clone();
        changed[at] = to;
        changed
    };
    let long_length = {
        // The length takes two bytes where one is enough, which is BER but not DER.
        let inner = [tlv(0x30, &[algorithm, &[5, 0]].concat()), tlv(4, &digest)].concat();
        padded(&[&[0x30, 0x81, 0x31][..], &inner].concat())
    };
    let garbage_in_parameters = rebuilt(&[algorithm, &tlv(5, &[0xaa; 4])].concat(), &digest);
    let forged = [
        ("the digest without its algorithm", padded(&digest)),
        ("no NULL after the algorithm", rebuilt(algorithm, &digest)),
        ("garbage in the parameters", garbage_in_parameters),
        ("a long-form length", long_length),
        (
            "a digest with an extra byte",
            rebuilt(&[algorithm, &[5, 0]].concat(), &[&digest[..], &[0]].concat()),
        ),
        ("a digest with a missing byte", rebuilt(&[algorithm, &[5, 0]].concat(), &digest[1..])),
        ("no padding, followed by garbage", short(0)),
        ("eight bytes of padding, followed by garbage", short(8)),
        ("padding shorter by one byte, followed by garbage", short(SIZE - 4 - info.len())),
        ("garbage in the padding", changed(100, 0xfe)),
        ("a zero in the padding", changed(100, 0)),
        ("block type 0", changed(1, 0)),
        ("block type 2, which is for encryption", changed(1, 2)),
        ("no zero after the padding", changed(SIZE - info.len() - 1, 0xff)),
        ("another algorithm identifier", changed(SIZE - 32 - 6, 0x1a)),
        ("another digest", changed(SIZE - 1, !block[SIZE - 1])),
    ];
    let forged = forged.map(|(kind, block)| (kind, fixture.sign_block(&block)));
    assert_signatures_rejected(&fixture.message, &fixture.ring, forged);
}

#[test]
fn rejects_forged_signatures() {
    let fixture = fixture();
    let number = |last: u8| [vec![0; SIZE - 1], vec![last]].concat();
    let mut flipped = Vec::new();
    for bit in (0..SIZE * 8).step_by(37) {
        let mut bad = fixture.signature.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        flipped.push(("one bit changed", bad));
    }
    let increased = sum(&fixture.signature, &fixture.n);
    let wraps = increased < fixture.n;
    let with_carry = [&[u8::from(wraps)][..], &increased].concat();
    assert_signatures_rejected(
        &fixture.message,
        &fixture.ring,
        [
            ("0", number(0)),
            ("1", number(1)),
            ("2", number(2)),
            ("n", fixture.n.clone()),
            ("n - 1", crate::difference(&fixture.n, &number(1))),
            ("all ones", vec![0xff; SIZE]),
            ("-s", crate::difference(&fixture.n, &fixture.signature)),
            ("s + n", if wraps { with_carry } else { increased }),
            ("with SHA-384", sign(&fixture.pair, &RSA_PKCS1_SHA384, fixture.message.as_bytes())),
            ("with SHA-512", sign(&fixture.pair, &RSA_PKCS1_SHA512, fixture.message.as_bytes())),
            ("PSS", sign(&fixture.pair, &RSA_PSS_SHA256, fixture.message.as_bytes())),
            ("of another message", sign(&fixture.pair, &RSA_PKCS1_SHA256, b"x")),
            ("bytes reversed", fixture.signature.iter().rev().copied().collect()),
        ],
    );
    assert_signatures_rejected(&fixture.message, &fixture.ring, wrong_lengths(&fixture.signature));
    assert_signatures_rejected(&fixture.message, &fixture.ring, flipped);
}

#[test]
fn rejects_small_keys_and_other_exponents() {
    let fixture = fixture();
    let key = |n: &[u8], e: &[u8]| {
        let unsigned = |number: &[u8]| {
            tlv(2, &[if number[0] < 0x80 { &[] } else { &[0][..] }, number].concat())
        };
        let numbers = tlv(0x30, &[unsigned(n), unsigned(e)].concat());
        let algorithm = tlv(0x30, &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0]);
        (numbers.clone(), tlv(0x30, &[algorithm, tlv(3, &[&[0][..], &numbers].concat())].concat()))
    };
    let is_rejected =
        |der: &[u8]| key_text("rsa2048public", der, "x").parse::<PublicKey>().is_err();
    let (pkcs1, spki) = key(&fixture.n, &[1, 0, 1]);
    assert!(!is_rejected(&spki));
    let small = |bits: usize| key(&fixture.n[SIZE - bits / 8..], &[1, 0, 1]).1;
    let mut even = fixture.n.clone();
    even[SIZE - 1] &= 0xfe;
    for (kind, der) in [
        ("exponent 1", key(&fixture.n, &[1]).1),
        ("exponent 2", key(&fixture.n, &[2]).1),
        ("exponent 3", key(&fixture.n, &[3]).1),
        ("exponent 17", key(&fixture.n, &[17]).1),
        ("exponent 65536", key(&fixture.n, &[1, 0, 0]).1),
        ("exponent that ends like 65537", key(&fixture.n, &[2, 3, 1, 0, 1]).1),
        ("512 bits", small(512)),
        ("1024 bits", small(1024)),
        ("2040 bits", small(2040)),
        ("an even modulus", key(&even, &[1, 0, 1]).1),
        ("PKCS#1, not PKIX", pkcs1),
        ("an extra byte", [&spki[..], &[0]].concat()),
    ] {
        assert!(is_rejected(&der), "{kind}");
    }
}
