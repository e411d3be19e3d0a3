//! What the targets share: a key that signs what they make.

use std::sync::LazyLock;

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use protocol::{KeyRing, PrivateKey};

/// A key for these targets alone: nobody trusts it, and everybody knows it.
pub const KEY: &str =
    "ed25519private:MC4CAQAwBQYDK2VwBCIEIPuzzPuzzPuzzPuzzPuzzPuzzPuzzPuzzPuzzPuzzPuz:fuzz";

/// [`KEY`], read.
pub static SIGNER: LazyLock<PrivateKey> = LazyLock::new(|| KEY.parse().expect("it is a key"));

/// The ring that trusts it.
pub static RING: LazyLock<KeyRing> = LazyLock::new(|| SIGNER.public().clone().into());

static PAIR: LazyLock<Ed25519KeyPair> = LazyLock::new(|| {
    let der = KEY.split(':').nth(1).and_then(|der| STANDARD.decode(der).ok()).expect("as above");
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).expect("as above")
});

/// A token with a good signature over any header and claims.
pub fn signed(header: &[u8], claims: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = PAIR.sign(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A token of ours with any claims.
pub fn with_claims(claims: &[u8]) -> String {
    signed(br#"{"typ":"JWT","alg":"EdDSA","kid":"fuzz"}"#, claims)
}
