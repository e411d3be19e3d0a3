//! The text form of keys: `<type>:<base64 DER>:<key id>`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::kind::KeyKind;

/// The maximum length of a key string. An RSA-2048 private key takes about 1.7 kB.
const TEXT_MAX: usize = 8 * 1024;
/// The maximum length of a key id.
const ID_MAX: usize = 64;
/// The minimum length of the base64 of a key. The DER of an Ed25519 public key has 44 bytes, that of a
/// private key 48.
const BASE64_MIN: usize = 60;

/// Why a text is not a valid key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text does not have three parts, or starts with an unknown type.
    #[error(
        "not a key: expected <type>:<base64 DER>:<key id> with a type of {expected}, found {found}"
    )]
    Format {
        /// The types that are accepted.
        expected: &'static str,
        /// The type that was found, or a description of the text. It never contains key material.
        found: String,
    },
    /// The middle part is not base64, or the bytes are not a valid key of the type.
    #[error("the key {id:?} is damaged: {why}")]
    Material {
        /// The key id, or a placeholder if the id may be key material.
        id: String,
        /// The problem.
        why: &'static str,
    },
    /// Two different keys of a ring have the same id.
    #[error("two different keys have the id {0:?}")]
    DuplicateId(String),
}

/// Splits `<kind><half>:<base64>:<id>` and decodes the base64.
pub(super) fn parse(
    text: &str,
    half: &str,
    expected: &'static str,
) -> Result<(KeyKind, Vec<u8>, String), KeyError> {
    let text = text.trim();
    let format = |found: &str| KeyError::Format { expected, found: found.to_owned() };
    match text {
        "" => return Err(format("nothing")),
        _ if text.len() > TEXT_MAX => return Err(format("a text that is too long")),
        _ if text.starts_with(['/', '~', '.']) => {
            return Err(format("a text that looks like a file path"));
        }
        _ if !text.contains(':') => return Err(format("a text without a colon")),
        _ => {}
    }
    let mut fields = text.split(':');
    let (Some(name), Some(der), Some(id), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(format("a different number of parts"));
    };
    let kind = name.strip_suffix(half).and_then(KeyKind::from_name).ok_or_else(|| {
        // A public key in place of a private one, or the reverse, is the usual mistake. Any other text may
        // be a secret and is not shown.
        match name.strip_suffix("private").or(name.strip_suffix("public")) {
            Some(kind) if KeyKind::from_name(kind).is_some() => format(name),
            _ => format("an unknown type"),
        }
    })?;
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-@".contains(&b);
    if id.is_empty() || id.len() > ID_MAX || !id.bytes().all(is_allowed) {
        return Err(format("an invalid key id (expected 1 to 64 letters, digits and ._-@)"));
    }
    let der = STANDARD.decode(der).map_err(|_| damaged(id, "it is not standard base64"))?;
    Ok((kind, der, id.to_owned()))
}

/// Returns the error for a key with invalid bytes. The id is not shown if it is long enough to be a
/// key, because the last two parts may have been swapped.
pub(super) fn damaged(id: &str, why: &'static str) -> KeyError {
    let id = if id.len() < BASE64_MIN { id } else { "(too long to be shown)" };
    KeyError::Material { id: id.to_owned(), why }
}
