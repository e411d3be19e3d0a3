//! Why a token cannot be used.

use super::TOKEN_MAX;
use crate::release::ReleaseError;

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
    /// The token names no key, and no trusted key has signed it.
    #[error(
        "the token names no key (\"kid\"), and is not signed with one that is trusted here; trusted: {trusted}"
    )]
    NoKeyId {
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
            | Self::NoKeyId { .. }
            | Self::Algorithm { .. }
            | Self::Signature { .. } => false,
        }
    }
}
