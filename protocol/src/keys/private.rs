//! Private keys.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{EncodingKey, crypto};

use super::der;
use super::kind::KeyKind;
use super::parsed::{Half, KeyError, Parsed, UNNAMED, damaged};
use super::public::PublicKey;
use super::text::parse;

/// A private key and its id; see [`PublicKey`] about keys without an id. `Debug` shows only the id;
/// [`PrivateKey::reveal`] returns the key string.
#[derive(Clone)]
pub struct PrivateKey {
    kind: KeyKind,
    der: Vec<u8>,
    public: PublicKey,
    encoding: EncodingKey,
}

impl PrivateKey {
    /// Generates an Ed25519 key. Its id is the one of the same key without an id.
    ///
    /// # Panics
    /// Panics if the operating system has no random bytes.
    pub fn generate() -> Self {
        let pair = Ed25519KeyPair::generate().expect("the operating system has random bytes");
        let der: Pkcs8V1Der<'_> = pair.as_der().expect("an Ed25519 key has a PKCS#8 form");
        let unnamed = Self::from_der(KeyKind::Ed25519, None, der.as_ref().to_vec());
        let unnamed = unnamed.expect("a new key is valid");
        let public = unnamed.public.with_own_id();
        Self { public, ..unnamed }
    }

    /// Returns the id, which tokens signed with this key name in `kid`, unless it is unnamed.
    pub fn id(&self) -> &str {
        self.public.id()
    }

    /// Returns the kind of the key.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Returns the public key, which has the same id.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Returns the key string, which contains the secret. Write it to key files only, never to logs.
    pub fn reveal(&self) -> String {
        let id = self.public.id_suffix();
        format!("{}private:{}{id}", self.kind.name(), STANDARD.encode(&self.der))
    }

    /// Signs `message` and returns the signature in base64url, or `None` if the system has no random
    /// bytes.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<String> {
        crypto::sign(message, &self.encoding, self.kind.jwa()).ok()
    }

    fn from_der(kind: KeyKind, id: Option<String>, der: Vec<u8>) -> Result<Self, KeyError> {
        let why = "the bytes are not a PKCS#8 private key of its type";
        let shown = id.as_deref().unwrap_or(UNNAMED);
        let (encoding, public_der) = der::private(kind, &der).ok_or_else(|| damaged(shown, why))?;
        let public = PublicKey::from_der(kind, id, public_der)?;
        Ok(Self { kind, der, public, encoding })
    }
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let Parsed { kind, der, id } = parse(text, Half::Private)?;
        Self::from_der(kind, id, der)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({} {})", self.kind.name(), self.id())
    }
}
