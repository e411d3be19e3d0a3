//! An HTTP server that runs pushed Patterns: `POST /etcha/v1/push/<source>` with a JWT as body. It also gives
//! clients a shell ([`crate::shell_server`]).
//!
//! It is off unless the configuration has keys for it. Pushes are signed. They and the responses are encrypted,
//! with the certificate of [`crate::tls`], unless the configuration asks for plain HTTP.
//!
//! Anyone may connect. [`Limits`] bounds the resources of a connection, and only the head of a request is
//! read until its method, path and source are found to be those of a push.

mod answer;
mod peers;
mod push;
mod query;
mod replay;
mod request_line;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt::TcpUserTimeout};
use protocol::shell::{self, Binding};
use protocol::token::TOKEN_MAX;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::peers::Peers;
use self::push::{Clock, Push, PushError};
use self::query::Query;
use self::replay::ReplayGuard;
use self::request_line::{Fragment, RequestLine};
use crate::config::Listen;
use crate::host::Host;
use crate::record::{self, Listening};
use crate::shell_server::{Admitted, Shells};
use crate::sources::Runner;
use crate::tls::{self, Acceptor, Identity, Incoming as Connection};

/// The path to which clients of Etcha push.
const PUSH_PATH: &str = "/etcha/v1/push/";
/// The file with the tokens that were accepted during this boot.
const ACCEPTED_FILE: &str = "/run/etchaos/pushed";
/// The limit on a request line with a dozen headers. The minimum of hyper is 8 KiB.
const HEAD_MAX: usize = 16 * 1024;
/// How many characters of the path of a request are logged: anyone may send one.
const LOGGED_PATH_MAX: usize = 300;
/// The delay after accept(2) failed, for example because of too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(200);

/// The answer to a client that sends plain HTTP.
const PLAIN_HTTP: &str = "this port expects TLS: push to https://, or set \"listen.tls\" to false in the configuration of the host";

/// The limits of connections.
#[derive(Clone, Copy)]
struct Limits {
    /// Simultaneous connections. Each needs at most the memory of one token, and then of its answer.
    connections: usize,
    /// Simultaneous connections from one address, or from one /64 of IPv6.
    per_peer: usize,
    /// The timeout of the handshake of TLS, and again of reading the head of a request.
    head: Duration,
    /// The timeout of reading its body.
    body: Duration,
    /// How long a client may read nothing of the response.
    response: Duration,
    /// How long data is still read after the response; see [`linger`].
    linger: Duration,
}

/// These are more than a person or a CI job needs. A slow line transfers a megabyte in 30 s.
const LIMITS: Limits = Limits {
    connections: 16,
    per_peer: 4,
    head: Duration::from_secs(10),
    body: Duration::from_secs(30),
    response: Duration::from_secs(60),
    linger: Duration::from_secs(2),
};

/// Serves pushes until the process ends.
///
/// # Errors
/// Fails if the address cannot be bound, if the certificate cannot be used, or if the accepted tokens or the
/// uptime cannot be read.
pub(crate) fn serve(
    listen: Listen,
    identity: Option<&Identity>,
    runner: Runner,
    host: &Host,
) -> io::Result<()> {
    let accepted = ReplayGuard::open(host.path(ACCEPTED_FILE)).map_err(io::Error::other)?;
    // Without the uptime no push can be accepted, so fail now.
    clock(host)?;
    let acceptor = identity.map(Acceptor::new).transpose().map_err(io::Error::other)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(listen.address).await?;
        let address = listener.local_addr()?;
        announce(host, address, &listen, identity);
        let push = Push::new(listen.sources, runner, accepted);
        let shells = Shells::new(listen.shells, host);
        let server = Server { push, shells, acceptor, host: host.clone(), limits: LIMITS };
        Arc::new(server).accept(&listener).await
    })
}

/// Logs and records the address and the fingerprint of the certificate, by which clients recognise this host.
fn announce(host: &Host, address: SocketAddr, listen: &Listen, identity: Option<&Identity>) {
    let names: Vec<&str> = listen.sources.keys().map(String::as_str).collect();
    let names = names.join(", ");
    let fingerprint = identity.map(Identity::fingerprint);
    match &fingerprint {
        Some(sha256) => log::info!(
            "listening on {address} for pushes from {names}; the certificate has the SHA-256 {sha256}"
        ),
        None => log::warn!("listening on {address} for pushes from {names}, without TLS"),
    }
    let public_key = identity.and_then(Identity::public_key_pin);
    let (time, address) = (crate::clock::now(), address.to_string());
    record::write(host, &Listening { time, address, certificate: fingerprint, public_key });
}

/// Returns the current time and the time of the boot.
fn clock(host: &Host) -> io::Result<Clock> {
    let now = crate::clock::now();
    Ok(Clock { now, booted: now.saturating_sub(host.uptime()?.as_secs()) })
}

struct Server {
    push: Push,
    shells: Shells,
    /// `None` for plain HTTP.
    acceptor: Option<Acceptor>,
    host: Host,
    limits: Limits,
}

impl Server {
    async fn accept(self: Arc<Self>, listener: &TcpListener) -> io::Result<()> {
        let free = Arc::new(Semaphore::new(self.limits.connections));
        let peers = Arc::new(Peers::default());
        loop {
            let permit = free.clone().acquire_owned().await.map_err(io::Error::other)?;
            match listener.accept().await {
                Ok((stream, peer)) => {
                    if let Err(error) = close_if_stuck(&stream, self.limits.response) {
                        log::debug!("the connection from {peer} failed: {error}");
                        continue;
                    }
                    let Some(slot) = peers.acquire(peer.ip(), self.limits.per_peer) else {
                        log::debug!("closing a connection from {peer}, which has too many");
                        continue;
                    };
                    let server = self.clone();
                    tokio::spawn(async move {
                        server.connection(stream, peer).await;
                        drop((slot, permit));
                    });
                }
                Err(error) => {
                    log::warn!("cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let Some(acceptor) = &self.acceptor else {
            return self.requests(stream, None, peer).await;
        };
        match acceptor.accept(stream, self.limits.head).await {
            Ok(Connection::Tls(stream)) => {
                let binding = tls::binding(&stream);
                self.requests(*stream, binding, peer).await;
            }
            Ok(Connection::Plain(stream)) => {
                log::info!("{peer} did not use TLS");
                refuse_plain(stream, self.limits.linger).await;
            }
            Err(error) => log::debug!("the TLS handshake with {peer} failed: {error}"),
        }
    }

    /// Serves the request of a connection, and then the shell that it may have asked for.
    async fn requests<S>(self: Arc<Self>, stream: S, binding: Option<Binding>, peer: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (limits, fragment) = (self.limits, Fragment::default());
        let stream = RequestLine::new(stream, fragment.clone());
        let admitted = Arc::new(Mutex::new(None));
        let service = service_fn(|request: Request<Incoming>| {
            let (server, fragment, admitted) = (self.clone(), fragment.clone(), admitted.clone());
            async move {
                let response = match request.uri().path().strip_prefix(shell::PATH) {
                    Some(source) => match server.admit(source, &request, binding, peer) {
                        Ok(client) => {
                            *admitted.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);
                            switching_protocols()
                        }
                        Err((status, body)) => json_response(status, body),
                    },
                    None => server.respond(request, &fragment, peer).await,
                };
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_buf_size(HEAD_MAX)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service)
            .without_shutdown()
            .await;
        let admitted = admitted.lock().unwrap_or_else(PoisonError::into_inner).take();
        match served {
            Ok(parts) => {
                let stream = parts.io.into_inner().into_inner();
                match admitted {
                    Some(client) => self.shells.serve(client, stream, &parts.read_buf, peer).await,
                    None => linger(stream, limits.linger).await,
                }
            }
            Err(error) => log::debug!("the connection from {peer} failed: {error}"),
        }
    }

    /// Decides about a request for a shell. Returns the status and the body of a refusal.
    fn admit(
        &self,
        source: &str,
        request: &Request<Incoming>,
        binding: Option<Binding>,
        peer: SocketAddr,
    ) -> Result<Admitted, (StatusCode, String)> {
        let refused = |status: StatusCode, error: String| {
            log::warn!("{peer} asked for a shell of {source:?} and was refused: {error}");
            (status, answer::refused(&error))
        };
        let keys = self.push.key_ring(source);
        let keys = keys.map_err(|error| refused(error.status(), error.to_string()))?;
        let admitted = self.shells.admit(source, keys, request, binding, crate::clock::now());
        admitted.map_err(|error| refused(error.status(), error.to_string()))
    }

    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        fragment: &Fragment,
        peer: SocketAddr,
    ) -> Response<Full<Bytes>> {
        let path: String = request.uri().path().chars().take(LOGGED_PATH_MAX).collect();
        let (status, body) = match self.handle(request, fragment).await {
            Ok(ran) => ran,
            Err(error) => (error.status(), answer::refused(&error.to_string())),
        };
        let code = status.as_u16();
        log::info!(peer = peer.to_string().as_str(), status = code; "{peer} pushed to {path:?}: {code}");
        json_response(status, body)
    }

    async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        fragment: &Fragment,
    ) -> Result<(StatusCode, String), PushError> {
        let (head, incoming) = request.into_parts();
        let source = self.source(&head)?.to_owned();
        if fragment.is_present() {
            return Err(PushError::Fragment);
        }
        let query = Query::parse(head.uri.query().unwrap_or_default())?;
        let token = body(incoming, self.limits.body).await?;
        let clock = clock(&self.host).map_err(|error| PushError::Run(error.to_string()))?;
        // Commands block, and other connections are served meanwhile.
        tokio::task::spawn_blocking(move || self.push.run(&source, &token, &query, clock))
            .await
            .map_err(|error| PushError::Run(error.to_string()))?
    }

    /// Returns the source of a push from the head of the request.
    fn source<'a>(&self, head: &'a Parts) -> Result<&'a str, PushError> {
        let source = head.uri.path().strip_prefix(PUSH_PATH).ok_or(PushError::Path)?;
        if head.method != Method::POST {
            return Err(PushError::Method);
        }
        self.push.key_ring(source)?;
        Ok(source)
    }
}

/// Makes the kernel close a connection whose other side acknowledges nothing, or has no room for more data, for
/// `limit` (`TCP_USER_TIMEOUT`, tcp(7)). Otherwise a client that reads nothing could occupy a connection forever.
fn close_if_stuck(stream: &TcpStream, limit: Duration) -> io::Result<()> {
    let milliseconds = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
    Ok(setsockopt(stream, TcpUserTimeout, &milliseconds)?)
}

fn json_response(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// The response after which the connection has the frames of a shell.
fn switching_protocols() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(shell::UPGRADE));
    response
}

/// Reads the body of a request.
async fn body(incoming: Incoming, timeout_duration: Duration) -> Result<String, PushError> {
    if incoming.size_hint().lower() > TOKEN_MAX as u64 {
        return Err(PushError::TooLarge);
    }
    let limited = Limited::new(incoming, TOKEN_MAX).collect();
    let collected = timeout(timeout_duration, limited)
        .await
        .map_err(|_| PushError::Body("it was not received in time".into()))?;
    match collected {
        Ok(body) => String::from_utf8(body.to_bytes().to_vec())
            .map_err(|_| PushError::Body("it is not UTF-8 text".into())),
        Err(error) if error.is::<LengthLimitError>() => Err(PushError::TooLarge),
        Err(error) => Err(PushError::Body(error.to_string())),
    }
}

/// Answers a client that sent plain HTTP to a server with TLS.
async fn refuse_plain(mut stream: TcpStream, timeout_duration: Duration) {
    let body = answer::refused(PLAIN_HTTP);
    let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close";
    let response = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    // The response fits into the buffer of the socket. A client that does not read it gets none.
    if stream.write_all(response.as_bytes()).await.is_ok() {
        linger(stream, timeout_duration).await;
    }
}

/// Closes a connection whose client may still be sending. Closing it at once would reset it, and the
/// client could lose the response (RFC 9112 section 9.6). Data that arrives meanwhile is dropped.
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin, timeout_duration: Duration) {
    let drain = async {
        stream.shutdown().await?;
        let mut buffer = [0; 4096];
        let mut left = 2 * TOKEN_MAX;
        while left > 0 {
            match stream.read(&mut buffer).await? {
                0 => break,
                length => left = left.saturating_sub(length),
            }
        }
        Ok::<_, io::Error>(())
    };
    // The response was sent; an error now has no consequence.
    let _ = timeout(timeout_duration, drain).await;
}

#[cfg(test)]
mod tests;
