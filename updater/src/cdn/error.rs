//! What can go wrong on the way to a CDN, and whether asking again may help.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustls::CertificateError;
use ureq::{Error, Timeout};

use super::Times;

/// What a page for people in the place of a file most likely is.
pub(crate) const HTML: &str = "it looks like HTML: the login page of a network (a captive portal), an error page of a proxy, or a server that answers everything with its front page";

/// A network configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file of certificates.
    #[error("cannot use the certificates of \"ca\" in {}: {why}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A proxy. What was found is not shown: it may hold a password.
    #[error("the proxy in {from} is not usable: expected http://[user:password@]host[:port]")]
    Proxy {
        /// The configuration's key, or the name of an environment variable.
        from: String,
    },
}

/// A file that the CDN does not give. URLs are shown without their query, proxies without their
/// credentials.
#[derive(Debug, thiserror::Error)]
pub enum CdnError {
    /// No answer, or half a one.
    #[error(
        "cannot get {url}{via}: {why}; is the CDN up, and are network, name resolution, proxy and clock as they should be?"
    )]
    Unreachable {
        /// The URL.
        url: String,
        /// ` through the proxy …`, or nothing.
        via: String,
        /// What went wrong.
        why: String,
        /// Whether asking again may help.
        is_transient: bool,
    },
    /// A certificate by an authority that is not known here.
    #[error(
        "cannot get {url}{via}: its certificate is signed by an authority that is not trusted here; if it is your own, name its PEM file in \"ca\", else somebody is in between"
    )]
    Untrusted {
        /// The URL.
        url: String,
        /// ` through the proxy …`, or nothing.
        via: String,
    },
    /// Another answer than was asked for.
    #[error("the CDN answers {status} for {url}{via}, expected 200; {}", advice(*status))]
    Status {
        /// The URL.
        url: String,
        /// ` through the proxy …`, or nothing.
        via: String,
        /// The status.
        status: u16,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// An answer that sends us elsewhere.
    #[error(
        "the CDN answers {status} for {url} and redirects to {to}, which is not followed: set \"cdn\" to the address that serves the files, or name the other one in \"allowedOrigins\""
    )]
    Redirect {
        /// The URL.
        url: String,
        /// The status.
        status: u16,
        /// The other server.
        to: String,
    },
    /// An answer that sends us on and on.
    #[error(
        "the CDN redirects {url} more than {max} times: its rewriting rules may run in a circle"
    )]
    Redirects {
        /// The URL that was asked for first.
        url: String,
        /// How many are followed.
        max: usize,
    },
    /// Bytes that are not the file's.
    #[error(
        "the CDN sends {url} with the content encoding {encoding:?}, which was not asked for: files must be served as they are"
    )]
    Encoding {
        /// The URL.
        url: String,
        /// The header's value, shortened.
        encoding: String,
    },
    /// An answer that broke off.
    #[error("{url} could not be read to its end: {why}")]
    Cut {
        /// The URL.
        url: String,
        /// What went wrong.
        why: String,
        /// Whether asking again may help.
        is_transient: bool,
    },
    /// A directory without the file.
    #[error("cannot read {path}: {why}; was it copied to the CDN's directory?")]
    File {
        /// Its path.
        path: String,
        /// What the system says.
        why: io::Error,
    },
}

fn advice(status: u16) -> &'static str {
    match status {
        401 | 403 => "does it, or a proxy, want credentials, or refuse this host?",
        407 => {
            "the proxy wants a user and a password: \"proxy\": \"http://user:password@host:port\""
        }
        408 | 425 | 429 | 500.. => "it may be overloaded or broken",
        _ => "was it published there?",
    }
}

impl CdnError {
    /// Whether asking again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { is_transient, .. } | Self::Cut { is_transient, .. } => {
                *is_transient
            }
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            Self::Untrusted { .. }
            | Self::Redirect { .. }
            | Self::Redirects { .. }
            | Self::Encoding { .. }
            | Self::File { .. } => false,
        }
    }

    /// When the server wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// An answer to another question.
    pub(crate) fn unexpected(url: String, status: u16) -> Self {
        Self::Status { url, via: String::new(), status, retry_after: None }
    }

    /// A request without an answer.
    pub(super) fn unanswered(url: String, via: String, error: &Error) -> Self {
        match tls(error) {
            // The second is one that has the name of a known one, and another key.
            Some(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => Self::Untrusted { url, via },
            _ => Self::Unreachable { url, via, why: shown(error), is_transient: transient(error) },
        }
    }

    /// An answer that broke off.
    pub(super) fn cut(url: String, error: &io::Error) -> Self {
        let (why, is_transient) = why_cut(error);
        Self::Cut { url, why, is_transient }
    }
}

/// Why a body broke off, and whether asking again may help.
pub(super) fn why_cut(error: &io::Error) -> (String, bool) {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner) => (shown(inner), transient(inner)),
        None => (error.to_string(), true),
    }
}

fn tls(error: &Error) -> Option<&rustls::Error> {
    match error {
        Error::Rustls(error) => Some(error),
        Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// A timeout of the whole is no stall: who is that slow stays so.
fn transient(error: &Error) -> bool {
    match error {
        Error::Io(_) => tls(error).is_none(),
        Error::Timeout(timeout) => *timeout != Timeout::Global,
        // Stalled: it ended amid the size of a chunk.
        Error::BodyStalled
        | Error::HostNotFound
        | Error::ConnectionFailed
        | Error::ConnectProxyFailed(_) => true,
        _ => false,
    }
}

/// Errors that may quote a URL, which may hold a secret, are not shown.
fn shown(error: &Error) -> String {
    match error {
        Error::BadUri(_) | Error::Http(_) | Error::InvalidProxyUrl => {
            "the URL is not usable".into()
        }
        Error::Io(error) => error.to_string(),
        Error::Timeout(timeout) => too_long(*timeout),
        other => other.to_string(),
    }
}

/// By the times that hosts have.
fn too_long(timeout: Timeout) -> String {
    let Times { connect, stall, manifest, .. } = Times::default();
    match timeout {
        Timeout::Resolve | Timeout::Connect => {
            format!("timeout: no connection was made in {} s", connect.as_secs())
        }
        Timeout::Global => format!("timeout: it did not come whole in {} s", manifest.as_secs()),
        _ => format!("timeout: the server stalled, nothing came for {} s", stall.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_too_long_is_told_with_its_time() {
        for (timeout, said) in [
            (Timeout::PerRead, "timeout: the server stalled, nothing came for 60 s"),
            (Timeout::RecvResponse, "timeout: the server stalled, nothing came for 60 s"),
            (Timeout::Connect, "timeout: no connection was made in 30 s"),
            (Timeout::Global, "timeout: it did not come whole in 120 s"),
        ] {
            let error = io::Error::other(Error::Timeout(timeout));
            assert_eq!(why_cut(&error).0, said);
        }
    }
}
