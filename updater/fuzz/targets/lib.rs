//! The key of the fuzz targets, and tokens signed with it.

use std::sync::LazyLock;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use protocol::{KeyRing, PrivateKey};

/// A key that is only used by the fuzz targets. It is public and must not be trusted.
pub const KEY: &str =
    "ed25519private:MC4CAQAwBQYDK2VwBCIEIPuzzPuzzPuzzPuzzPuzzPuzzPuzzPuzzPuzzPuzzPuz:fuzz";

/// The parsed [`KEY`].
pub static SIGNER: LazyLock<PrivateKey> = LazyLock::new(|| KEY.parse().expect("KEY is valid"));

/// A ring that contains the public key of [`SIGNER`].
pub static RING: LazyLock<KeyRing> = LazyLock::new(|| SIGNER.public().clone().into());

static PAIR: LazyLock<Ed25519KeyPair> = LazyLock::new(|| {
    let der =
        KEY.split(':').nth(1).and_then(|der| STANDARD.decode(der).ok()).expect("KEY is valid");
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).expect("KEY is valid")
});

/// Returns a token with a valid signature and any header and claims.
pub fn signed(header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = PAIR.sign(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Returns a token with a valid header and any claims.
pub fn with_claims(claims: &[u8]) -> String {
    signed(br#"{"typ":"JWT","alg":"EdDSA","kid":"fuzz"}"#, claims)
}
