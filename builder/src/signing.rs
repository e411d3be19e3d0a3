//! The signing key, and whom the image trusts.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use protocol::{KeyRing, PrivateKey, PublicKey};

/// The key that signs manifests, and the keys that the image trusts.
#[derive(Debug)]
pub struct Signing {
    /// Signs manifests.
    pub key: PrivateKey,
    /// The public half of `key`, and the keys that were named besides.
    pub trusted: Vec<PublicKey>,
}

impl Signing {
    /// Takes the key that was given, or makes one for development below `directory`.
    ///
    /// `given` and `trusted` are key strings or, after an `@`, names of files that hold one.
    pub fn load(given: Option<&str>, trusted: &[String], directory: &Path) -> Result<Self> {
        let key = match given {
            Some(given) => key_text(given)?.parse().context("the signing key is not usable")?,
            None => development_key(directory)?,
        };
        let key: PrivateKey = key;
        if !key.kind().is_deterministic() {
            bail!(
                "the signing key {:?} is an ecp256 key: its signatures are random, so a disk image \
                 that holds one could not be built again byte for byte; use an ed25519 or rsa2048 key",
                key.id()
            );
        }
        let mut keys = vec![key.public().clone()];
        for other in trusted {
            keys.push(key_text(other)?.parse().context("a trusted key is not usable")?);
        }
        let signing = Self { key, trusted: keys };
        signing.ring()?;
        Ok(signing)
    }

    /// The trusted keys as a ring.
    pub fn ring(&self) -> Result<KeyRing> {
        let mut ring = KeyRing::default();
        for key in &self.trusted {
            ring.add(key.clone())?;
        }
        Ok(ring)
    }
}

/// The text itself, or the content of the file that it names after an `@`.
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
    eprintln!(
        "warning: no --signing-key; using the development key {}. The image trusts only that.",
        path.display()
    );
    if path.exists() {
        let text = fs::read_to_string(&path);
        let text = text.with_context(|| format!("reading {}", path.display()))?;
        return text.parse().with_context(|| format!("{} is not usable", path.display()));
    }
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    let key = generate(&path)?;
    let public = directory.join("signing.pub");
    fs::write(&public, format!("{}\n", key.public()))
        .with_context(|| format!("writing {}", public.display()))?;
    Ok(key)
}

/// Makes a key and writes its private half to a new file that only its owner can read.
pub fn generate(path: &Path) -> Result<PrivateKey> {
    let key = PrivateKey::generate();
    let failed = || format!("writing the key file {}", path.display());
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(failed)?;
    writeln!(file, "{}", key.reveal()).with_context(failed)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_development_key_is_made_once_and_kept_secret() {
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
    fn keys_come_from_text_or_files_and_errors_hide_them() {
        let directory = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate();
        let path = directory.path().join("k");
        fs::write(&path, key.reveal() + "\n").unwrap();
        let at = format!("@{}", path.display());
        let loaded = Signing::load(Some(&at), &[], directory.path()).unwrap();
        assert_eq!(loaded.key.public(), key.public());

        assert!(generate(&path).is_err(), "a key is never overwritten");
        let broken = key.reveal().replace("private", "secret");
        let error =
            format!("{:#}", Signing::load(Some(&broken), &[], directory.path()).unwrap_err());
        assert!(!error.contains(key.reveal().split(':').nth(1).unwrap()), "{error}");
        assert!(Signing::load(Some("@/nowhere/key"), &[], directory.path()).is_err());
    }
}
