//! Keys in the forms of OpenSSH: the line of a public key (RFC 4253 section 6.6), and a private key of Ed25519
//! without a password (OpenSSH's PROTOCOL.key).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::der;
use super::kind::KeyKind;
use super::parsed::{Half, KeyError, Parsed, UNNAMED, damaged};

const ED25519: &str = "ssh-ed25519";
const ECP256: &str = "ecdsa-sha2-nistp256";
const RSA: &str = "ssh-rsa";
/// What precedes the fields of a private key.
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// PKIX of Ed25519 (RFC 8410 section 4) up to the point.
const ED25519_PKIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];
/// PKCS#8 of Ed25519 (RFC 8410 section 7) up to the seed.
const ED25519_PKCS8: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// PKIX of P-256 (RFC 5480 section 2) up to the point.
const ECP256_PKIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Returns whether the text begins like a public key of OpenSSH.
pub(super) fn is_public(text: &str) -> bool {
    ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|start| text.starts_with(start))
}

/// Reads a line `<type> <base64> [<comment>]`. The comment is ignored: several keys of a person may have the same.
pub(super) fn parse_public(text: &str, half: Half) -> Result<Parsed, KeyError> {
    if half == Half::Private {
        return Err(half.unexpected("a public key of OpenSSH"));
    }
    let mut words = text.split_ascii_whitespace();
    let (name, blob) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let kind = match name {
        ED25519 => KeyKind::Ed25519,
        ECP256 => KeyKind::Ecp256,
        RSA => KeyKind::Rsa2048,
        _ => {
            let found =
                "a key of OpenSSH that is neither ssh-ed25519, ecdsa-sha2-nistp256 nor ssh-rsa";
            return Err(half.unexpected(found));
        }
    };
    let der = STANDARD.decode(blob).ok().and_then(|blob| public_der(name, kind, &blob));
    let der = der.ok_or_else(|| damaged(UNNAMED, "it is not a public key of its OpenSSH type"))?;
    Ok(Parsed { kind, der, id: None })
}

fn public_der(name: &str, kind: KeyKind, blob: &[u8]) -> Option<Vec<u8>> {
    let mut fields = Fields(blob);
    if fields.next()? != name.as_bytes() {
        return None;
    }
    let der = match kind {
        KeyKind::Ed25519 => [&ED25519_PKIX, fields.next()?].concat(),
        KeyKind::Ecp256 => {
            let is_p256 = fields.next()? == b"nistp256";
            is_p256.then_some([&ECP256_PKIX, fields.next()?].concat())?
        }
        KeyKind::Rsa2048 => {
            let (exponent, modulus) = (fields.next()?, fields.next()?);
            der::rsa_public(modulus, exponent)?
        }
    };
    fields.0.is_empty().then_some(der)
}

/// Reads the bytes in a block `OPENSSH PRIVATE KEY`. OpenSSH can write keys of other kinds in PEM, so only Ed25519
/// is read.
pub(super) fn parse_private(bytes: &[u8]) -> Result<Parsed, KeyError> {
    let found = private_fields(bytes);
    let half = Half::Private;
    match found.ok_or_else(|| damaged(UNNAMED, "it is not a private key of OpenSSH"))? {
        Private::Encrypted => Err(half.unexpected(
            "a private key of OpenSSH that is encrypted with a password, which is not supported: \"ssh-keygen -p -N '' -f COPY\" removes it from a copy",
        )),
        Private::OtherKind => Err(half.unexpected(
            "a private key of OpenSSH that is not ed25519: \"ssh-keygen -p -N '' -m PKCS8 -f COPY\" converts a copy",
        )),
        Private::Seed(seed) => {
            let der = [&ED25519_PKCS8[..], &seed].concat();
            Ok(Parsed { kind: KeyKind::Ed25519, der, id: None })
        }
    }
}

/// What a private key of OpenSSH contains.
enum Private {
    Encrypted,
    OtherKind,
    /// The private key of Ed25519 (RFC 8032 section 5.1.5).
    Seed([u8; 32]),
}

fn private_fields(bytes: &[u8]) -> Option<Private> {
    let mut fields = Fields(bytes.strip_prefix(MAGIC)?);
    let (cipher, kdf, _options) = (fields.next()?, fields.next()?, fields.next()?);
    if (cipher, kdf) != (&b"none"[..], &b"none"[..]) {
        return Some(Private::Encrypted);
    }
    // The number of keys, which is always 1, and the public key.
    if fields.number()? != 1 {
        return None;
    }
    let _public = fields.next()?;
    let mut private = Fields(fields.next()?);
    let _check = (private.number()?, private.number()?);
    if private.next()? != ED25519.as_bytes() {
        return Some(Private::OtherKind);
    }
    let (public, both) = (private.next()?, private.next()?);
    let (seed, rest) = both.split_first_chunk::<32>()?;
    (rest == public).then_some(Private::Seed(*seed))
}

/// Bytes that are read as fields (RFC 4251 section 5).
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Reads a `uint32`.
    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    /// Reads a `string`.
    fn next(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (field, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(field)
    }
}
