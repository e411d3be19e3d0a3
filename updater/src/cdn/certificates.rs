//! The trusted certificate authorities: the public ones and those that the operator configures.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use super::error::NetworkConfigError;

/// The maximum size of a PEM file. The bundle of a distribution has 220 kB.
const FILE_MAX: u64 = 1 << 20;

/// Returns the public certificate authorities and those in the PEM files.
pub(super) fn load(files: &[PathBuf]) -> Result<RootCerts, NetworkConfigError> {
    let public = TLS_SERVER_ROOT_CERTS.iter().map(|der| Certificate::from_der(der));
    let mut certificates: Vec<Certificate<'static>> = public.collect();
    for path in files {
        let bad = |reason: String| NetworkConfigError::Authority { path: path.clone(), reason };
        let pem = read(path).map_err(|error| bad(error.to_string()))?;
        certificates.extend(certificates_of(&pem).map_err(bad)?);
    }
    Ok(certificates.into())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Checked before the file is opened, because opening a named pipe blocks.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > FILE_MAX {
        true => Err(io::Error::other(format!("it is larger than {FILE_MAX} bytes"))),
        false => Ok(bytes),
    }
}

/// Parses a PEM file. Fails unless it has at least one certificate and rustls accepts all of them:
/// ureq would silently skip the others.
fn certificates_of(pem: &[u8]) -> Result<Vec<Certificate<'static>>, String> {
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {
                return Err(
                    "it contains a private key; a file of certificates must not have one".into()
                );
            }
            Err(_) => return Err("it is not valid PEM".into()),
        }
    }
    let mut store = RootCertStore::empty();
    for certificate in &found {
        let der = CertificateDer::from_slice(certificate.der());
        store.add(der).map_err(|error| format!("a certificate in it is not usable: {error}"))?;
    }
    match found.is_empty() {
        true => Err("it has no certificate (-----BEGIN CERTIFICATE-----)".into()),
        false => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_files_without_usable_certificates() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let large = "x".repeat(2 << 20);
        for (text, expected) in [
            ("", "no certificate"),
            ("hello", "no certificate"),
            (garbage, "not usable"),
            (&key, "private key"),
            (&large, "larger than"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = load(std::slice::from_ref(&path)).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("ca.pem"), "{error}");
            assert!(!error.contains("AAAA") && !error.contains("MI"), "{error}");
        }
        let error = load(&[directory.path().to_owned()]).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
        assert!(load(&["/no/such/ca.pem".into()]).unwrap_err().to_string().contains("No such"));
    }

    #[test]
    fn public_authorities_are_usable() {
        let RootCerts::Specific(public) = load(&[]).unwrap() else { panic!() };
        assert!(public.len() > 100);
        let mut store = RootCertStore::empty();
        for certificate in public.iter() {
            store.add(CertificateDer::from_slice(certificate.der())).unwrap();
        }
    }
}
