//! Keys in PEM (RFC 7468).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::kind::KeyKind;
use super::openssh;
use super::parsed::{Half, KeyError, Parsed, UNNAMED, damaged};
use crate::excerpt::excerpt;

const BEGIN: &str = "-----BEGIN ";
pub(super) const END: &str = "-----END ";
const DASHES: &str = "-----";
/// How many bytes of a key contain the identifier of its algorithm.
const ALGORITHM_WITHIN: usize = 40;
/// The identifiers of algorithms in DER: id-Ed25519 (RFC 8410), prime256v1 (RFC 5480) and rsaEncryption
/// (RFC 8017).
const ALGORITHMS: [(KeyKind, &[u8]); 3] = [
    (KeyKind::Ed25519, &[0x06, 0x03, 0x2b, 0x65, 0x70]),
    (KeyKind::Ecp256, &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]),
    (KeyKind::Rsa2048, &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01]),
];

/// Returns whether the text is, or should be, PEM.
pub(super) fn is_pem(text: &str) -> bool {
    text.starts_with(BEGIN)
}

/// Reads a text that consists of one PEM block.
pub(super) fn parse(text: &str, half: Half) -> Result<Parsed, KeyError> {
    let (label, bytes) =
        decode(text).ok_or_else(|| damaged(UNNAMED, "it is not one complete block of PEM"))?;
    match (label, half) {
        ("PUBLIC KEY", Half::Public) | ("PRIVATE KEY", Half::Private) => {
            let bytes = bytes.ok_or_else(|| damaged(UNNAMED, "its PEM is not standard base64"))?;
            let kind = kind(&bytes).ok_or_else(|| {
                half.unexpected("PEM of a key that is neither Ed25519, ECDSA with P-256 nor RSA")
            })?;
            Ok(Parsed { kind, der: bytes, id: None })
        }
        ("OPENSSH PRIVATE KEY", Half::Private) => {
            openssh::parse_private(&bytes.unwrap_or_default())
        }
        _ => Err(half.unexpected(match label {
            "PUBLIC KEY" => "a public key in PEM".to_owned(),
            "PRIVATE KEY" | "OPENSSH PRIVATE KEY" => "a private key in PEM".to_owned(),
            "ENCRYPTED PRIVATE KEY" => "a private key that is encrypted with a password, which is not supported: \"openssl pkey -in FILE -out NEW\" writes it without one".to_owned(),
            "RSA PRIVATE KEY" | "EC PRIVATE KEY" | "EC PARAMETERS" => {
                "a private key in an old form of PEM: \"openssl pkey -in FILE -out NEW\" converts it".to_owned()
            }
            "RSA PUBLIC KEY" => {
                "a public key in an old form of PEM: \"openssl rsa -RSAPublicKey_in -in FILE -pubout\" converts it".to_owned()
            }
            "CERTIFICATE" => {
                "a certificate: \"openssl x509 -in FILE -pubkey -noout\" prints its public key".to_owned()
            }
            other => format!("PEM of another kind ({:?})", excerpt(other)),
        })),
    }
}

/// Returns the label of a block, and its bytes if it has nothing but base64: old forms have headers there. Returns
/// `None` if the text is not one block.
fn decode(text: &str) -> Option<(&str, Option<Vec<u8>>)> {
    let (label, rest) = text.strip_prefix(BEGIN)?.split_once(DASHES)?;
    let (body, end) = rest.split_once(END)?;
    let is_end = end.strip_suffix(DASHES) == Some(label);
    let base64: String = body.split_ascii_whitespace().collect();
    is_end.then(|| (label, STANDARD.decode(base64).ok()))
}

/// Returns the kind of a key by the identifier of its algorithm, which precedes the key in both PKIX and PKCS#8.
fn kind(der: &[u8]) -> Option<KeyKind> {
    let start = &der[..der.len().min(ALGORITHM_WITHIN)];
    let has = |id: &[u8]| start.windows(id.len()).any(|part| part == id);
    ALGORITHMS.into_iter().find(|(_, id)| has(id)).map(|(kind, _)| kind)
}
