//! Compact JWS (RFC 7515): signing, and verifying what strangers send.

use std::ops::Deref;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Header, crypto};
use serde::Deserialize;

use crate::claims::Claims;
use crate::keys::{KeyRing, PrivateKey};
use crate::release::{ReleaseError, SCHEMA};
use crate::target::shortened;

/// Longest token that is looked at. A manifest of 300 packages takes about 60 kB.
pub const TOKEN_MAX: usize = 1 << 20;
/// Longest header: three short strings.
const HEADER_MAX: usize = 1024;

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
/// [`TokenError::is_trusted`].
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
    pub fn is_trusted(&self) -> bool {
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

/// The members of a header that are understood. `crit` lists extensions that must be understood
/// (RFC 7515 section 4.1.11); we understand none.
#[derive(Deserialize)]
struct StrictHeader {
    alg: String,
    kid: String,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    crit: Option<serde_json::Value>,
    #[serde(default)]
    b64: Option<serde_json::Value>,
}

/// Signs claims: header `{typ, alg, kid}`, compact form.
pub fn sign(key: &PrivateKey, claims: &Claims) -> Result<String, TokenError> {
    let header = Header { kid: Some(key.id().to_owned()), ..Header::new(key.kind().algorithm()) };
    let token = jsonwebtoken::encode(&header, claims, &key.encoding)
        .map_err(|error| TokenError::Claims(error.to_string()))?;
    match token.len() {
        length if length > TOKEN_MAX => Err(TokenError::TooLong(length)),
        _ => Ok(token),
    }
}

/// Verifies a token against the keys that are trusted. Time is not looked at: see
/// [`Claims::check_time`].
pub fn verify(token: &str, trusted: &KeyRing) -> Result<Verified<Claims>, TokenError> {
    let token = token.trim_end_matches(['\n', '\r']);
    let header = strict_header(token)?;
    let kid = header.kid;
    let key = trusted.get(&kid).ok_or_else(|| TokenError::UnknownKey {
        kid: shortened(&kid),
        trusted: trusted.ids().collect::<Vec<_>>().join(", "),
    })?;
    let expected = key.kind().algorithm();
    let algorithm = format!("{expected:?}");
    if header.alg != algorithm {
        return Err(TokenError::Algorithm {
            kid,
            expected: algorithm,
            found: shortened(&header.alg),
        });
    }
    // The signature alone, and before a byte of the claims is read: the clock is not ours to read,
    // the claims are checked by type, and what is wrong with them is only worth telling of a token
    // that somebody trusted has signed.
    let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Shape("one part"))?;
    match crypto::verify(signature, message.as_bytes(), &key.decoding, expected) {
        Ok(true) => Ok(Verified { value: read_claims(message)?, key_id: kid }),
        Ok(false) | Err(_) => Err(TokenError::Signature { kid }),
    }
}

/// Reads the claims of `header.claims`, whose signature was found good. The schema first: a release
/// of another one has other fields, and what is missing among them does not matter.
fn read_claims(message: &str) -> Result<Claims, TokenError> {
    let encoded = message.rsplit_once('.').map_or("", |(_, claims)| claims);
    let bytes = URL_SAFE_NO_PAD
        .decode(encoded)
        .map_err(|_| TokenError::Claims("they are not base64url".into()))?;
    match serde_json::from_slice(&bytes) {
        Ok(Outline { etchaos_release: Some(Schema { schema }) }) if schema != u64::from(SCHEMA) => {
            Err(TokenError::Schema(ReleaseError::Schema(schema)))
        }
        // Whatever else is wrong, the strict reader says better.
        _ => serde_json::from_slice(&bytes).map_err(|error| TokenError::Claims(error.to_string())),
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

fn strict_header(token: &str) -> Result<StrictHeader, TokenError> {
    if token.len() > TOKEN_MAX {
        return Err(TokenError::TooLong(token.len()));
    }
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Shape("another number of parts"));
    };
    if header.is_empty() || claims.is_empty() || signature.is_empty() {
        return Err(TokenError::Shape("an empty part"));
    }
    if header.len() > HEADER_MAX {
        return Err(TokenError::Shape("a header that is too long"));
    }
    let bytes = URL_SAFE_NO_PAD
        .decode(header)
        .map_err(|_| TokenError::Shape("a header that is not base64url"))?;
    let header: StrictHeader =
        serde_json::from_slice(&bytes).map_err(|error| TokenError::Header(error.to_string()))?;
    if header.crit.is_some() || header.b64.is_some() {
        return Err(TokenError::Header(
            "it demands extensions that are not understood here".into(),
        ));
    }
    match header.typ.as_deref() {
        None | Some("JWT") => Ok(header),
        Some(other) => {
            Err(TokenError::Header(format!("its type is {:?}, not JWT", shortened(other))))
        }
    }
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

    #[test]
    fn the_key_decides_the_algorithm() {
        let key = PrivateKey::generate();
        let ring: KeyRing = key.public().clone().into();
        for alg in ["none", "None", "HS256", "RS256", "ES256", "EDDSA", ""] {
            let token = forge(json!({"alg": alg, "kid": key.id(), "typ": "JWT"}), "{}", "AAAA");
            assert!(matches!(verify(&token, &ring), Err(TokenError::Algorithm { .. })), "{alg}");
        }
        // The classic: HMAC with the public key's text as secret.
        let header =
            Header { kid: Some(key.id().into()), ..Header::new(jsonwebtoken::Algorithm::HS256) };
        let secret = jsonwebtoken::EncodingKey::from_secret(key.public().to_string().as_bytes());
        let token = jsonwebtoken::encode(&header, &claims(), &secret).unwrap();
        assert!(matches!(verify(&token, &ring), Err(TokenError::Algorithm { .. })));
    }

    #[test]
    fn headers_are_read_strictly() {
        let key = PrivateKey::generate();
        let ring: KeyRing = key.public().clone().into();
        let header = |more: &str| format!(r#"{{"alg":"EdDSA","kid":"{}"{more}}}"#, key.id());
        for more in [
            r#","crit":["exp"]"#,
            r#","b64":false"#,
            r#","typ":"JWE""#,
            r#","kid":"other""#,
            r#","alg":"none""#,
        ] {
            let token = format!("{}.e30.AAAA", URL_SAFE_NO_PAD.encode(header(more)));
            assert!(matches!(verify(&token, &ring), Err(TokenError::Header(_))), "{more}");
        }
    }

    fn signed(key: &PrivateKey, claims: &serde_json::Value) -> String {
        let header =
            Header { kid: Some(key.id().to_owned()), ..Header::new(key.kind().algorithm()) };
        jsonwebtoken::encode(&header, claims, &key.encoding).unwrap()
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
        assert!(other.is_trusted());
        for (release, said) in [
            (json!({"schema": 1, "images": []}), "missing field"),
            (json!({"images": []}), "missing field `schema`"),
            (json!({"schema": "1"}), "invalid type"),
        ] {
            let error = error(release);
            assert!(error.is_trusted() && error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn unusable_claims_are_told_of_signed_tokens_alone() {
        let (key, stranger) = (PrivateKey::generate(), PrivateKey::generate());
        let ring: KeyRing = key.public().clone().into();
        for claims in [json!({"exp": "soon"}), json!(5), json!("x"), json!({"aud": 5})] {
            let token = signed(&key, &claims);
            let error = verify(&token, &ring).unwrap_err();
            assert!(matches!(error, TokenError::Claims(_)) && error.is_trusted(), "{claims}");
            let lying = stranger.reveal().replace(stranger.id(), key.id());
            let error = verify(&signed(&lying.parse().unwrap(), &claims), &ring).unwrap_err();
            assert!(matches!(error, TokenError::Signature { .. }), "{claims}: {error}");
            assert!(!error.is_trusted());
        }
        // A member that is there twice is ambiguous, so it is refused, and not read as the last one.
        let header = json!({"alg": "EdDSA", "kid": key.id()});
        let unsigned = forge(header, r#"{"exp":1,"exp":2}"#, "");
        let message = unsigned.trim_end_matches('.');
        let algorithm = key.kind().algorithm();
        let signature = crypto::sign(message.as_bytes(), &key.encoding, algorithm).unwrap();
        let error = verify(&format!("{message}.{signature}"), &ring).unwrap_err();
        assert!(matches!(error, TokenError::Claims(_)), "{error}");
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
            // The last character of a part may carry unused bits.
            if flipped != token && !token[at + 1..].starts_with('.') && at + 1 != token.len() {
                prop_assert!(verify(&flipped, &ring).is_err());
            }
        }
    }
}
