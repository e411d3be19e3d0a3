//! Keys in the text form of Etcha: `ed25519public:BASE64-DER:KEYID`, where the id may be missing.
//!
//! The DER is PKIX `SubjectPublicKeyInfo` (RFC 5280) for public keys and PKCS#8 (RFC 5208) for
//! private ones, in standard base64. Keys are also read in PEM, and in the forms of OpenSSH.
//!
//! The key determines the algorithm of a signature; the token does not. Insecure keys are rejected: Ed25519
//! points of small order or in a non-canonical encoding, and RSA keys with fewer than 2048 bits or with an
//! exponent other than 65537.

mod der;
mod kind;
mod openssh;
mod parsed;
mod pem;
mod private;
mod public;
mod ring;
mod text;

pub use kind::KeyKind;
pub use parsed::KeyError;
pub use private::PrivateKey;
pub use public::PublicKey;
pub use ring::KeyRing;
pub use text::split_keys;

#[cfg(test)]
mod tests;
