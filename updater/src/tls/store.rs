//! Where the certificate of a host is kept.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use protocol::esp;

use super::identity::{Identity, TlsError};
use crate::config::Pem;
use crate::esp::run_directory;
use crate::files::{FileError, FileSystem, overwrite, read_limited};
use crate::host::{self, Host};

/// The limit on a file with certificates or keys. A chain of three certificates with RSA keys has 6 kB.
const FILE_MAX: u64 = 64 * 1024;
/// The file on a host whose ESP cannot be written. Only root can read its directory.
const UNTIL_REBOOT: &str = "/run/etchaos/tls.pem";

/// Returns the certificate on the ESP, which this host made before. Returns `None` if there is none, or if it is
/// damaged, which is logged.
pub(crate) fn kept_on_esp(esp: &dyn FileSystem) -> Option<Identity> {
    let read = read_limited(esp, esp::TLS, FILE_MAX).map_err(|error| error.to_string());
    parse(read, esp::TLS).map(|(identity, _)| identity)
}

/// Returns the certificate that an earlier `listen` made in this boot and could not write to the ESP, and its
/// PEM. Returns `None` if there is none, or if it is damaged, which is logged.
pub(crate) fn kept_until_reboot(host: &Host) -> Option<(Identity, String)> {
    let read = host::read_limited(&host.path(UNTIL_REBOOT), FILE_MAX);
    parse(read.map_err(|error| format!("cannot read {UNTIL_REBOOT}: {error}")), UNTIL_REBOOT)
}

fn parse(read: Result<Option<Vec<u8>>, String>, place: &str) -> Option<(Identity, String)> {
    let parsed = read.and_then(|pem| {
        let Some(pem) = pem else { return Ok(None) };
        let identity = Identity::from_pem(&pem, &pem, place).map_err(|error| error.to_string())?;
        let pem = String::from_utf8(pem).map_err(|_| format!("{place} is not text"))?;
        Ok(Some((identity, pem)))
    });
    parsed.unwrap_or_else(|error| {
        log::warn!("the certificate of this host cannot be used: {error}");
        None
    })
}

/// Writes the PEM of the certificate to the ESP. It is flushed before it is used, so a power cut cannot replace
/// a certificate that a client has seen: it can only leave a damaged file, which nobody has used.
pub(crate) fn store(esp: &dyn FileSystem, pem: &str) -> Result<(), FileError> {
    overwrite(esp, esp::TLS, pem.as_bytes())
}

/// Writes the PEM of the certificate to a file that is kept until the next boot.
pub(crate) fn store_until_reboot(host: &Host, pem: &str) -> io::Result<()> {
    let path = host.path(UNTIL_REBOOT);
    run_directory(host).map_err(io::Error::other)?;
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(pem.as_bytes())?;
    std::fs::rename(&new, &path)
}

/// Reads the certificate and the key that the operator configured.
pub(crate) fn read_own(host: &Host, certificate: &Pem, key: &Pem) -> Result<Identity, TlsError> {
    let place = format!("{certificate} and {key} of \"listen.tls\"");
    Identity::from_pem(&read(host, certificate)?, &read(host, key)?, &place)
}

fn read(host: &Host, pem: &Pem) -> Result<Vec<u8>, TlsError> {
    let path = match pem {
        Pem::Text(text) => return Ok(text.clone().into_bytes()),
        Pem::File(path) => path,
    };
    let bytes = read_file(&host.path(&path.to_string_lossy()));
    bytes.map_err(|error| TlsError::Read { path: path.clone(), error })
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    // Checked before the file is opened, because opening a named pipe blocks.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    host::read_limited(path, FILE_MAX)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::esp::{Access, Esp};

    #[test]
    fn keeps_a_certificate_and_ignores_a_damaged_one() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::new(directory.path());
        let esp = Esp::open(&host, Some(directory.path()), Access::Read).unwrap().unwrap();
        assert!(kept_on_esp(&esp).is_none() && kept_until_reboot(&host).is_none());
        let (identity, pem) = Identity::make().unwrap();
        store_until_reboot(&host, &pem).unwrap();
        let (kept, kept_pem) = kept_until_reboot(&host).unwrap();
        assert_eq!((kept.fingerprint(), kept_pem), (identity.fingerprint(), pem.clone()));
        let mode = std::fs::metadata(host.path(UNTIL_REBOOT)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(kept_on_esp(&esp).is_none());
        store(&esp, &pem).unwrap();
        assert_eq!(kept_on_esp(&esp).unwrap().fingerprint(), identity.fingerprint());
        for damaged in [&pem.as_bytes()[..pem.len() - 60], b"", &[0; 700], &[b'x'; 70_000]] {
            std::fs::write(directory.path().join(esp::TLS), damaged).unwrap();
            assert!(kept_on_esp(&esp).is_none());
        }
    }

    #[test]
    fn reads_the_operators_certificate_from_texts_or_files() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::new(directory.path());
        let (identity, pem) = Identity::make().unwrap();
        std::fs::write(directory.path().join("host.pem"), &pem).unwrap();
        let (text, file) = (Pem::Text(pem), Pem::File("/host.pem".into()));
        for (certificate, key) in [(&text, &text), (&text, &file), (&file, &text), (&file, &file)] {
            let found = read_own(&host, certificate, key).unwrap();
            assert_eq!(found.fingerprint(), identity.fingerprint());
        }
        let missing = read_own(&host, &file, &Pem::File("/missing.pem".into())).unwrap_err();
        assert!(missing.to_string().starts_with("cannot read /missing.pem: "), "{missing}");
    }
}
