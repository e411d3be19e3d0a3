//! What the text of a key contains, and why a text is no key.

use super::kind::KeyKind;

/// The minimum length of the base64 of a key. The DER of an Ed25519 public key has 44 bytes, that of a
/// private key 48.
const BASE64_MIN: usize = 60;
/// The id of a key in errors if the key has none.
pub(super) const UNNAMED: &str = "(no id)";

/// Why a text is not a valid key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text does not have the form of a key, or starts with an unknown type.
    #[error(
        "not a key: expected <type>:<base64 DER>:<key id> with a type of {expected}, or PEM, found {found}"
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

/// Whether a public or a private key is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    Public,
    Private,
}

/// A key whose bytes have not been checked.
pub(super) struct Parsed {
    /// The kind that the text names.
    pub kind: KeyKind,
    /// PKIX or PKCS#8.
    pub der: Vec<u8>,
    /// The id, if the text has one.
    pub id: Option<String>,
}

impl Half {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
        }
    }

    /// Returns the error for a text of another form. `found` never contains key material.
    pub(super) fn unexpected(self, found: impl Into<String>) -> KeyError {
        let expected = match self {
            Self::Public => KeyKind::PUBLIC,
            Self::Private => KeyKind::PRIVATE,
        };
        KeyError::Format { expected, found: found.into() }
    }
}

/// Returns the error for a key with invalid bytes. The id is not shown if it is long enough to be a
/// key, because the last two parts may have been swapped.
pub(super) fn damaged(id: &str, why: &'static str) -> KeyError {
    let id = if id.len() < BASE64_MIN { id } else { "(too long to be shown)" };
    KeyError::Material { id: id.to_owned(), why }
}
