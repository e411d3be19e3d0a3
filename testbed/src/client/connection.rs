//! A connection to a listener, and a request over it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, UPGRADE, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use protocol::shell::{Binding, EXPORTER_LABEL};
use rustls::pki_types::ServerName;
use rustls::{CertificateError, Error as TlsError, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::address::Address;
use super::reason::shown;
use super::trust::{Fingerprint, Trust};

/// The limit for connecting to one address, and for the handshake of TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer in bytes. A report with hundreds of packages takes 100 kB.
const ANSWER_MAX: usize = 8 << 20;
/// The largest head of an answer in bytes.
const HEAD_MAX: usize = 64 << 10;

/// A stream of bytes in both directions.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection to a listener.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    binding: Option<Binding>,
}

/// A connection after an upgrade.
pub(crate) type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

impl Connection {
    /// Returns what the token of a shell on this connection is bound to. There is none before TLS 1.3.
    pub(crate) fn shell_binding(&self) -> Option<Binding> {
        self.binding
    }
}

/// How far a request came when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing was sent.
    Connect,
    /// The request was sent, at least in part.
    Request,
}

/// Why a listener cannot be reached, or did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The name has no address, or no address accepts a connection.
    #[error("cannot connect to {authority}: {error}")]
    Connect {
        authority: String,
        /// The error of the last address.
        error: io::Error,
    },
    /// The listener does not speak TLS.
    #[error(
        "{0} does not answer with TLS; if it is meant to be without encryption, write http:// before its name"
    )]
    NotTls(String),
    /// The certificate is not trusted.
    #[error("{0}")]
    Certificate(String),
    /// The handshake failed for another reason, or could not be started.
    #[error("the TLS handshake with {authority} failed: {reason}")]
    Tls { authority: String, reason: String },
    /// The connection failed after it was made.
    #[error("the connection to {authority} failed: {reason}")]
    Broken { authority: String, reason: String },
    /// The answer is larger than [`ANSWER_MAX`].
    #[error("the answer of {0} is larger than {ANSWER_MAX} bytes")]
    TooLarge(String),
}

impl ClientError {
    /// Returns whether the request may have reached the listener.
    pub(crate) fn phase(&self) -> Phase {
        match self {
            Self::Connect { .. } | Self::NotTls(_) | Self::Certificate(_) | Self::Tls { .. } => {
                Phase::Connect
            }
            Self::Broken { .. } | Self::TooLarge(_) => Phase::Request,
        }
    }
}

/// The answer to a request.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

/// Connects to a listener.
///
/// # Errors
/// Fails if it cannot be reached, or if its certificate is not trusted.
pub(crate) async fn connect(address: &Address, trust: &Trust) -> Result<Connection, ClientError> {
    let tcp = connect_tcp(address).await?;
    if !address.tls {
        return Ok(Connection { stream: Box::new(tcp), binding: None });
    }
    let authority = address.authority();
    let failed = |reason: String| ClientError::Tls { authority: authority.clone(), reason };
    let (config, presented) = trust.client_config().map_err(failed)?;
    let name = ServerName::try_from(address.host.clone()).map_err(|e| failed(e.to_string()))?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    match timeout(CONNECT_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => {
            let binding = binding(&stream);
            Ok(Connection { stream: Box::new(stream), binding })
        }
        Ok(Err(error)) => Err(handshake_error(&error, address, trust, presented.get())),
        Err(_) => Err(failed("timeout".into())),
    }
}

fn binding(stream: &TlsStream<TcpStream>) -> Option<Binding> {
    let (_, connection) = stream.get_ref();
    let is_suitable = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    let export = || connection.export_keying_material([0; 32], EXPORTER_LABEL, None);
    is_suitable.then(export)?.ok().map(Binding)
}

/// Tries the addresses of a host one after the other.
async fn connect_tcp(address: &Address) -> Result<TcpStream, ClientError> {
    let failed = |error| ClientError::Connect { authority: address.authority(), error };
    let lookup = tokio::net::lookup_host((address.host.as_str(), address.port));
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup.await.map_err(failed)? {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, "timeout"),
        }
    }
    Err(failed(last))
}

fn handshake_error(
    error: &io::Error,
    address: &Address,
    trust: &Trust,
    presented: Option<&Fingerprint>,
) -> ClientError {
    let authority = address.authority();
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    match (tls, presented) {
        (Some(TlsError::InvalidCertificate(reason)), Some(found)) => {
            ClientError::Certificate(untrusted(&authority, reason, trust, found))
        }
        (Some(TlsError::InvalidMessage(_)), None) => ClientError::NotTls(authority),
        _ => ClientError::Tls { authority, reason: error.to_string() },
    }
}

fn untrusted(
    authority: &str,
    reason: &CertificateError,
    trust: &Trust,
    found: &Fingerprint,
) -> String {
    match trust {
        Trust::Fingerprint(expected) => format!(
            "the certificate of {authority} has the fingerprint {found}, expected {expected}: either \
             the host has a new certificate, or another machine answers in its place"
        ),
        _ => format!(
            "the certificate of {authority} is not trusted: {reason}; its fingerprint is {found}: \
             compare it with that in the status of the host, and if it is the same, give it with \
             --fingerprint",
            // It has the names in the certificate.
            reason = shown(reason.to_string().as_bytes())
        ),
    }
}

/// Sends `body` by POST to a path and query, and returns the answer, whatever its status is.
///
/// # Errors
/// Fails if there is no complete answer.
pub(crate) async fn post(
    connection: Connection,
    address: &Address,
    target: &str,
    content_type: &str,
    body: String,
) -> Result<Answered, ClientError> {
    let authority = address.authority();
    let request = request(Method::POST, &authority, target)
        .header(CONTENT_TYPE, content_type)
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| broken(&authority, &error))?;
    let response = send(connection, &authority, request).await?;
    answered(response, authority).await
}

/// Asks for an upgrade of the connection, with a token. Returns the connection, or the answer if the listener
/// refuses it.
///
/// # Errors
/// Fails if there is no complete answer.
pub(crate) async fn upgrade(
    connection: Connection,
    address: &Address,
    target: &str,
    protocol: &str,
    token: &str,
) -> Result<Result<Upgraded, Answered>, ClientError> {
    let authority = address.authority();
    let request = request(Method::GET, &authority, target)
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, protocol)
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .body(Full::default())
        .map_err(|error| broken(&authority, &error))?;
    let response = send(connection, &authority, request).await?;
    let is_upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS
        && response.headers().get(UPGRADE).is_some_and(|found| found == protocol);
    if !is_upgraded {
        return answered(response, authority).await.map(Err);
    }
    let upgraded = hyper::upgrade::on(response).await;
    Ok(Ok(TokioIo::new(upgraded.map_err(|error| broken(&authority, &error))?)))
}

fn request(method: Method, authority: &str, target: &str) -> hyper::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(target)
        .header(HOST, authority)
        .header(USER_AGENT, concat!("etchaos-testbed/", env!("CARGO_PKG_VERSION")))
}

/// Sends a request and returns the head of the answer.
async fn send(
    connection: Connection,
    authority: &str,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, ClientError> {
    let (mut sender, driver) = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .handshake(TokioIo::new(connection.stream))
        .await
        .map_err(|error| broken(authority, &error))?;
    // Without the driver nothing is sent or received. It ends with the connection.
    tokio::spawn(driver.with_upgrades());
    sender.send_request(request).await.map_err(|error| broken(authority, &error))
}

/// Reads the body of an answer.
async fn answered(
    response: Response<Incoming>,
    authority: String,
) -> Result<Answered, ClientError> {
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    match body {
        Ok(body) => Ok(Answered { status, body: body.to_bytes() }),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(ClientError::TooLarge(authority))
        }
        Err(error) => Err(broken(&authority, &*error)),
    }
}

fn broken(authority: &str, error: &dyn std::error::Error) -> ClientError {
    ClientError::Broken { authority: authority.to_owned(), reason: with_causes(error) }
}

/// Returns an error with its causes, which hyper's errors do not show.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
