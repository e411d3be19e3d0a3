//! A certificate with its private key.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::digest;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// The name in a certificate that a host makes. It is the same for all hosts, because a host may get another
/// name or address later.
const NAME: &str = "etchaos";

/// A certificate with its chain and its private key. `Debug` shows only the fingerprint.
#[derive(Clone)]
pub(crate) struct Identity(Arc<CertifiedKey>);

/// Why there is no certificate to use. No message contains a part of a key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The text has no certificate, or one that is damaged.
    #[error("there is no valid PEM of a certificate (-----BEGIN CERTIFICATE-----) in {0}")]
    Certificate(String),
    /// The text has no private key, or one that is damaged or encrypted.
    #[error(
        "there is no valid PEM of a private key without a password (-----BEGIN PRIVATE KEY-----) in {0}"
    )]
    Key(String),
    /// rustls does not accept the pair.
    #[error("the certificate and the private key cannot be used together: {0}")]
    Pair(rustls::Error),
    /// A certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Make(rcgen::Error),
    /// A file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        error: std::io::Error,
    },
}

impl Identity {
    /// Makes a new key for ECDSA with P-256, which every client of TLS supports, and a certificate that it signs
    /// itself. Returns both, and their PEM.
    ///
    /// The certificate is valid at any time: the clock of the host or of its client may be wrong when they
    /// first meet, and its validity would end while the host is in use.
    pub(crate) fn make() -> Result<(Self, String), TlsError> {
        let key = KeyPair::generate().map_err(TlsError::Make)?;
        let mut params = CertificateParams::new([NAME.to_owned()]).map_err(TlsError::Make)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, NAME);
        let certificate = params.self_signed(&key).map_err(TlsError::Make)?;
        let pem = format!("{}{}", certificate.pem(), key.serialize_pem());
        Ok((Self::from_pem(pem.as_bytes(), pem.as_bytes(), "the new certificate")?, pem))
    }

    /// Reads a certificate, with the certificates that certify it, and its private key. `place` names them in
    /// errors.
    pub(crate) fn from_pem(certificate: &[u8], key: &[u8], place: &str) -> Result<Self, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| TlsError::Certificate(place.to_owned()))?;
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Key(place.to_owned()))?;
        let provider = aws_lc_rs::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(TlsError::Pair)?;
        Ok(Self(Arc::new(certified)))
    }

    /// Returns the SHA-256 of the certificate in DER: the fingerprint that `openssl x509 -fingerprint -sha256`
    /// shows, here in lower-case digits without colons.
    pub(crate) fn fingerprint(&self) -> String {
        digest::of_bytes(self.0.cert.first().map(AsRef::as_ref).unwrap_or_default())
    }

    /// Returns the SHA-256 of the public key in DER, as curl's `--pinnedpubkey` expects it:
    /// `sha256//BASE64`. Returns `None` if the key has no such form.
    pub(crate) fn public_key_pin(&self) -> Option<String> {
        let public = self.0.key.public_key()?;
        Some(format!("sha256//{}", STANDARD.encode(digest::raw(public.as_ref()))))
    }

    pub(super) fn certified_key(&self) -> Arc<CertifiedKey> {
        self.0.clone()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(certificate: &str, key: &str) -> String {
        Identity::from_pem(certificate.as_bytes(), key.as_bytes(), "tls.pem")
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn reads_what_it_makes() {
        let (identity, pem) = Identity::make().unwrap();
        let again = Identity::from_pem(pem.as_bytes(), pem.as_bytes(), "x").unwrap();
        assert_eq!(again.fingerprint(), identity.fingerprint());
        assert_eq!(again.public_key_pin(), identity.public_key_pin());
        assert_ne!(Identity::make().unwrap().0.fingerprint(), identity.fingerprint());
        assert_eq!(identity.fingerprint().len(), 64);
        assert!(identity.public_key_pin().unwrap().starts_with("sha256//"));
    }

    #[test]
    fn errors_name_the_problem_and_show_no_key() {
        let (one, other) = (Identity::make().unwrap().1, Identity::make().unwrap().1);
        let certificate = one.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
        let key = &one[certificate.len()..];
        let secret = key.lines().nth(1).unwrap();
        for (certificate, key, expected) in [
            (certificate, &other[..], "cannot be used together"),
            ("", key, "no valid PEM of a certificate"),
            (key, certificate, "no valid PEM of a certificate"),
            (certificate, certificate, "no valid PEM of a private key"),
            (certificate, &key[..key.len() / 2], "no valid PEM of a private key"),
            (
                certificate,
                &key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
                "without a password",
            ),
        ] {
            let error = error(certificate, key);
            assert!(error.contains(expected) && !error.contains(secret), "{expected}: {error}");
        }
        assert!(!format!("{:?}", Identity::make().unwrap().0).contains("KEY"));
    }
}
