//! Compact JWS (RFC 7515): signing tokens, and verifying tokens from untrusted sources.
//!
//! The RFC allows a verifier to be stricter than it requires. This one accepts exactly one form of a
//! token:
//!
//! - `alg` must be the algorithm of the key (section 4.1.1).
//! - `kid` must be present and name a trusted key (4.1.4).
//! - `typ` must be `JWT` if it is present (4.1.9).
//! - `jku`, `jwk`, `x5u`, `x5c`, `x5t` and `x5t#S256` are rejected, because they carry a key or name
//!   one in another way (4.1.2, 4.1.3, 4.1.5 to 4.1.8).
//! - `crit` is rejected, because no extension is supported (4.1.11), and so is the extension `b64`
//!   (RFC 7797).
//! - Other header members are ignored (section 4).

use std::ops::Deref;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::claims::Claims;
use crate::excerpt::excerpt;
use crate::json;
use crate::keys::{KeyRing, PrivateKey, PublicKey};
use crate::manifest::{Manifest, ManifestError};
use crate::release::{ReleaseError, SCHEMA};

/// The maximum length of a token in bytes. A manifest of 300 packages takes about 60 kB.
pub const TOKEN_MAX: usize = 1 << 20;
/// The maximum length of an encoded header, which holds three short strings.
const HEADER_MAX: usize = 1024;
/// Header members that are rejected; see the documentation of this module.
const REJECTED: [&str; 8] = ["crit", "b64", "jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256"];

/// A value from a token whose signature is valid.
///
/// [`verify`] makes a `Verified<Claims>`, and `TryFrom` makes a `Verified<Manifest>` from it. There
/// is no other way to make one, so a function that takes a `Verified` cannot be called with a value
/// that was not verified:
///
/// ```compile_fail,E0451
/// use protocol::{Claims, Verified};
///
/// let forged = Verified { value: Claims::default(), key_id: String::new() };
/// ```
///
/// The value cannot be replaced either:
///
/// ```compile_fail,E0594
/// use protocol::{Claims, Verified};
///
/// fn extend(mut claims: Verified<Claims>) {
///     claims.exp = Some(u64::MAX);
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Verified<T> {
    value: T,
    key_id: String,
}

impl<T> Verified<T> {
    /// Returns the id of the key that signed the token.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Returns the value without the proof that it was verified.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl TryFrom<Verified<Claims>> for Verified<Manifest> {
    type Error = ManifestError;

    fn try_from(token: Verified<Claims>) -> Result<Self, ManifestError> {
        Ok(Self { value: token.value.try_into()?, key_id: token.key_id })
    }
}

/// Why a token cannot be used. [`TokenError::has_valid_signature`] tells whether it was signed by a
/// trusted key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The token is longer than [`TOKEN_MAX`].
    #[error("the token has {0} bytes, more than {TOKEN_MAX}")]
    TooLong(usize),
    /// The token is not of the form `header.claims.signature`.
    #[error(
        "not a JWT: expected three parts of base64url separated by dots, found {0}; is it truncated, or a file of another kind?"
    )]
    Shape(&'static str),
    /// The header has a wrong or missing member.
    #[error("the token's header is not acceptable: {0}")]
    Header(String),
    /// The token is signed with a key that is not trusted.
    #[error(
        "the token is signed with the key {kid:?}, which is not trusted here; trusted: {trusted}"
    )]
    UnknownKey {
        /// The key id in the token.
        kid: String,
        /// The ids of the trusted keys.
        trusted: String,
    },
    /// The algorithm in the header is not the algorithm of the key.
    #[error("the token has the algorithm {found:?}, but the key {kid:?} is for {expected:?}")]
    Algorithm {
        /// The id of the key.
        kid: String,
        /// The algorithm of the key.
        expected: String,
        /// The algorithm in the token.
        found: String,
    },
    /// The signature does not match.
    #[error(
        "the token's signature does not match: the token was changed, or signed with a key other than {kid:?}"
    )]
    Signature {
        /// The id of the key.
        kid: String,
    },
    /// The signature is valid, but the claims are not.
    #[error("the token's claims cannot be read: {0}")]
    Claims(String),
    /// The signature is valid, but the release has another schema.
    #[error(transparent)]
    Schema(ReleaseError),
}

impl TokenError {
    /// Returns whether the token was signed by a trusted key, so that only its content is unusable.
    pub fn has_valid_signature(&self) -> bool {
        match self {
            Self::Claims(_) | Self::Schema(_) => true,
            Self::TooLong(_)
            | Self::Shape(_)
            | Self::Header(_)
            | Self::UnknownKey { .. }
            | Self::Algorithm { .. }
            | Self::Signature { .. } => false,
        }
    }
}

/// The header members that are written, in this order, and read.
#[derive(Serialize)]
struct Header {
    typ: Option<String>,
    alg: String,
    kid: String,
}

/// Signs claims and returns the token in compact form, with the header `{typ, alg, kid}`.
///
/// # Errors
/// Fails if the token would be longer than [`TOKEN_MAX`], or if the system has no random bytes for
/// the signature.
pub fn sign(key: &PrivateKey, claims: &Claims) -> Result<String, TokenError> {
    let input = SigningInput::new(key.public(), claims)?;
    let signature = key.sign(input.as_bytes());
    let signature = signature.ok_or_else(|| TokenError::Claims("they cannot be signed".into()))?;
    input.join(&signature)
}

/// The bytes that a signature covers (RFC 7515 section 5.1), for signing outside of this program, such
/// as in an HSM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningInput {
    message: String,
    key: PublicKey,
}

impl SigningInput {
    /// Encodes claims for a signature by the private half of `key`.
    ///
    /// # Errors
    /// Fails if the claims cannot be written as JSON.
    pub fn new(key: &PublicKey, claims: &Claims) -> Result<Self, TokenError> {
        let header = Header {
            typ: Some("JWT".into()),
            alg: key.kind().algorithm().into(),
            kid: key.id().into(),
        };
        let message = format!("{}.{}", encode(&header)?, encode(claims)?);
        Ok(Self { message, key: key.clone() })
    }

    /// Returns the bytes to sign.
    pub fn as_bytes(&self) -> &[u8] {
        self.message.as_bytes()
    }

    /// Verifies a signature and returns the token in compact form.
    ///
    /// The signature is in the form of RFC 7518: 64 bytes for Ed25519 and P-256, the size of the
    /// modulus for RSA.
    ///
    /// # Errors
    /// Fails if the signature is not valid, or if the token would be longer than [`TOKEN_MAX`].
    pub fn attach(self, signature: &[u8]) -> Result<String, TokenError> {
        let signature = URL_SAFE_NO_PAD.encode(signature);
        if !self.key.verify(self.message.as_bytes(), &signature) {
            return Err(TokenError::Signature { kid: self.key.id().to_owned() });
        }
        self.join(&signature)
    }

    fn join(self, signature: &str) -> Result<String, TokenError> {
        let token = format!("{}.{signature}", self.message);
        match token.len() {
            length if length > TOKEN_MAX => Err(TokenError::TooLong(length)),
            _ => Ok(token),
        }
    }
}

/// The parts of a token as JSON objects. Nothing is known about their origin.
///
/// This is for programs that display a token. It is not a [`Claims`], so that no decision can be based
/// on it by mistake.
#[derive(Debug, Clone, PartialEq)]
pub struct Unverified {
    /// The header.
    pub header: Map<String, Value>,
    /// The claims.
    pub claims: Map<String, Value>,
}

/// Decodes a token without a check of its signature. Also reads tokens that [`verify`] refuses for
/// their header.
///
/// # Errors
/// Fails if the token is not of the form `header.claims.signature`, or if a part is not a JSON object.
pub fn decode_unverified(token: &str) -> Result<Unverified, TokenError> {
    if token.len() > TOKEN_MAX {
        return Err(TokenError::TooLong(token.len()));
    }
    let parts: Vec<&str> = token.trim_end().splitn(4, '.').collect();
    let [header, claims, _] = parts[..] else {
        return Err(TokenError::Shape("a different number of parts"));
    };
    let header = decode(header, "a header that is not base64url")?;
    let header =
        json::from_slice(&header).map_err(|error| TokenError::Header(error.to_string()))?;
    let claims = decode(claims, "claims that are not base64url")?;
    let claims =
        json::from_slice(&claims).map_err(|error| TokenError::Claims(error.to_string()))?;
    Ok(Unverified { header, claims })
}

fn encode(part: &impl Serialize) -> Result<String, TokenError> {
    let json = serde_json::to_vec(part).map_err(|error| TokenError::Claims(error.to_string()))?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

/// Verifies the signature of a token with the trusted keys and reads its claims.
///
/// One line end after the token is ignored, because files end with one. Times are not checked; see
/// [`Claims::check_time`].
///
/// # Errors
/// Fails if the token is malformed, is not signed by a trusted key, or has unreadable claims.
pub fn verify(token: &str, trusted: &KeyRing) -> Result<Verified<Claims>, TokenError> {
    if token.len() > TOKEN_MAX {
        return Err(TokenError::TooLong(token.len()));
    }
    let token = token.strip_suffix('\n').unwrap_or(token);
    let token = token.strip_suffix('\r').unwrap_or(token);
    let parts: Vec<&str> = token.splitn(4, '.').collect();
    let [header, claims, signature] = parts[..] else {
        return Err(TokenError::Shape("a different number of parts"));
    };
    if header.is_empty() || claims.is_empty() || signature.is_empty() {
        return Err(TokenError::Shape("an empty part"));
    }
    let Header { alg, kid, .. } = read_header(header)?;
    let key = trusted.get(&kid).ok_or_else(|| TokenError::UnknownKey {
        kid: excerpt(&kid),
        trusted: trusted.ids().collect::<Vec<_>>().join(", "),
    })?;
    let expected = key.kind().algorithm();
    if alg != expected {
        let (expected, found) = (expected.to_owned(), excerpt(&alg));
        return Err(TokenError::Algorithm { kid, expected, found });
    }
    // The signature is checked before the claims are read, so that no unsigned byte reaches the JSON
    // reader and problems with claims are only reported for tokens that a trusted key has signed.
    let message = &token[..header.len() + 1 + claims.len()];
    // jsonwebtoken accepts other encodings of a signature; a signature must have only one.
    decode(signature, "a signature that is not base64url")?;
    match key.verify(message.as_bytes(), signature) {
        true => Ok(Verified { value: read_claims(claims)?, key_id: kid }),
        false => Err(TokenError::Signature { kid }),
    }
}

fn read_header(encoded: &str) -> Result<Header, TokenError> {
    if encoded.len() > HEADER_MAX {
        return Err(TokenError::Shape("a header that is too long"));
    }
    let bytes = decode(encoded, "a header that is not base64url")?;
    let members: Map<String, Value> =
        json::from_slice(&bytes).map_err(|error| TokenError::Header(error.to_string()))?;
    if let Some(name) = REJECTED.into_iter().find(|name| members.contains_key(*name)) {
        return Err(TokenError::Header(format!("it has {name:?}, which is not supported")));
    }
    let text = |name: &str| match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(TokenError::Header(format!("its {name:?} is not a string"))),
    };
    let required =
        |name: &str| text(name)?.ok_or_else(|| TokenError::Header(format!("it has no {name:?}")));
    match text("typ")? {
        Some(other) if other != "JWT" => {
            Err(TokenError::Header(format!("its type is {:?}, not \"JWT\"", excerpt(&other))))
        }
        typ => Ok(Header { typ, alg: required("alg")?, kid: required("kid")? }),
    }
}

/// Decodes base64url. Accepts only one encoding of the bytes: without padding or white space, and with
/// trailing bits of zero (RFC 7515 section 2, RFC 4648 section 3.5).
fn decode(part: &str, found: &'static str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Shape(found))
}

/// Reads claims whose signature is valid. The schema is checked first, because a release with
/// another schema has other fields, and errors about those would mislead.
fn read_claims(encoded: &str) -> Result<Claims, TokenError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(encoded)
        .map_err(|_| TokenError::Claims("they are not base64url".into()))?;
    // serde also reads a list of the values of a struct's fields.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(TokenError::Claims("they are not a JSON object".into()));
    }
    match json::from_slice(&bytes) {
        Ok(Outline { etchaos_release: Some(Schema { schema }) }) if schema != u64::from(SCHEMA) => {
            Err(TokenError::Schema(ReleaseError::Schema(schema)))
        }
        // Reading all claims gives a better message for any other error.
        _ => json::from_slice(&bytes).map_err(|error| TokenError::Claims(error.to_string())),
    }
}

/// The part of the claims that is common to all schemas.
#[derive(Deserialize)]
struct Outline {
    #[serde(default, rename = "etchaosRelease")]
    etchaos_release: Option<Schema>,
}

#[derive(Deserialize)]
struct Schema {
    schema: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn claims() -> Claims {
        Claims { iss: Some("etchaos".into()), ..Claims::default() }
    }

    fn forge(header: serde_json::Value, claims: &str, signature: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{signature}", part(&header.to_string()), part(claims))
    }

    #[test]
    fn verifies_a_signed_token() {
        let key = PrivateKey::generate();
        let token = sign(&key, &claims()).unwrap();
        let verified = verify(&format!("{token}\n"), &key.public().clone().into()).unwrap();
        assert_eq!(*verified, claims());
        assert_eq!(verified.key_id(), key.id());
        assert_eq!(token, sign(&key, &claims()).unwrap(), "EdDSA is deterministic");
    }

    #[test]
    fn signature_from_outside_gives_the_same_token() {
        let key = PrivateKey::generate();
        let token = sign(&key, &claims()).unwrap();
        let input = SigningInput::new(key.public(), &claims()).unwrap();
        let signature = URL_SAFE_NO_PAD.decode(key.sign(input.as_bytes()).unwrap()).unwrap();
        assert_eq!(input.clone().attach(&signature).unwrap(), token);
        let other = PrivateKey::generate();
        let foreign = URL_SAFE_NO_PAD.decode(other.sign(input.as_bytes()).unwrap()).unwrap();
        for wrong in [foreign.as_slice(), &signature[1..], b""] {
            let error = input.clone().attach(wrong).unwrap_err();
            assert!(matches!(error, TokenError::Signature { .. }), "{error}");
        }
    }

    #[test]
    fn decodes_tokens_that_cannot_be_verified() {
        let token = forge(json!({"alg": "ES256"}), r#"{"etchaPattern": {}}"#, "x");
        let decoded = decode_unverified(&format!("{token}\n")).unwrap();
        assert_eq!(decoded.header["alg"], "ES256");
        assert!(decoded.claims.contains_key("etchaPattern"));
        for malformed in ["", "a.b", "a.b.c.d", &forge(json!([]), "{}", "x"), "e30.W10.x"] {
            assert!(decode_unverified(malformed).is_err(), "{malformed}");
        }
    }

    #[test]
    fn rejects_tokens_of_untrusted_keys() {
        let (key, other) = (PrivateKey::generate(), PrivateKey::generate());
        let ring: KeyRing = key.public().clone().into();
        let by_other = sign(&other, &claims()).unwrap();
        assert!(matches!(verify(&by_other, &ring), Err(TokenError::UnknownKey { .. })));

        // The untrusted key takes the id of the trusted one.
        let text = other.reveal().replace(other.id(), key.id());
        let impostor = sign(&text.parse().unwrap(), &claims()).unwrap();
        assert!(matches!(verify(&impostor, &ring), Err(TokenError::Signature { .. })));
    }

    fn signed(key: &PrivateKey, claims: &serde_json::Value) -> String {
        let header = json!({"alg": key.kind().algorithm(), "kid": key.id()});
        let unsigned = forge(header, &claims.to_string(), "");
        let message = unsigned.trim_end_matches('.');
        let signature = key.sign(message.as_bytes()).unwrap();
        format!("{message}.{signature}")
    }

    #[test]
    fn reports_another_schema_before_other_errors() {
        let key = PrivateKey::generate();
        let ring: KeyRing = key.public().clone().into();
        let error = |release: serde_json::Value| {
            verify(&signed(&key, &json!({"etchaosRelease": release})), &ring).unwrap_err()
        };
        let other_schema = error(json!({"schema": 2, "images": []}));
        assert_eq!(
            other_schema.to_string(),
            "the release has schema 2, but this program supports only schema 1; update the program"
        );
        assert!(other_schema.has_valid_signature());
        for (release, expected) in [
            (json!({"schema": 1, "images": []}), "missing field"),
            (json!({"images": []}), "missing field `schema`"),
            (json!({"schema": "1"}), "invalid type"),
        ] {
            let error = error(release);
            assert!(error.has_valid_signature() && error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn reports_unusable_claims_only_if_the_signature_is_valid() {
        let (key, other) = (PrivateKey::generate(), PrivateKey::generate());
        let ring: KeyRing = key.public().clone().into();
        for claims in [json!({"exp": "soon"}), json!(5), json!("x"), json!({"aud": 5})] {
            let token = signed(&key, &claims);
            let error = verify(&token, &ring).unwrap_err();
            assert!(
                matches!(error, TokenError::Claims(_)) && error.has_valid_signature(),
                "{claims}"
            );
            let impostor = other.reveal().replace(other.id(), key.id());
            let error = verify(&signed(&impostor.parse().unwrap(), &claims), &ring).unwrap_err();
            assert!(matches!(error, TokenError::Signature { .. }), "{claims}: {error}");
            assert!(!error.has_valid_signature());
        }
    }

    #[test]
    fn rejects_tokens_truncated_at_any_length() {
        let key = PrivateKey::generate();
        let ring: KeyRing = key.public().clone().into();
        let token = sign(&key, &claims()).unwrap();
        for end in 0..token.len() {
            assert!(verify(&token[..end], &ring).is_err(), "{end}");
        }
        assert!(matches!(verify(&"a".repeat(TOKEN_MAX + 1), &ring), Err(TokenError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn rejects_random_text_and_changed_characters(at in 0usize..200, with in "[A-Za-z0-9_.-]", text in ".{0,200}") {
            let key = PrivateKey::generate();
            let ring: KeyRing = key.public().clone().into();
            prop_assert!(verify(&text, &ring).is_err());
            let token = sign(&key, &claims()).unwrap();
            let at = at % token.len();
            let flipped = format!("{}{with}{}", &token[..at], &token[at + 1..]);
            if flipped != token {
                prop_assert!(verify(&flipped, &ring).is_err());
            }
        }
    }
}
