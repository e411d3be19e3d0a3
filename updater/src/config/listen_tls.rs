//! The certificate of the server for pushes.

use std::fmt;
use std::path::PathBuf;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};

use super::redact::REDACTED_PEM;

/// The maximum length of a PEM text in the configuration.
const TEXT_MAX: usize = 64 * 1024;

/// The `listen.tls` value as configured: `true`, `false` or an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TlsFragment {
    /// Whether the server uses TLS, with the certificate that the host makes itself.
    Enabled(bool),
    /// The certificate of the operator.
    Own(OwnFragment),
}

/// The certificate of the operator as configured: each member is an absolute path or a PEM text.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub(crate) struct OwnFragment {
    /// The certificate, and the certificates that certify it.
    pub(super) certificate: PemFragment,
    /// The private key.
    pub(super) key: PemFragment,
}

/// A path or a PEM text. `Debug` and [`Serialize`] show no text, because it may be a private key.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct PemFragment(String);

/// Whether the server for pushes uses TLS, and with which certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// No TLS: plain HTTP.
    Off,
    /// The certificate that the host makes itself.
    SelfSigned,
    /// The certificate of the operator.
    Own {
        /// The certificate, and the certificates that certify it.
        certificate: Pem,
        /// The private key.
        key: Pem,
    },
}

/// A PEM text or the file that has it. `Display` and `Debug` show the path only.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// An absolute path.
    File(PathBuf),
    /// The text.
    Text(String),
}

impl TlsFragment {
    /// Returns the settings, or the name of the invalid member.
    pub(super) fn settings(&self) -> Result<Tls, &'static str> {
        match self {
            Self::Enabled(false) => Ok(Tls::Off),
            Self::Enabled(true) => Ok(Tls::SelfSigned),
            Self::Own(OwnFragment { certificate, key }) => Ok(Tls::Own {
                certificate: certificate.pem("-----BEGIN CERTIFICATE-----").ok_or("certificate")?,
                key: key.pem("PRIVATE KEY-----").ok_or("key")?,
            }),
        }
    }
}

impl PemFragment {
    /// Returns a path, or a text that contains `marker`.
    fn pem(&self, marker: &str) -> Option<Pem> {
        let text = self.0.trim();
        let is_path = text.starts_with('/') && !text.ends_with('/') && !text.contains(['\0', '\n']);
        match is_path {
            true => Some(Pem::File(PathBuf::from(text))),
            false => (text.len() <= TEXT_MAX && text.contains(marker))
                .then(|| Pem::Text(text.to_owned())),
        }
    }

    fn shown(&self) -> &str {
        if self.0.trim_start().starts_with('/') { &self.0 } else { REDACTED_PEM }
    }
}

impl<'de> Deserialize<'de> for TlsFragment {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct FlagOrOwn;
        impl<'de> Visitor<'de> for FlagOrOwn {
            type Value = TlsFragment;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, `false` or an object with `certificate` and `key`")
            }

            fn visit_bool<E>(self, enabled: bool) -> Result<TlsFragment, E> {
                Ok(TlsFragment::Enabled(enabled))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TlsFragment, A::Error> {
                OwnFragment::deserialize(MapAccessDeserializer::new(map)).map(TlsFragment::Own)
            }
        }
        from.deserialize_any(FlagOrOwn)
    }
}

impl Serialize for TlsFragment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Enabled(enabled) => to.serialize_bool(*enabled),
            Self::Own(OwnFragment { certificate, key }) => {
                let shown = [("certificate", certificate.shown()), ("key", key.shown())];
                to.collect_map(shown)
            }
        }
    }
}

impl fmt::Debug for PemFragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl fmt::Display for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Text(_) => f.write_str(REDACTED_PEM),
        }
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
