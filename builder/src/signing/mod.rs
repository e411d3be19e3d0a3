//! The signing key, and the keys that the image trusts.

mod command;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::token::{self, SigningInput};
use protocol::{Claims, KeyRing, PrivateKey, PublicKey};

use crate::progress::message;

/// The file of the development key.
pub(crate) const DEVELOPMENT_KEY: &str = "signing.key";

/// The key that signs manifests, and the keys that the image trusts.
#[derive(Debug)]
pub(crate) struct Signing {
    signer: Signer,
    /// The public half of the signing key, and the additional trusted keys.
    pub trusted: Vec<PublicKey>,
}

/// What makes signatures.
#[derive(Debug)]
enum Signer {
    /// A private key.
    Key(PrivateKey),
    /// A shell command, and the public half of its key.
    Command(String, PublicKey),
}

/// The options of the command line from which [`Signing::load`] takes the keys.
///
/// A key is a key string, or `@` and the path of a file that contains one.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Keys<'a> {
    /// The signing key; its public half if there is a command.
    pub key: Option<&'a str>,
    /// The command that signs.
    pub command: Option<&'a str>,
    /// The additional trusted keys.
    pub trusted: &'a [String],
}

impl Signing {
    /// Loads the given keys. Without a signing key, the development key in `directory` is used, which
    /// is created if it is missing.
    pub(crate) fn load(keys: Keys<'_>, directory: &Path) -> Result<Self> {
        let signer = match (keys.command, keys.key) {
            (Some(command), Some(key)) => {
                let key = key_text(key)?.parse().context(
                    "with --sign-command, --signing-key is the public key of the command",
                )?;
                Signer::Command(command.to_owned(), key)
            }
            (Some(_), None) => bail!(
                "--sign-command was given without --signing-key; give the public key of the command"
            ),
            (None, Some(key)) => {
                Signer::Key(key_text(key)?.parse().context("the signing key is not valid")?)
            }
            (None, None) => Signer::Key(development_key(directory)?),
        };
        let mut trusted = vec![signer.public().clone()];
        for other in keys.trusted {
            trusted.push(key_text(other)?.parse().context("a trusted key is not valid")?);
        }
        let signing = Self { signer, trusted };
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

    /// Returns the id of the signing key.
    pub(crate) fn key_id(&self) -> &str {
        self.signer.public().id()
    }

    /// Checks that the same claims always get the same signature, which a disk image needs.
    pub(crate) fn check_deterministic(&self) -> Result<()> {
        let key = self.signer.public();
        ensure!(
            key.kind().is_deterministic(),
            "the signing key {:?} is an ecp256 key, whose signatures are random, so the disk image \
             would not be reproducible; use an ed25519 or rsa2048 key",
            key.id()
        );
        Ok(())
    }

    /// Signs claims and returns the token.
    pub(crate) fn sign(&self, claims: &Claims) -> Result<String> {
        match &self.signer {
            Signer::Key(key) => Ok(token::sign(key, claims)?),
            Signer::Command(text, public) => {
                let input = SigningInput::new(public, claims)?;
                let is_valid = |signature: &[u8]| input.clone().attach(signature).is_ok();
                let signature = command::sign(text, input.as_bytes(), is_valid)?;
                Ok(input.attach(&signature)?)
            }
        }
    }
}

impl Signer {
    fn public(&self) -> &PublicKey {
        match self {
            Self::Key(key) => key.public(),
            Self::Command(_, public) => public,
        }
    }
}

/// Returns the token of the claims with the signature of the token `signed`, which one of `keys` has
/// signed. If the claims are not those of `signed`, which only the private key could sign, returns
/// `signed` itself.
pub(crate) fn sign_like(signed: &str, keys: &[PublicKey], claims: &Claims) -> Result<String> {
    let mut ring = KeyRing::default();
    for key in keys {
        ring.add(key.clone())?;
    }
    let verified = token::verify(signed, &ring).context("the manifest inside the disk image")?;
    let key = ring.get(verified.key_id()).context("the key of a verified token is in the ring")?;
    let signature = signed.trim_end().rsplit('.').next().unwrap_or_default();
    let signature = URL_SAFE_NO_PAD.decode(signature).context("reading the signature")?;
    let input = SigningInput::new(key, claims)?;
    Ok(input.attach(&signature).unwrap_or_else(|_| signed.trim_end().to_owned()))
}

/// Reads trusted keys: key strings, or `@` and the path of a file that contains one.
pub(crate) fn ring(keys: &[String]) -> Result<KeyRing> {
    let mut ring = KeyRing::default();
    for key in keys {
        let key: PublicKey = key_text(key)?.parse().context("a trusted key is not valid")?;
        ring.add(key)?;
    }
    Ok(ring)
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
    testbed::key_text(given).map_err(anyhow::Error::msg)
}

fn development_key(directory: &Path) -> Result<PrivateKey> {
    let path = directory.join(DEVELOPMENT_KEY);
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
        let first = Signing::load(Keys::default(), directory.path()).unwrap();
        let again = Signing::load(Keys::default(), directory.path()).unwrap();
        assert_eq!(first.trusted, again.trusted);
        let secret = directory.path().join("signing.key");
        assert_eq!(secret.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let public = fs::read_to_string(directory.path().join("signing.pub")).unwrap();
        assert_eq!(public.trim(), first.trusted[0].to_string());
    }

    #[test]
    fn loads_keys_from_text_and_files_and_hides_them_in_errors() {
        let directory = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate();
        let path = directory.path().join("k");
        fs::write(&path, key.reveal() + "\n").unwrap();
        let at = format!("@{}", path.display());
        let load =
            |key: &str| Signing::load(Keys { key: Some(key), ..Keys::default() }, directory.path());
        assert_eq!(load(&at).unwrap().trusted, [key.public().clone()]);

        assert!(generate(&path).is_err(), "an existing key must not be overwritten");
        let broken = key.reveal().replace("private", "secret");
        let error = format!("{:#}", load(&broken).unwrap_err());
        assert!(!error.contains(key.reveal().split(':').nth(1).unwrap()), "{error}");
        assert!(load("@/nowhere/key").is_err());
    }

    /// Returns the private key as PEM, for openssl.
    fn pem(key: &PrivateKey) -> String {
        let text = key.reveal();
        let der = text.split(':').nth(1).unwrap();
        format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n")
    }

    #[test]
    fn signature_is_used_again_only_for_the_same_claims() {
        let key = PrivateKey::generate();
        let claims = Claims { iss: Some("etchaos".into()), ..Claims::default() };
        let signed = token::sign(&key, &claims).unwrap();
        let keys = [key.public().clone()];
        assert_eq!(sign_like(&(signed.clone() + "\n"), &keys, &claims).unwrap(), signed);
        assert_eq!(sign_like(&signed, &keys, &Claims::default()).unwrap(), signed);
        assert!(sign_like(&signed, &[PrivateKey::generate().public().clone()], &claims).is_err());
    }

    #[test]
    fn command_signs_like_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate();
        let path = directory.path().join("key.pem");
        fs::write(&path, pem(&key)).unwrap();
        // openssl signs with Ed25519 only from a file, because it needs the size first.
        let command = format!(
            "cd {} && cat >input && openssl pkeyutl -sign -inkey key.pem -rawin -in input",
            directory.path().display()
        );
        if crate::judge::judge("openssl", &["version"]).is_none() {
            return;
        }
        let public = key.public().to_string();
        let load = |key: &str| {
            let keys = Keys { key: Some(key), command: Some(&command), trusted: &[] };
            Signing::load(keys, directory.path())
        };
        let claims = Claims { iss: Some("etchaos".into()), ..Claims::default() };
        let signed = load(&public).unwrap().sign(&claims).unwrap();
        assert_eq!(signed, token::sign(&key, &claims).unwrap());

        let other = PrivateKey::generate().public().to_string();
        let error = load(&other).unwrap().sign(&claims).unwrap_err().to_string();
        assert!(error.contains("not a signature"), "{error}");
        assert!(load(&key.reveal()).is_err(), "a private key is not expected with a command");
    }
}
