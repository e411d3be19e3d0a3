//! Which certificates of a listener are trusted.

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use protocol::digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// The SHA-256 of a certificate in DER, as 64 hexadecimal digits in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint(String);

impl Fingerprint {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(digest::of_bytes(certificate))
    }
}

impl FromStr for Fingerprint {
    type Err = String;

    /// Parses the digits, with or without colons between the bytes, and with or without `SHA256:` before
    /// them.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.to_ascii_lowercase();
        let digits = text.strip_prefix("sha256:").unwrap_or(&text).replace(':', "");
        let is_valid = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        match is_valid {
            true => Ok(Self(digits)),
            false => Err("expected the SHA-256 of a certificate, 64 hexadecimal digits".into()),
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which certificate a listener must have.
#[derive(Debug, Clone)]
pub(crate) enum Trust {
    /// One for its name, from an authority that this machine trusts.
    System,
    /// One for its name, from one of these authorities.
    Authorities(Vec<CertificateDer<'static>>),
    /// The one with this fingerprint. Its name and its dates do not matter.
    Fingerprint(Fingerprint),
    /// Any certificate. A machine in the middle can then answer, but cannot sign a push.
    Any,
}

impl Trust {
    /// Reads the authorities of a file in PEM.
    pub(crate) fn from_file(path: &Path) -> Result<Self, String> {
        let failed = |why: &dyn fmt::Display| {
            format!("cannot read the certificates in {}: {why}", path.display())
        };
        let text = fs::read(path).map_err(|error| failed(&error))?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let certificates = certificates.map_err(|error| failed(&error))?;
        match certificates.is_empty() {
            true => Err(failed(&"the file has no certificate in PEM")),
            false => Ok(Self::Authorities(certificates)),
        }
    }

    /// Returns the configuration of TLS, and where the fingerprint of the listener's certificate will be.
    ///
    /// # Errors
    /// Fails if the authorities cannot be used.
    pub(crate) fn client_config(
        &self,
    ) -> Result<(ClientConfig, Arc<OnceLock<Fingerprint>>), String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let presented = Arc::new(OnceLock::new());
        let rule = match self {
            Self::System => Rule::Chain(chain(system_authorities()?, &provider)?),
            Self::Authorities(list) => Rule::Chain(chain(list.clone(), &provider)?),
            Self::Fingerprint(fingerprint) => Rule::Fingerprint(fingerprint.clone()),
            Self::Any => Rule::Any,
        };
        let verifier = Verifier { rule, provider: provider.clone(), presented: presented.clone() };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok((config, presented))
    }
}

fn system_authorities() -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    match found.certs.is_empty() {
        false => Ok(found.certs),
        true => {
            let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
            Err(format!(
                "this machine has no certificates of authorities ({}); use --fingerprint or --ca",
                errors.join(", ")
            ))
        }
    }
}

fn chain(
    authorities: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, String> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(authorities);
    if added == 0 {
        return Err("none of the authorities is a valid certificate".into());
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| error.to_string())
}

#[derive(Debug)]
enum Rule {
    Chain(Arc<WebPkiServerVerifier>),
    Fingerprint(Fingerprint),
    Any,
}

/// Applies a rule to the certificate, and keeps its fingerprint for error messages.
#[derive(Debug)]
struct Verifier {
    rule: Rule,
    provider: Arc<CryptoProvider>,
    presented: Arc<OnceLock<Fingerprint>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = self.presented.get_or_init(|| Fingerprint::of(certificate));
        match &self.rule {
            Rule::Chain(chain) => {
                chain.verify_server_cert(certificate, intermediates, name, ocsp, now)
            }
            Rule::Fingerprint(expected) if expected != found => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            Rule::Fingerprint(_) | Rule::Any => Ok(ServerCertVerified::assertion()),
        }
    }

    // The signatures are verified under every rule: they prove that the listener has the private key of
    // the certificate, which anyone can copy.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_fingerprints_as_programs_print_them() {
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        for text in
            [plain.clone(), colons.clone(), format!("SHA256:{colons}"), format!("sha256:{plain}")]
        {
            assert_eq!(text.parse::<Fingerprint>().unwrap().to_string(), plain);
        }
        for text in
            ["", "sha256:", &plain[1..], &format!("{plain}0"), &"xy".repeat(32), "é", "sha1é:ab"]
        {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }

    #[test]
    fn rejects_files_without_certificates() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "no certificate\n").unwrap();
        let error = Trust::from_file(file.path()).unwrap_err();
        assert!(error.contains("no certificate in PEM"), "{error}");
        assert!(Trust::from_file(Path::new("/nonexistent/ca.pem")).is_err());
    }
}
