//! The kinds of keys and their algorithms.

use jsonwebtoken::Algorithm;

/// The kind of a key, which determines the algorithm of its signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// Ed25519, for `EdDSA` (RFC 8037). Signatures are deterministic.
    Ed25519,
    /// ECDSA on P-256, for `ES256` (RFC 7518). Signatures are randomized.
    Ecp256,
    /// RSA with at least 2048 bits, for `RS256` (RFC 7518). Signatures are deterministic.
    Rsa2048,
}

impl KeyKind {
    pub(super) const PUBLIC: &str = "ed25519public, ecp256public or rsa2048public";
    pub(super) const PRIVATE: &str = "ed25519private, ecp256private or rsa2048private";

    pub(super) fn jwa(self) -> Algorithm {
        match self {
            Self::Ed25519 => Algorithm::EdDSA,
            Self::Ecp256 => Algorithm::ES256,
            Self::Rsa2048 => Algorithm::RS256,
        }
    }

    /// Returns the name of the JWS algorithm.
    pub fn algorithm(self) -> &'static str {
        match self {
            Self::Ed25519 => "EdDSA",
            Self::Ecp256 => "ES256",
            Self::Rsa2048 => "RS256",
        }
    }

    /// Returns whether signing the same bytes twice gives the same signature.
    pub fn is_deterministic(self) -> bool {
        self != Self::Ecp256
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Ecp256 => "ecp256",
            Self::Rsa2048 => "rsa2048",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Ed25519, Self::Ecp256, Self::Rsa2048].into_iter().find(|kind| kind.name() == name)
    }
}
