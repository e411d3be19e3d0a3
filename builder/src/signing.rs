//! The signing key, and the keys that the image trusts.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use protocol::{KeyRing, PrivateKey, PublicKey};

use crate::progress::message;

/// The key that signs manifests, and the keys that the image trusts.
#[derive(Debug)]
pub(crate) struct Signing {
    /// Signs manifests.
    pub key: PrivateKey,
    /// The public half of `key`, and the additional trusted keys.
    pub trusted: Vec<PublicKey>,
}

impl Signing {
    /// Loads the given key, or the development key in `directory`, which is created if it is missing.
    ///
    /// `given` and `trusted` are key strings, or `@` and the path of a file that contains one.
    pub(crate) fn load(given: Option<&str>, trusted: &[String], directory: &Path) -> Result<Self> {
        let key = match given {
            Some(given) => key_text(given)?.parse().context("the signing key is not valid")?,
            None => development_key(directory)?,
        };
        let key: PrivateKey = key;
        if !key.kind().is_deterministic() {
            bail!(
                "the signing key {:?} is an ecp256 key, whose signatures are random, so the disk \
                 image would not be reproducible; use an ed25519 or rsa2048 key",
                key.id()
            );
        }
        let mut keys = vec![key.public().clone()];
        for other in trusted {
            keys.push(key_text(other)?.parse().context("a trusted key is not valid")?);
        }
        let signing = Self { key, trusted: keys };
        signing.ring()?;
        Ok(signing)
    }

    /// Returns the trusted keys as a ring.
    pub(crate) fn ring(&self) -> Result<KeyRing> {
        let mut ring = KeyRing::default();
        for key in &self.trusted {
            ring.add(key.clone())?;
        }
        Ok(ring)
    }
}

/// Reads files with one public key per line.
pub(crate) fn key_files(paths: &[PathBuf]) -> Result<KeyRing> {
    let mut text = String::new();
    for path in paths {
        let keys = fs::read_to_string(path);
        text += &keys.with_context(|| format!("reading the key file {}", path.display()))?;
        text.push('\n');
    }
    let ring = KeyRing::parse(&text).context("reading the public keys")?;
    ensure!(!ring.is_empty(), "the key files have no key; expected one public key per line");
    Ok(ring)
}

/// Returns the text itself or, if it is `@` and a path, the content of that file.
fn key_text(given: &str) -> Result<String> {
    match given.strip_prefix('@') {
        Some(path) => {
            let text = fs::read_to_string(path);
            let text = text.with_context(|| format!("reading the key file {path}"))?;
            ensure!(!text.trim().is_empty(), "the key file {path} is empty");
            Ok(text)
        }
        None => Ok(given.to_owned()),
    }
}

fn development_key(directory: &Path) -> Result<PrivateKey> {
    let path = directory.join("signing.key");
    message(&format!(
        "warning: no --signing-key was given; using the development key {}, the only key that the \
         image trusts",
        path.display()
    ));
    if path.exists() {
        let text = fs::read_to_string(&path);
        let text = text.with_context(|| format!("reading {}", path.display()))?;
        return text
            .parse()
            .with_context(|| format!("{} is not a valid private key", path.display()));
    }
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    let key = generate(&path)?;
    let public = directory.join("signing.pub");
    fs::write(&public, format!("{}\n", key.public()))
        .with_context(|| format!("writing {}", public.display()))?;
    Ok(key)
}

/// Creates a key and writes its private half to a new file that only its owner can read.
pub(crate) fn generate(path: &Path) -> Result<PrivateKey> {
    let key = PrivateKey::generate();
    let failed = || format!("writing the key file {}", path.display());
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(failed)?;
    let written = writeln!(file, "{}", key.reveal()).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // An incomplete key is useless, and would block the next attempt.
        let _ = fs::remove_file(path);
        return Err(error).with_context(failed);
    }
    Ok(key)
}

/// Creates a key file and prints the public key.
///
/// # Errors
/// Fails, and leaves no file, if the public key cannot be printed.
pub(crate) fn generate_and_print(path: &Path, out: &mut impl Write) -> Result<()> {
    let key = generate(path)?;
    let printed = writeln!(out, "{}", key.public());
    if printed.is_err() {
        fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
    }
    printed.context("printing the public key; the private key was removed")
}

/// Reads a private key file and returns its public key.
pub(crate) fn public_key(path: &Path) -> Result<PublicKey> {
    let text = fs::read_to_string(path);
    let text = text.with_context(|| format!("reading the key file {}", path.display()))?;
    let key: PrivateKey =
        text.parse().with_context(|| format!("{} is not a valid private key", path.display()))?;
    Ok(key.public().clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn creates_development_key_once_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let first = Signing::load(None, &[], directory.path()).unwrap();
        let again = Signing::load(None, &[], directory.path()).unwrap();
        assert_eq!(first.key.public(), again.key.public());
        let secret = directory.path().join("signing.key");
        assert_eq!(secret.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let public = fs::read_to_string(directory.path().join("signing.pub")).unwrap();
        assert_eq!(public.trim(), first.key.public().to_string());
    }

    #[test]
    fn loads_keys_from_text_and_files_and_hides_them_in_errors() {
        let directory = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate();
        let path = directory.path().join("k");
        fs::write(&path, key.reveal() + "\n").unwrap();
        let at = format!("@{}", path.display());
        let loaded = Signing::load(Some(&at), &[], directory.path()).unwrap();
        assert_eq!(loaded.key.public(), key.public());

        assert!(generate(&path).is_err(), "an existing key must not be overwritten");
        let broken = key.reveal().replace("private", "secret");
        let error =
            format!("{:#}", Signing::load(Some(&broken), &[], directory.path()).unwrap_err());
        assert!(!error.contains(key.reveal().split(':').nth(1).unwrap()), "{error}");
        assert!(Signing::load(Some("@/nowhere/key"), &[], directory.path()).is_err());
    }
}
