//! The command-line options that name a host and how to reach it.

use std::path::PathBuf;

use clap::Args;
use protocol::PrivateKey;

use super::address::Address;
use super::trust::{Fingerprint, Trust};
use crate::key_text::key_text;

/// The host, its source, its certificate and the key.
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// Host: NAME, NAME:PORT, [IPV6]:PORT, or one of these after http:// or https://; by default https, port 4000
    #[arg(value_name = "HOST")]
    address: Address,
    /// Source in the configuration of the host whose keys include the key
    #[arg(value_name = "SOURCE", value_parser = source_name)]
    pub(crate) source: String,
    /// Private key: a key, or @ and the path of a file with one
    #[arg(long, value_name = "KEY", env = "ETCHAOS_PUSH_KEY", hide_env_values = true)]
    key: String,
    /// SHA-256 of the host's certificate, which its status shows [default: an authority that this machine trusts]
    #[arg(long, value_name = "SHA256", group = "trust")]
    fingerprint: Option<Fingerprint>,
    /// File with the certificates of the authorities, in PEM, one of which signed the host's
    #[arg(long, value_name = "FILE", group = "trust")]
    ca: Option<PathBuf>,
    /// Accept any certificate: a machine in the middle can read what is sent, and forge the answers
    #[arg(long, group = "trust")]
    insecure: bool,
}

impl HostArgs {
    /// Returns where the listener is, and which certificate it must have.
    ///
    /// # Errors
    /// Fails if the certificates cannot be read, or if there can be none.
    pub(crate) fn endpoint(&self) -> Result<(Address, Trust), String> {
        let names_certificate = self.fingerprint.is_some() || self.ca.is_some();
        if !self.address.tls && names_certificate {
            return Err(format!(
                "{} has no certificate: use https:// with --fingerprint or --ca",
                self.address
            ));
        }
        let trust = match (&self.fingerprint, &self.ca) {
            (Some(fingerprint), _) => Trust::Fingerprint(fingerprint.clone()),
            (None, Some(path)) => Trust::from_file(path)?,
            (None, None) if self.insecure => Trust::Any,
            (None, None) => Trust::System,
        };
        Ok((self.address.clone(), trust))
    }

    /// Reads the key.
    ///
    /// # Errors
    /// Fails if it cannot be read or is not a private key. The error does not show it.
    pub(crate) fn key(&self) -> Result<PrivateKey, String> {
        let text = key_text(&self.key)?;
        text.trim().parse().map_err(|error| format!("the key is not valid: {error}"))
    }
}

/// Checks the name of a source, which becomes a part of a URL.
fn source_name(text: &str) -> Result<String, String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._~+".contains(c);
    match !text.is_empty() && text.chars().all(is_allowed) && !text.starts_with('.') {
        true => Ok(text.to_owned()),
        false => Err("expected letters, digits and ._~+-".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        host: HostArgs,
    }

    fn parse(arguments: &[&str]) -> Result<HostArgs, String> {
        let all = ["x"].iter().chain(arguments);
        Cli::try_parse_from(all).map(|cli| cli.host).map_err(|error| error.to_string())
    }

    #[test]
    fn certificate_is_chosen_by_one_option() {
        let print = "ab".repeat(32);
        let trust = |more: &[&str]| {
            parse(&[&["web1", "ops", "--key", "k"], more].concat())?
                .endpoint()
                .map(|(_, trust)| trust)
        };
        assert!(matches!(trust(&[]), Ok(Trust::System)));
        assert!(matches!(trust(&["--insecure"]), Ok(Trust::Any)));
        assert!(matches!(trust(&["--fingerprint", &print]), Ok(Trust::Fingerprint(_))));
        assert!(trust(&["--fingerprint", &print, "--insecure"]).is_err());
        assert!(trust(&["--fingerprint", "ab"]).is_err());
        assert!(trust(&["--ca", "/nonexistent"]).unwrap_err().contains("/nonexistent"));
        let plain = parse(&["http://web1", "ops", "--key", "k", "--fingerprint", &print]).unwrap();
        assert!(plain.endpoint().unwrap_err().contains("has no certificate"));
    }

    #[test]
    fn key_is_a_text_or_a_file_and_never_shown() {
        let key = PrivateKey::generate();
        let of = |text: &str| parse(&["web1", "ops", "--key", text]).unwrap().key();
        assert_eq!(of(&key.reveal()).unwrap().id(), key.id());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), key.reveal() + "\n").unwrap();
        assert_eq!(of(&format!("@{}", file.path().display())).unwrap().id(), key.id());
        let broken = key.reveal().replace("private", "secret");
        let error = of(&broken).unwrap_err();
        assert!(!error.contains(key.reveal().split(':').nth(1).unwrap()), "{error}");
        assert!(of("@/nonexistent").unwrap_err().contains("/nonexistent"));
    }

    #[test]
    fn rejects_sources_that_change_the_url() {
        for source in ["", "a/b", "..", "a?check", "a#b", "a b", "é"] {
            assert!(parse(&["web1", source, "--key", "k"]).is_err(), "{source}");
        }
    }
}
