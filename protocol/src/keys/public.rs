//! Public keys.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{DecodingKey, crypto};

use super::der;
use super::kind::KeyKind;
use super::parsed::{Half, KeyError, Parsed, UNNAMED, damaged};
use super::text::parse;
use crate::digest;

/// The number of digits in the id of a key without one. Few keys meet in one ring, and a ring refuses two different
/// keys with the same id.
const OWN_ID: usize = 8;

/// A public key and its id.
///
/// A key whose text has no id is *unnamed*. It is shown by the first eight digits of the SHA-256 of its DER; a token
/// does not name it, or may name it in any way.
#[derive(Clone)]
pub struct PublicKey {
    id: String,
    is_named: bool,
    kind: KeyKind,
    der: Vec<u8>,
    decoding: DecodingKey,
}

impl PublicKey {
    /// Returns the id, which a token names in `kid` unless the key is unnamed.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns whether the text of the key has an id.
    pub fn is_named(&self) -> bool {
        self.is_named
    }

    /// Returns the kind of the key.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Returns whether `signature`, in base64url, is a signature of `message` by this key.
    pub(crate) fn verify(&self, message: &[u8], signature: &str) -> bool {
        let verified = crypto::verify(signature, message, &self.decoding, self.kind.jwa());
        verified.unwrap_or(false)
    }

    pub(super) fn from_der(
        kind: KeyKind,
        id: Option<String>,
        der: Vec<u8>,
    ) -> Result<Self, KeyError> {
        let why = "the bytes are not a secure PKIX public key of its type";
        let shown = id.as_deref().unwrap_or(UNNAMED);
        let decoding = der::public(kind, &der).ok_or_else(|| damaged(shown, why))?;
        let is_named = id.is_some();
        let id = id.unwrap_or_else(|| digest::of_bytes(&der)[..OWN_ID].to_owned());
        Ok(Self { id, is_named, kind, der, decoding })
    }

    /// Returns whether both are the same key, under any id.
    pub(super) fn is_same_key(&self, other: &Self) -> bool {
        (self.kind, &self.der) == (other.kind, &other.der)
    }

    /// Names an unnamed key by the id that it is shown with.
    pub(super) fn with_own_id(self) -> Self {
        Self { is_named: true, ..self }
    }

    /// Returns the end of the text of the key: a colon and the id, or nothing.
    pub(super) fn id_suffix(&self) -> String {
        if self.is_named { format!(":{}", self.id) } else { String::new() }
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, &self.id, self.is_named, &self.der)
            == (other.kind, &other.id, other.is_named, &other.der)
    }
}

impl Eq for PublicKey {}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let Parsed { kind, der, id } = parse(text, Half::Public)?;
        Self::from_der(kind, id, der)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let der = STANDARD.encode(&self.der);
        write!(f, "{}public:{der}{}", self.kind.name(), self.id_suffix())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.kind.name(), self.id)
    }
}
