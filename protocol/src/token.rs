//! Compact JWS (RFC 7515): signing tokens, and verifying tokens from untrusted sources.
//!
//! The RFC allows a verifier to be stricter than it requires. This one accepts exactly one form of a
//! token:
//!
//! - `alg` must be the algorithm of the key (section 4.1.1). It never selects an algorithm: the key does. There is
//!   one exception, which therefore has no effect on the check of the signature: Etcha's client writes `ES256` into
//!   tokens of RSA keys.
//! - `kid` must name a trusted key (4.1.4). If it is absent or empty, as in tokens of a signer whose key has no id,
//!   the trusted keys are tried. A trusted key without an id is tried for every `kid` that names no other key.
//! - `typ` must be `JWT` if it is present (4.1.9).
//! - `jku`, `jwk`, `x5u`, `x5c`, `x5t` and `x5t#S256` are rejected, because they carry a key or name
//!   one in another way (4.1.2, 4.1.3, 4.1.5 to 4.1.8).
//! - `crit` is rejected, because no extension is supported (4.1.11), and so is the extension `b64`
//!   (RFC 7797).
//! - Other header members are ignored (section 4).

mod error;

use std::ops::Deref;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::error::TokenError;
use crate::claims::Claims;
use crate::digest;
use crate::excerpt::excerpt;
use crate::json;
use crate::keys::{KeyKind, KeyRing, PrivateKey, PublicKey};
use crate::manifest::{Manifest, ManifestError};
use crate::release::{ReleaseError, SCHEMA};

/// The maximum length of a token in bytes. A manifest of 300 packages takes about 60 kB.
pub const TOKEN_MAX: usize = 1 << 20;
/// The maximum length of an encoded header, which holds three short strings.
const HEADER_MAX: usize = 1024;
/// The maximum number of keys that are tried for one token. Anyone can send a token to a host, and each check of a
/// signature takes up to 0.1 ms.
const TRIED_MAX: usize = 32;
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
/// let forged =
///     Verified { value: Claims::default(), key_id: String::new(), digest: String::new() };
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
    digest: String,
}

impl<T> Verified<T> {
    /// Returns the id of the key that signed the token.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Returns the SHA-256 of what the signature covers. It identifies a token: unlike the token itself, it is the
    /// same for every signature that is valid for it, of which ECDSA has many.
    pub fn digest(&self) -> &str {
        &self.digest
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
        let Verified { value, key_id, digest } = token;
        Ok(Self { value: value.try_into()?, key_id, digest })
    }
}

/// The header members that are written, in this order, and read.
#[derive(Serialize)]
struct Header {
    typ: Option<String>,
    alg: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
}

/// Signs claims and returns the token in compact form, with the header `{typ, alg, kid}`. A key without an id gives a
/// header without `kid`.
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
            kid: key.is_named().then(|| key.id().into()),
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
    let kid = kid.filter(|kid| !kid.is_empty());
    let named = kid.as_deref().and_then(|kid| trusted.get(kid));
    if let Some(key) = named
        && !is_algorithm(&alg, key.kind())
    {
        let (kid, found) = (key.id().to_owned(), excerpt(&alg));
        return Err(TokenError::Algorithm { kid, expected: key.kind().algorithm().into(), found });
    }
    // The signature is checked before the claims are read, so that no unsigned byte reaches the JSON
    // reader and problems with claims are only reported for tokens that a trusted key has signed.
    let message = &token[..header.len() + 1 + claims.len()];
    // jsonwebtoken accepts other encodings of a signature; a signature must have only one.
    decode(signature, "a signature that is not base64url")?;
    let has_signed = |key: &&PublicKey| key.verify(message.as_bytes(), signature);
    let key = match (named, &kid) {
        (Some(key), _) => Some(key).filter(has_signed),
        (None, kid) => trusted
            .iter()
            .filter(|key| kid.is_none() || !key.is_named())
            .filter(|key| is_algorithm(&alg, key.kind()))
            .take(TRIED_MAX)
            .find(has_signed),
    };
    match key {
        Some(key) => Ok(Verified {
            value: read_claims(claims)?,
            key_id: key.id().to_owned(),
            digest: digest::of_bytes(message.as_bytes()),
        }),
        None => Err(not_signed(kid, named.is_some(), trusted)),
    }
}

/// Returns whether a token with this `alg` may have a signature of such a key; see the documentation of this module.
fn is_algorithm(alg: &str, kind: KeyKind) -> bool {
    alg == kind.algorithm() || (kind == KeyKind::Rsa2048 && alg == KeyKind::Ecp256.algorithm())
}

/// Returns the error for a token that no trusted key has signed.
fn not_signed(kid: Option<String>, is_known: bool, trusted: &KeyRing) -> TokenError {
    let ids = || trusted.ids().collect::<Vec<_>>().join(", ");
    match kid {
        Some(kid) if is_known => TokenError::Signature { kid },
        Some(kid) => TokenError::UnknownKey { kid: excerpt(&kid), trusted: ids() },
        None => TokenError::NoKeyId { trusted: ids() },
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
    let alg = || text("alg")?.ok_or_else(|| TokenError::Header("it has no \"alg\"".into()));
    match text("typ")? {
        Some(other) if other != "JWT" => {
            Err(TokenError::Header(format!("its type is {:?}, not \"JWT\"", excerpt(&other))))
        }
        typ => Ok(Header { typ, alg: alg()?, kid: text("kid")? }),
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
mod tests;
