//! Errors of requests, and which of them are transient.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use protocol::url::HOST_MAX;
use rustls::CertificateError;
use ureq::{Error, Timeout};

use super::redirect::Refusal;
use super::timeouts::Timeouts;

/// Likely reasons for an HTML page in the place of a file.
pub(crate) const HTML_HINT: &str = "it looks like HTML: the login page of a network (a captive portal), an error page of a proxy, or a server that answers everything with its front page";

/// A network configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetworkConfigError {
    /// A file of certificates is not usable.
    #[error("cannot use the certificates of \"ca\" in {}: {reason}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A proxy is not usable. Its value is not shown, because it may contain a password.
    #[error("the proxy in {from} is not usable: expected http://[user:password@]host[:port]")]
    Proxy {
        /// The configuration key or the environment variable.
        from: String,
    },
}

/// A failed request. URLs are shown without their query, proxies without their credentials.
#[derive(Debug, thiserror::Error)]
pub enum CdnError {
    /// There was no complete response head.
    #[error(
        "cannot get {url}{via}: {reason}; is the CDN up? Check the network, name resolution, the proxy and the clock"
    )]
    Unreachable {
        /// The URL.
        url: String,
        /// ` through the proxy …`, or empty.
        via: String,
        /// The reason.
        reason: String,
        /// Whether a retry may help.
        is_transient: bool,
    },
    /// The certificate's authority is not trusted.
    #[error(
        "cannot get {url}{via}: its certificate is signed by an authority that is not trusted here; if it is your own authority, add its PEM file to \"ca\"; otherwise the connection may be intercepted, perhaps by a network that asks for a login (a captive portal)"
    )]
    Untrusted {
        /// The URL.
        url: String,
        /// ` through the proxy …`, or empty.
        via: String,
    },
    /// The certificate is that of another server.
    #[error(
        "cannot get {url}{via}: {reason}; another server answers in the place of the CDN: check the URL and the name resolution, and whether the network asks for a login (a captive portal)"
    )]
    OtherServer {
        /// The URL.
        url: String,
        /// ` through the proxy …`, or empty.
        via: String,
        /// The reason.
        reason: String,
    },
    /// The proxy makes no tunnel to the server.
    #[error(
        "cannot get {url}{via}, which responded with status {status} to the request for a tunnel; {}",
        tunnel_advice(*status)
    )]
    Tunnel {
        /// The URL.
        url: String,
        /// ` through the proxy …`.
        via: String,
        /// The status.
        status: u16,
    },
    /// The status is not the expected one.
    #[error("the CDN responded with status {status} for {url}{via}, expected 200; {}", advice(*status))]
    Status {
        /// The URL.
        url: String,
        /// ` through the proxy …`, or empty.
        via: String,
        /// The status.
        status: u16,
        /// The pause that the server requests.
        retry_after: Option<Duration>,
    },
    /// The server redirects to an origin or path that is not allowed.
    #[error(
        "the CDN responded with status {status} for {url} and redirects to {to}, which is not followed: {advice}"
    )]
    Redirect {
        /// The URL.
        url: String,
        /// The status.
        status: u16,
        /// The origin of the target.
        to: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// A network answers in the place of the server, and redirects to its login page.
    #[error(
        "the request for {url} was answered with status {status} and a redirect to {to}, which is not followed: it looks like the login page of a network (a captive portal), so the CDN was not reached; log in to the network, or have this host exempted from the login"
    )]
    Portal {
        /// The URL.
        url: String,
        /// The status.
        status: u16,
        /// The origin of the target.
        to: String,
    },
    /// There were too many redirects.
    #[error("the CDN redirects {url} more than {max} times: its rewrite rules may form a loop")]
    TooManyRedirects {
        /// The URL of the first request.
        url: String,
        /// The maximum number of redirects.
        max: usize,
    },
    /// The body has a content encoding, so its bytes are not those of the file.
    #[error(
        "the CDN sends {url} with the content encoding {encoding:?}, which was not requested: configure the server to send files unmodified"
    )]
    Encoding {
        /// The URL.
        url: String,
        /// The header's value, shortened.
        encoding: String,
    },
    /// The body ended early.
    #[error("{url} could not be read to its end: {reason}")]
    Incomplete {
        /// The URL.
        url: String,
        /// The reason.
        reason: String,
        /// Whether a retry may help.
        is_transient: bool,
    },
    /// A file in a directory cannot be read.
    #[error("cannot read {path}: {error}; was it copied to the CDN's directory?")]
    File {
        /// Its path.
        path: String,
        /// The error of the operating system.
        error: io::Error,
    },
}

fn advice(status: u16) -> &'static str {
    match status {
        401 | 403 => "the server or a proxy may require credentials or reject this host",
        407 => {
            "the proxy requires a user and a password: set \"proxy\": \"http://user:password@host:port\""
        }
        511 => {
            "the network requires a login (a captive portal), so the CDN was not reached: log in to the network, or have this host exempted from the login"
        }
        408 | 425 | 429 | 500.. => "the server may be overloaded or broken",
        _ => "was the file published there?",
    }
}

fn tunnel_advice(status: u16) -> &'static str {
    match status {
        401 | 403 | 407 | 408 | 425 | 429 | 500.. => advice(status),
        _ => "the proxy does not allow tunnels to this server and port",
    }
}

/// Returns whether a retry may help after a response with this status. One with a wrong password does not, and
/// could lock the account.
fn is_transient_status(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=510 | 512..=599)
}

impl CdnError {
    /// Returns whether a retry may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { is_transient, .. } | Self::Incomplete { is_transient, .. } => {
                *is_transient
            }
            Self::Status { status, .. } | Self::Tunnel { status, .. } => {
                is_transient_status(*status)
            }
            Self::Untrusted { .. }
            | Self::OtherServer { .. }
            | Self::Redirect { .. }
            | Self::Portal { .. }
            | Self::TooManyRedirects { .. }
            | Self::Encoding { .. }
            | Self::File { .. } => false,
        }
    }

    /// Returns the pause that the server requests before the next attempt.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Makes an error for a response with a status that does not fit the request.
    pub(crate) fn unexpected(url: String, status: u16) -> Self {
        Self::Status { url, via: String::new(), status, retry_after: None }
    }

    /// Makes an error for a redirect that is not followed.
    pub(super) fn redirect(url: String, status: u16, refusal: &Refusal) -> Self {
        let (to, advice) = match refusal {
            Refusal::Foreign(origin) if origin.is_https() => (
                Some(origin),
                "set \"cdn\" to the server that has the files, or add the other origin to \"allowedOrigins\", unless it belongs to a network that asks for a login",
            ),
            Refusal::Foreign(origin) => (
                Some(origin),
                "set \"cdn\" to the server that has the files (\"allowedOrigins\" accepts only https)",
            ),
            Refusal::Downgrade(origin) => (
                Some(origin),
                "it leads from https to http; correct the redirect, or set \"cdn\" to the server that has the files",
            ),
            Refusal::Malformed => (
                None,
                "the location is malformed, or its path has dot segments; correct the redirect of the server",
            ),
        };
        let to = to.map(ToString::to_string).filter(|origin| origin.len() <= HOST_MAX);
        let to = to.unwrap_or_else(|| "a location that is not allowed".to_owned());
        Self::Redirect { url, status, to, advice }
    }

    /// Makes an error for a request without a response.
    pub(super) fn no_response(url: String, via: String, error: &Error) -> Self {
        match tls_error(error) {
            // `BadSignature`: the authority has the name of a trusted one, but another key.
            Some(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => Self::Untrusted { url, via },
            Some(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Self::OtherServer { url, via, reason: describe(error) },
            _ => match tunnel_status(error) {
                Some(status) => Self::Tunnel { url, via, status },
                None => {
                    let (reason, is_transient) = (describe(error), is_transient(error));
                    Self::Unreachable { url, via, reason, is_transient }
                }
            },
        }
    }

    /// Makes an error for a body that ended early.
    pub(super) fn incomplete(url: String, error: &io::Error) -> Self {
        let (reason, is_transient) = describe_read_error(error);
        Self::Incomplete { url, reason, is_transient }
    }
}

/// Returns why a body ended early, and whether a retry may help.
pub(super) fn describe_read_error(error: &io::Error) -> (String, bool) {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner) => (describe(inner), is_transient(inner)),
        None => (error.to_string(), true),
    }
}

/// Returns the status with which a proxy refused a tunnel. ureq has it only in the text of its error,
/// `proxy server responded 407/407`.
fn tunnel_status(error: &Error) -> Option<u16> {
    let Error::ConnectProxyFailed(text) = error else { return None };
    text.rsplit('/').next()?.parse().ok()
}

fn tls_error(error: &Error) -> Option<&rustls::Error> {
    match error {
        Error::Rustls(error) => Some(error),
        Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// Returns whether a retry may help. It does not after the timeout of the whole request: a server that
/// slow is expected to stay slow.
fn is_transient(error: &Error) -> bool {
    match error {
        Error::Io(_) => tls_error(error).is_none(),
        Error::Timeout(timeout) => *timeout != Timeout::Global,
        // `BodyStalled`: the connection was closed within the size of a chunk.
        Error::BodyStalled
        | Error::HostNotFound
        | Error::ConnectionFailed
        | Error::ConnectProxyFailed(_) => true,
        _ => false,
    }
}

/// Describes an error. Omits the details of errors that quote the URL, which may contain a secret.
fn describe(error: &Error) -> String {
    match error {
        Error::BadUri(_) | Error::Http(_) | Error::InvalidProxyUrl => {
            "the URL is not usable".into()
        }
        Error::Io(error) => error.to_string(),
        Error::Timeout(timeout) => describe_timeout(*timeout),
        other => other.to_string(),
    }
}

/// Describes a timeout, with the durations that hosts use.
fn describe_timeout(timeout: Timeout) -> String {
    let Timeouts { connect, stall, manifest, .. } = Timeouts::default();
    match timeout {
        Timeout::Resolve => {
            format!("timeout: no name server answered within {} s", connect.as_secs())
        }
        Timeout::Connect => {
            format!("timeout: no connection after {} s", connect.as_secs())
        }
        Timeout::Global => {
            format!("timeout: the response was not complete after {} s", manifest.as_secs())
        }
        _ => format!("timeout: the server stalled and sent nothing for {} s", stall.as_secs()),
    }
}

/// Removes the query and the fragment of a URL for messages: a query may contain a secret.
pub(super) fn without_query(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn describes_timeouts_with_their_duration() {
        for (timeout, expected) in [
            (Timeout::PerRead, "timeout: the server stalled and sent nothing for 60 s"),
            (Timeout::RecvResponse, "timeout: the server stalled and sent nothing for 60 s"),
            (Timeout::Resolve, "timeout: no name server answered within 30 s"),
            (Timeout::Connect, "timeout: no connection after 30 s"),
            (Timeout::Global, "timeout: the response was not complete after 120 s"),
        ] {
            let error = io::Error::other(Error::Timeout(timeout));
            assert_eq!(describe_read_error(&error).0, expected);
        }
    }
}
