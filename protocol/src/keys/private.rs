//! Private keys.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{EncodingKey, crypto};

use super::der;
use super::kind::KeyKind;
use super::public::PublicKey;
use super::text::{KeyError, damaged, parse};
use crate::digest;

/// A private key and its id. `Debug` shows only the id; [`PrivateKey::reveal`] returns the key string.
#[derive(Clone)]
pub struct PrivateKey {
    id: String,
    kind: KeyKind,
    der: Vec<u8>,
    public: PublicKey,
    encoding: EncodingKey,
}

impl PrivateKey {
    /// Generates an Ed25519 key. Its id is the first eight digits of the SHA-256 of the public key.
    ///
    /// # Panics
    /// Panics if the operating system has no random bytes.
    pub fn generate() -> Self {
        let pair = Ed25519KeyPair::generate().expect("the operating system has random bytes");
        let der: Pkcs8V1Der<'_> = pair.as_der().expect("an Ed25519 key has a PKCS#8 form");
        let id = digest::of_bytes(pair.public_key().as_ref())[..8].to_owned();
        let der = der.as_ref().to_vec();
        Self::from_der(KeyKind::Ed25519, id, der).expect("a new key is valid")
    }

    /// Returns the id, which tokens signed with this key name in `kid`.
    pub fn id(&self) -> &str {
        &self.id
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
        format!("{}private:{}:{}", self.kind.name(), STANDARD.encode(&self.der), self.id)
    }

    /// Signs `message` and returns the signature in base64url, or `None` if the system has no random
    /// bytes.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<String> {
        crypto::sign(message, &self.encoding, self.kind.jwa()).ok()
    }

    fn from_der(kind: KeyKind, id: String, der: Vec<u8>) -> Result<Self, KeyError> {
        let why = "the bytes are not a PKCS#8 private key of its type";
        let (encoding, public_der) = der::private(kind, &der).ok_or_else(|| damaged(&id, why))?;
        let public = PublicKey::from_der(kind, id.clone(), public_der)?;
        Ok(Self { id, kind, der, public, encoding })
    }
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (kind, der, id) = parse(text, "private", KeyKind::PRIVATE)?;
        Self::from_der(kind, id, der)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({} {})", self.kind.name(), self.id)
    }
}
