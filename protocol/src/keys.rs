//! Keys, written as Etcha writes them: `ed25519public:BASE64-DER:KEYID`.
//!
//! The DER is PKIX `SubjectPublicKeyInfo` (RFC 5280) for public keys and PKCS#8 (RFC 5208) for
//! private ones, in standard base64. The key decides the algorithm of a signature, never the token.
//! A key that nobody can have made in good faith is refused: an Ed25519 point of small order or with
//! a second encoding, RSA of less than 2048 bits or with another exponent than 65537.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use sha2::{Digest, Sha256};

mod material;

/// Longest key string that is looked at: an RSA-2048 private key takes about 1.7 kB.
const TEXT_MAX: usize = 8 * 1024;
/// Longest key id.
const ID_MAX: usize = 64;

/// No key's base64 is shorter: the DER of an Ed25519 public key has 44 bytes, of a private one 48.
const MATERIAL_MIN: usize = 60;

/// A key string that is not a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not three parts with a known type in front.
    #[error(
        "not a key: expected <type>:<base64 DER>:<key id> with a type of {expected}, found {found}"
    )]
    Format {
        /// The types that were acceptable here.
        expected: &'static str,
        /// The type that was found, or what stood in its place. Never key material.
        found: String,
    },
    /// The middle part is not base64 or the bytes are not such a key.
    #[error("the key {id:?} is damaged: {why}")]
    Material {
        /// The key id, or what stands for one that may be key material.
        id: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two keys of one ring share an id but differ.
    #[error("two different keys have the id {0:?}")]
    DuplicateId(String),
}

/// What a key can do. One algorithm for each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// Ed25519, for `EdDSA` (RFC 8037). Signatures are deterministic.
    Ed25519,
    /// ECDSA on P-256, for `ES256` (RFC 7518). Signatures are random.
    Ecp256,
    /// RSA of 2048 bits or more, for `RS256` (RFC 7518). Signatures are deterministic.
    Rsa2048,
}

impl KeyKind {
    const PUBLIC: &str = "ed25519public, ecp256public or rsa2048public";
    const PRIVATE: &str = "ed25519private, ecp256private or rsa2048private";

    fn jwa(self) -> Algorithm {
        match self {
            Self::Ed25519 => Algorithm::EdDSA,
            Self::Ecp256 => Algorithm::ES256,
            Self::Rsa2048 => Algorithm::RS256,
        }
    }

    /// The JWS algorithm, as a header names it.
    pub fn algorithm(self) -> &'static str {
        match self {
            Self::Ed25519 => "EdDSA",
            Self::Ecp256 => "ES256",
            Self::Rsa2048 => "RS256",
        }
    }

    /// Whether signing the same bytes twice gives the same signature.
    pub fn is_deterministic(self) -> bool {
        self != Self::Ecp256
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Ecp256 => "ecp256",
            Self::Rsa2048 => "rsa2048",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Ed25519, Self::Ecp256, Self::Rsa2048].into_iter().find(|kind| kind.name() == name)
    }
}

/// A public key and its id.
#[derive(Clone)]
pub struct PublicKey {
    id: String,
    kind: KeyKind,
    der: Vec<u8>,
    decoding: DecodingKey,
}

impl PublicKey {
    /// The id that a token names in `kid`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The kind of key.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Whether `signature`, as a JWS has it, is this key's for `message`.
    pub(crate) fn has_signed(&self, message: &[u8], signature: &str) -> bool {
        let verified = crypto::verify(signature, message, &self.decoding, self.kind.jwa());
        verified.unwrap_or(false)
    }

    fn new(kind: KeyKind, id: String, der: Vec<u8>) -> Result<Self, KeyError> {
        let why = "the bytes are not a PKIX public key of its type that can be trusted";
        let decoding = material::public(kind, &der).ok_or_else(|| damaged(&id, why))?;
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
        let (kind, der, id) = parts(text, "public", KeyKind::PUBLIC)?;
        Self::new(kind, id, der)
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

/// A private key and its id. `Debug` shows the id alone; the text is had by [`PrivateKey::reveal`].
#[derive(Clone)]
pub struct PrivateKey {
    id: String,
    kind: KeyKind,
    der: Vec<u8>,
    public: PublicKey,
    encoding: EncodingKey,
}

impl PrivateKey {
    /// A new Ed25519 key from the operating system's randomness; its id is a digest of the public
    /// half.
    pub fn generate() -> Self {
        // Fails only where the operating system has no randomness, and then nothing can be signed.
        let pair = Ed25519KeyPair::generate().expect("the operating system gives random bytes");
        let der: Pkcs8V1Der<'_> = pair.as_der().expect("an Ed25519 key has a PKCS#8 form");
        let id: String = Sha256::digest(pair.public_key().as_ref())[..4]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        Self::new(KeyKind::Ed25519, id, der.as_ref().to_vec()).expect("a new key is a valid key")
    }

    /// The id that tokens signed with this key name in `kid`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The kind of key.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The public half, with the same id.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The key string, secret part and all: for writing a key file, never for a log.
    pub fn reveal(&self) -> String {
        format!("{}private:{}:{}", self.kind.name(), STANDARD.encode(&self.der), self.id)
    }

    /// Signs: the signature as a JWS has it. `None` where the system has no randomness.
    pub(crate) fn sign(&self, message: &[u8]) -> Option<String> {
        crypto::sign(message, &self.encoding, self.kind.jwa()).ok()
    }

    fn new(kind: KeyKind, id: String, der: Vec<u8>) -> Result<Self, KeyError> {
        let why = "the bytes are not a PKCS#8 private key of its type";
        let (encoding, public_der) =
            material::private(kind, &der).ok_or_else(|| damaged(&id, why))?;
        let public = PublicKey::new(kind, id.clone(), public_der)?;
        Ok(Self { id, kind, der, public, encoding })
    }
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (kind, der, id) = parts(text, "private", KeyKind::PRIVATE)?;
        Self::new(kind, id, der)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({} {})", self.kind.name(), self.id)
    }
}

/// The keys that somebody trusts, by id.
#[derive(Debug, Clone, Default)]
pub struct KeyRing(Vec<PublicKey>);

impl KeyRing {
    /// The key with this id.
    pub fn get(&self, id: &str) -> Option<&PublicKey> {
        self.0.iter().find(|key| key.id == id)
    }

    /// Adds a key. The same key twice is fine; another key with an id that is taken is not.
    pub fn add(&mut self, key: PublicKey) -> Result<(), KeyError> {
        match self.get(&key.id) {
            Some(known) if *known == key => Ok(()),
            Some(_) => Err(KeyError::DuplicateId(key.id)),
            None => {
                self.0.push(key);
                Ok(())
            }
        }
    }

    /// A text of one key a line; blank lines and lines that start with `#` are skipped.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        let mut ring = Self::default();
        for line in lines {
            ring.add(line.parse()?)?;
        }
        Ok(ring)
    }

    /// The ids, in the order they were added.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(PublicKey::id)
    }

    /// Whether nothing is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<PublicKey> for KeyRing {
    fn from(key: PublicKey) -> Self {
        Self(vec![key])
    }
}

/// Splits `<kind><half>:<base64>:<id>`.
fn parts(
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
            return Err(format("what looks like the path of a file"));
        }
        _ if !text.contains(':') => return Err(format("a text without a colon")),
        _ => {}
    }
    let mut fields = text.split(':');
    let (Some(name), Some(der), Some(id), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(format("another number of parts"));
    };
    let kind = name.strip_suffix(half).and_then(KeyKind::from_name).ok_or_else(|| {
        // The other half is the usual mistake; anything else may be a secret and is not shown.
        match name.strip_suffix("private").or(name.strip_suffix("public")) {
            Some(kind) if KeyKind::from_name(kind).is_some() => format(name),
            _ => format("an unknown type"),
        }
    })?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-@".contains(&b);
    if id.is_empty() || id.len() > ID_MAX || !id.bytes().all(plain) {
        return Err(format("an unusable key id (1 to 64 letters, digits and ._-@)"));
    }
    let der = STANDARD.decode(der).map_err(|_| damaged(id, "it is not standard base64"))?;
    Ok((kind, der, id.to_owned()))
}

/// A key whose bytes are no key. Who swaps the last two parts has the secret for an id.
fn damaged(id: &str, why: &'static str) -> KeyError {
    let id = if id.len() < MATERIAL_MIN { id } else { "(too long to be shown)" };
    KeyError::Material { id: id.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_round_trips_through_its_text() {
        let key = PrivateKey::generate();
        let again: PrivateKey = key.reveal().parse().unwrap();
        assert_eq!(again.public(), key.public());
        let public: PublicKey = key.public().to_string().parse().unwrap();
        assert_eq!(&public, key.public());
    }

    #[test]
    fn the_secret_half_is_never_shown() {
        let key = PrivateKey::generate();
        let secret = key.reveal().split(':').nth(1).unwrap().to_owned();
        assert!(!format!("{key:?}").contains(&secret));
        let error = key.reveal().parse::<PublicKey>().unwrap_err().to_string();
        assert!(error.contains("ed25519private"), "{error}");
        assert!(!error.contains(&secret), "{error}");
    }

    #[test]
    fn what_is_no_key_is_described_and_not_shown() {
        let found = |text: &str| {
            let public = text.parse::<PublicKey>().unwrap_err().to_string();
            let private = text.parse::<PrivateKey>().unwrap_err().to_string();
            for error in [&public, &private] {
                assert!(!error.contains("SECRET"), "{error}");
            }
            public.rsplit_once("found ").unwrap().1.to_owned()
        };
        assert_eq!(found(""), "nothing");
        assert_eq!(found(" \n"), "nothing");
        for path in ["/etc/keys/SECRET", "./SECRET", "~/SECRET", "../a:SECRET:b"] {
            assert_eq!(found(path), "what looks like the path of a file");
        }
        assert_eq!(found("SECRET"), "a text without a colon");
        assert_eq!(found("SECRET:SECRET"), "another number of parts");
        assert_eq!(found("SECRET:SECRET:SECRET"), "an unknown type");
    }

    #[test]
    fn a_secret_in_the_place_of_the_id_is_not_shown() {
        let secret = "MC4CAQAwBQYDK2VwBCIEIA".repeat(3)[..64].to_owned();
        for middle in ["0a1b2c3d", "key-1"] {
            let text = format!("ed25519private:{middle}:{secret}");
            let error = text.parse::<PrivateKey>().unwrap_err().to_string();
            assert!(error.contains("damaged") && !error.contains("MC4C"), "{error}");
        }
    }

    #[test]
    fn damaged_keys_are_refused() {
        let good = PrivateKey::generate().public().to_string();
        let (head, id) = good.rsplit_once(':').unwrap();
        for bad in [
            String::new(),
            "ed25519public".to_owned(),
            format!("{head}AAAA:{id}"),
            format!("{}:{id}", &head[..head.len() - 8]),
            format!("{good}:more"),
            good.replace("ed25519", "rsa2048"),
            format!("{head}:two words"),
        ] {
            assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_ring_refuses_two_keys_with_one_id() {
        let (a, b) = (PrivateKey::generate(), PrivateKey::generate());
        let lying = b.public().to_string().replace(b.id(), a.id());
        let text = format!("# trusted\n\n{}\n{}\n", a.public(), lying);
        assert_eq!(KeyRing::parse(&text).unwrap_err(), KeyError::DuplicateId(a.id().to_owned()));
    }
}
