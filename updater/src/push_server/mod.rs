//! An HTTP server that runs pushed Patterns: `POST /etcha/v1/push/<source>` with a JWT as body.
//!
//! It is off unless the configuration has keys for it. Pushes are signed; neither they nor the responses
//! are encrypted.
//!
//! Anyone may connect. [`Limits`] bounds the resources of a connection, and only the head of a request is
//! read until its method, path and source are found to be those of a push.

mod peers;
mod push;
mod replay;
mod request_line;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use protocol::token::TOKEN_MAX;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::peers::Peers;
use self::push::{Clock, Push, PushError};
use self::replay::ReplayGuard;
use self::request_line::{Fragment, RequestLine};
use crate::config::Listen;
use crate::host::Host;
use crate::sources::Runner;

/// The path to which clients of Etcha push.
const PUSH_PATH: &str = "/etcha/v1/push/";
/// The file with the tokens that were accepted during this boot.
const ACCEPTED_FILE: &str = "/run/etchaos/pushed";
/// The limit on a request line with a dozen headers. The minimum of hyper is 8 KiB.
const HEAD_MAX: usize = 16 * 1024;
/// The delay after accept(2) failed, for example because of too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(200);

/// The limits of connections.
#[derive(Clone, Copy)]
struct Limits {
    /// Simultaneous connections. Each needs at most the memory of one token.
    connections: usize,
    /// Simultaneous connections from one address, or from one /64 of IPv6.
    per_peer: usize,
    /// The timeout of reading the head of a request.
    head: Duration,
    /// The timeout of reading its body.
    body: Duration,
    /// How long data is still read after the response; see [`linger`].
    linger: Duration,
}

/// These are more than a person or a CI job needs. A slow line transfers a megabyte in 30 s.
const LIMITS: Limits = Limits {
    connections: 16,
    per_peer: 4,
    head: Duration::from_secs(10),
    body: Duration::from_secs(30),
    linger: Duration::from_secs(2),
};

/// Serves pushes until the process ends.
///
/// # Errors
/// Fails if the address cannot be bound, or if the accepted tokens or the uptime cannot be read.
pub(crate) fn serve(listen: Listen, runner: Runner, host: &Host) -> io::Result<()> {
    let accepted = ReplayGuard::open(host.path(ACCEPTED_FILE)).map_err(io::Error::other)?;
    // Without the uptime no push can be accepted, so fail now.
    clock(host)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(listen.address).await?;
        let address = listener.local_addr()?;
        let names: Vec<&str> = listen.sources.keys().map(String::as_str).collect();
        log::info!("listening on {address} for pushes from {}", names.join(", "));
        let push = Push::new(listen.sources, runner, accepted);
        let server = Server { push, host: host.clone(), limits: LIMITS };
        Arc::new(server).accept(&listener).await
    })
}

/// Returns the current time and the time of the boot.
fn clock(host: &Host) -> io::Result<Clock> {
    let now = crate::clock::now();
    Ok(Clock { now, booted: now.saturating_sub(host.uptime()?.as_secs()) })
}

struct Server {
    push: Push,
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
        let (limits, fragment) = (self.limits, Fragment::default());
        let stream = RequestLine::new(stream, fragment.clone());
        let service = service_fn(|request| {
            let (server, fragment) = (self.clone(), fragment.clone());
            async move {
                let response = server.respond(request, &fragment, peer).await;
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
        match served {
            Ok(parts) => linger(parts.io.into_inner().into_inner(), limits.linger).await,
            Err(error) => log::debug!("the connection from {peer} failed: {error}"),
        }
    }

    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        fragment: &Fragment,
        peer: SocketAddr,
    ) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let (status, body) = match self.handle(request, fragment).await {
            Ok(report) => (StatusCode::OK, report),
            Err(error) => (error.status(), json!({"error": error.to_string()}).to_string()),
        };
        let code = status.as_u16();
        log::info!(peer = peer.to_string().as_str(), status = code; "{peer} pushed to {path:?}: {code}");
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        let json = hyper::header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }

    async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        fragment: &Fragment,
    ) -> Result<String, PushError> {
        let (head, incoming) = request.into_parts();
        let source = self.source(&head)?.to_owned();
        if fragment.is_present() {
            return Err(PushError::Fragment);
        }
        let check = asks_for_check(head.uri.query().unwrap_or_default())?;
        let token = body(incoming, self.limits.body).await?;
        let clock = clock(&self.host).map_err(|error| PushError::Run(error.to_string()))?;
        // Commands block, and other connections are served meanwhile.
        tokio::task::spawn_blocking(move || self.push.run(&source, &token, check, clock))
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

/// Returns whether the query of a push asks for a check. Etcha's clients write `check` without a value.
///
/// # Errors
/// Fails if the query has anything else. Whoever sent it expects less than all Commands to run, so none may.
fn asks_for_check(query: &str) -> Result<bool, PushError> {
    let mut check = false;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter {
            "check" | "check=" | "check=true" | "check=1" => check = true,
            other => {
                let name = other.split('=').next().unwrap_or_default();
                return Err(PushError::Query(name.chars().take(32).collect()));
            }
        }
    }
    Ok(check)
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

/// Closes a connection whose client may still be sending. Closing it at once would reset it, and the
/// client could lose the response (RFC 9112 section 9.6). Data that arrives meanwhile is dropped.
async fn linger(mut stream: TcpStream, timeout_duration: Duration) {
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
