//! Compact JWS (RFC 7515): signing, and verifying what strangers send.
//!
//! A verifier may be stricter than the RFC, and this one is: one form of a token, no more. Of a
//! header it takes `alg`, which must be the key's (section 4.1.1), `kid`, which must be there and
//! name a trusted key (4.1.4), and `typ`, which must be `JWT` if it is there (4.1.9). It refuses a
//! header that brings a key along or names one in another way, `jku`, `jwk`, `x5u`, `x5c`, `x5t`,
//! `x5t#S256` (4.1.2, 4.1.3, 4.1.5 to 4.1.8), `crit`, for it understands no extension (4.1.11), and
//! `b64`, which is one (RFC 7797). Other members are ignored (section 4).

use std::ops::Deref;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::claims::Claims;
use crate::json;
use crate::keys::{KeyRing, PrivateKey};
use crate::release::{ReleaseError, SCHEMA};
use crate::target::shortened;

/// Longest token that is looked at. A manifest of 300 packages takes about 60 kB.
pub const TOKEN_MAX: usize = 1 << 20;
/// Longest header: three short strings.
const HEADER_MAX: usize = 1024;
/// Members that no header of ours has, and that others have been led astray by.
const REFUSED: [&str; 8] = ["crit", "b64", "jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256"];

/// A value from a token whose signature was found good. It is made by [`verify`] alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified<T> {
    value: T,
    key_id: String,
}

impl<T> Verified<T> {
    /// The id of the key that signed it.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The value, on its own.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// Reads something out of the value; what comes from verified bytes is verified.
    pub fn try_map<U, E>(self, f: impl FnOnce(T) -> Result<U, E>) -> Result<Verified<U>, E> {
        Ok(Verified { value: f(self.value)?, key_id: self.key_id })
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// A token that cannot be used: for most of these reasons because it is not to be trusted; see
/// [`TokenError::has_valid_signature`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// More bytes than any honest token has.
    #[error("the token has {0} bytes, more than {TOKEN_MAX}")]
    TooLong(usize),
    /// Not `header.claims.signature`.
    #[error(
        "not a JWT: expected three parts of base64url with dots between, found {0}; is it truncated, or another kind of file?"
    )]
    Shape(&'static str),
    /// The header is not one that we read.
    #[error("the token's header is not acceptable: {0}")]
    Header(String),
    /// Signed with a key that is not trusted here.
    #[error(
        "the token is signed with the key {kid:?}, which is not trusted here; trusted: {trusted}"
    )]
    UnknownKey {
        /// The id that the token names.
        kid: String,
        /// The ids that are trusted.
        trusted: String,
    },
    /// The header's algorithm is not the key's.
    #[error("the token says it uses {found:?}, but the key {kid:?} is for {expected:?}")]
    Algorithm {
        /// The id of the key.
        kid: String,
        /// The algorithm of the key.
        expected: String,
        /// What the token says.
        found: String,
    },
    /// The signature does not match.
    #[error("the token's signature is not good: it was changed, or the key {kid:?} is another one")]
    Signature {
        /// The id of the key.
        kid: String,
    },
    /// The signature is good, the claims are not.
    #[error("the token's claims cannot be read: {0}")]
    Claims(String),
    /// The signature is good, and the release is of another schema than ours.
    #[error(transparent)]
    Schema(ReleaseError),
}

impl TokenError {
    /// Whether the token was signed by a key that is trusted, and only what it says is unusable.
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

/// The members of a header that are written, in this order, and understood.
#[derive(Serialize)]
struct Header {
    typ: Option<String>,
    alg: String,
    kid: String,
}

/// Signs claims: header `{typ, alg, kid}`, compact form.
pub fn sign(key: &PrivateKey, claims: &Claims) -> Result<String, TokenError> {
    let header = Header {
        typ: Some("JWT".into()),
        alg: key.kind().algorithm().into(),
        kid: key.id().into(),
    };
    let message = format!("{}.{}", encoded(&header)?, encoded(claims)?);
    let signature = key.sign(message.as_bytes());
    let signature = signature.ok_or_else(|| TokenError::Claims("they cannot be signed".into()))?;
    let token = format!("{message}.{signature}");
    match token.len() {
        length if length > TOKEN_MAX => Err(TokenError::TooLong(length)),
        _ => Ok(token),
    }
}

fn encoded(part: &impl Serialize) -> Result<String, TokenError> {
    let json = serde_json::to_vec(part).map_err(|error| TokenError::Claims(error.to_string()))?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

/// Verifies a token against the keys that are trusted. One line end after it is that of the file it
/// came in. Time is not looked at: see [`Claims::check_time`].
pub fn verify(token: &str, trusted: &KeyRing) -> Result<Verified<Claims>, TokenError> {
    if token.len() > TOKEN_MAX {
        return Err(TokenError::TooLong(token.len()));
    }
    let token = token.strip_suffix('\n').unwrap_or(token);
    let token = token.strip_suffix('\r').unwrap_or(token);
    let parts: Vec<&str> = token.splitn(4, '.').collect();
    let [header, claims, signature] = parts[..] else {
        return Err(TokenError::Shape("another number of parts"));
    };
    if header.is_empty() || claims.is_empty() || signature.is_empty() {
        return Err(TokenError::Shape("an empty part"));
    }
    let Header { alg, kid, .. } = read_header(header)?;
    let key = trusted.get(&kid).ok_or_else(|| TokenError::UnknownKey {
        kid: shortened(&kid),
        trusted: trusted.ids().collect::<Vec<_>>().join(", "),
    })?;
    let expected = key.kind().algorithm();
    if alg != expected {
        let (expected, found) = (expected.to_owned(), shortened(&alg));
        return Err(TokenError::Algorithm { kid, expected, found });
    }
    // The signature alone, and before a byte of the claims is read: the clock is not ours to read,
    // the claims are checked by type, and what is wrong with them is only worth telling of a token
    // that somebody trusted has signed.
    let message = &token[..header.len() + 1 + claims.len()];
    // One text for one signature: jsonwebtoken reads it more freely.
    decoded(signature, "a signature that is not base64url")?;
    match key.has_signed(message.as_bytes(), signature) {
        true => Ok(Verified { value: read_claims(claims)?, key_id: kid }),
        false => Err(TokenError::Signature { kid }),
    }
}

fn read_header(encoded: &str) -> Result<Header, TokenError> {
    if encoded.len() > HEADER_MAX {
        return Err(TokenError::Shape("a header that is too long"));
    }
    let bytes = decoded(encoded, "a header that is not base64url")?;
    let members: Map<String, Value> =
        json::from_slice(&bytes).map_err(|error| TokenError::Header(error.to_string()))?;
    if let Some(name) = REFUSED.into_iter().find(|name| members.contains_key(*name)) {
        return Err(TokenError::Header(format!("it has {name:?}, which is not understood here")));
    }
    let text = |name: &str| match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(TokenError::Header(format!("its {name:?} is no string"))),
    };
    let needed =
        |name: &str| text(name)?.ok_or_else(|| TokenError::Header(format!("it has no {name:?}")));
    match text("typ")? {
        Some(other) if other != "JWT" => {
            Err(TokenError::Header(format!("its type is {:?}, not JWT", shortened(&other))))
        }
        typ => Ok(Header { typ, alg: needed("alg")?, kid: needed("kid")? }),
    }
}

/// Bytes have one form in base64url: no padding, no white space, no bits left over (RFC 7515
/// section 2, RFC 4648 section 3.5).
fn decoded(part: &str, otherwise: &'static str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Shape(otherwise))
}

/// Reads claims whose signature was found good. The schema first: a release of another one has other
/// fields, and what is missing among them does not matter.
fn read_claims(encoded: &str) -> Result<Claims, TokenError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(encoded)
        .map_err(|_| TokenError::Claims("they are not base64url".into()))?;
    // serde would read a list as the values of a struct's fields.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(TokenError::Claims("they are not a JSON object".into()));
    }
    match json::from_slice(&bytes) {
        Ok(Outline { etchaos_release: Some(Schema { schema }) }) if schema != u64::from(SCHEMA) => {
            Err(TokenError::Schema(ReleaseError::Schema(schema)))
        }
        // Whatever else is wrong, the strict reader says better.
        _ => json::from_slice(&bytes).map_err(|error| TokenError::Claims(error.to_string())),
    }
}

/// As much of the claims as every schema has.
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
    fn what_was_signed_verifies() {
        let key = PrivateKey::generate();
        let token = sign(&key, &claims()).unwrap();
        let verified = verify(&format!("{token}\n"), &key.public().clone().into()).unwrap();
        assert_eq!(*verified, claims());
        assert_eq!(verified.key_id(), key.id());
        assert_eq!(token, sign(&key, &claims()).unwrap(), "EdDSA is deterministic");
    }

    #[test]
    fn strangers_and_liars_are_refused() {
        let (key, stranger) = (PrivateKey::generate(), PrivateKey::generate());
        let ring: KeyRing = key.public().clone().into();
        let by_stranger = sign(&stranger, &claims()).unwrap();
        assert!(matches!(verify(&by_stranger, &ring), Err(TokenError::UnknownKey { .. })));

        // The stranger names our key.
        let text = stranger.reveal().replace(stranger.id(), key.id());
        let lying = sign(&text.parse().unwrap(), &claims()).unwrap();
        assert!(matches!(verify(&lying, &ring), Err(TokenError::Signature { .. })));
    }

    fn signed(key: &PrivateKey, claims: &serde_json::Value) -> String {
        let header = json!({"alg": key.kind().algorithm(), "kid": key.id()});
        let unsigned = forge(header, &claims.to_string(), "");
        let message = unsigned.trim_end_matches('.');
        let signature = key.sign(message.as_bytes()).unwrap();
        format!("{message}.{signature}")
    }

    #[test]
    fn a_release_of_another_schema_says_so_whatever_its_fields_are() {
        let key = PrivateKey::generate();
        let ring: KeyRing = key.public().clone().into();
        let error = |release: serde_json::Value| {
            verify(&signed(&key, &json!({"etchaosRelease": release})), &ring).unwrap_err()
        };
        let other = error(json!({"schema": 2, "images": []}));
        assert_eq!(
            other.to_string(),
            "the release has schema 2, this program knows 1; update the program"
        );
        assert!(other.has_valid_signature());
        for (release, said) in [
            (json!({"schema": 1, "images": []}), "missing field"),
            (json!({"images": []}), "missing field `schema`"),
            (json!({"schema": "1"}), "invalid type"),
        ] {
            let error = error(release);
            assert!(error.has_valid_signature() && error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn unusable_claims_are_told_of_signed_tokens_alone() {
        let (key, stranger) = (PrivateKey::generate(), PrivateKey::generate());
        let ring: KeyRing = key.public().clone().into();
        for claims in [json!({"exp": "soon"}), json!(5), json!("x"), json!({"aud": 5})] {
            let token = signed(&key, &claims);
            let error = verify(&token, &ring).unwrap_err();
            assert!(
                matches!(error, TokenError::Claims(_)) && error.has_valid_signature(),
                "{claims}"
            );
            let lying = stranger.reveal().replace(stranger.id(), key.id());
            let error = verify(&signed(&lying.parse().unwrap(), &claims), &ring).unwrap_err();
            assert!(matches!(error, TokenError::Signature { .. }), "{claims}: {error}");
            assert!(!error.has_valid_signature());
        }
    }

    #[test]
    fn truncated_tokens_are_refused_at_every_length() {
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
        fn no_text_panics_and_no_flip_survives(at in 0usize..200, with in "[A-Za-z0-9_.-]", text in ".{0,200}") {
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
