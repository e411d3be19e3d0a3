//! Public keys.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{DecodingKey, crypto};

use super::der;
use super::kind::KeyKind;
use super::text::{KeyError, damaged, parse};

/// A public key and its id.
#[derive(Clone)]
pub struct PublicKey {
    id: String,
    kind: KeyKind,
    der: Vec<u8>,
    decoding: DecodingKey,
}

impl PublicKey {
    /// Returns the id, which a token names in `kid`.
    pub fn id(&self) -> &str {
        &self.id
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

    pub(super) fn from_der(kind: KeyKind, id: String, der: Vec<u8>) -> Result<Self, KeyError> {
        let why = "the bytes are not a secure PKIX public key of its type";
        let decoding = der::public(kind, &der).ok_or_else(|| damaged(&id, why))?;
        Ok(Self { id, kind, der, decoding })
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        (self.kind, &self.id, &self.der) == (other.kind, &other.id, &other.der)
    }
}

impl Eq for PublicKey {}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (kind, der, id) = parse(text, "public", KeyKind::PUBLIC)?;
        Self::from_der(kind, id, der)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}public:{}:{}", self.kind.name(), STANDARD.encode(&self.der), self.id)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.kind.name(), self.id)
    }
}
