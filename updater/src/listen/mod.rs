//! Runs Patterns that are pushed: `POST /etcha/v1/push/<source>` with a JWT as body.
//!
//! Off unless the configuration names keys. What is pushed is signed; it is not encrypted, and
//! neither are the answers.
//!
//! Strangers may connect. What they cost is bounded by [`Limits`], and of what they send nothing is
//! read but a request's head until its method, path and source are those of a push.

mod peers;
mod push;
mod seen;

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
use self::seen::Seen;
use crate::config::Listen;
use crate::host::Host;

/// Where Etcha's clients push to.
const PUSH: &str = "/etcha/v1/push/";
/// Which tokens were taken. Lives as long as the boot.
const SEEN: &str = "/run/etchaos/pushed";
/// A request line and a dozen headers. hyper takes no less than 8 KiB.
const HEAD_MAX: usize = 16 * 1024;
/// After a connection could not be taken (too many open files, say), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What a connection may cost.
#[derive(Clone, Copy)]
struct Limits {
    /// Connections at once; each costs a token's size of memory at most.
    connections: usize,
    /// Connections at once from one address, or from one /64 of IPv6.
    per_peer: usize,
    /// For the head of a request.
    head: Duration,
    /// For its body.
    body: Duration,
    /// For what a client still sends after it was answered.
    linger: Duration,
}

/// More than a person or a CI job needs; a megabyte in half a minute goes over a bad line.
const LIMITS: Limits = Limits {
    connections: 16,
    per_peer: 4,
    head: Duration::from_secs(10),
    body: Duration::from_secs(30),
    linger: Duration::from_secs(2),
};

/// Serves for ever.
pub fn serve(listen: Listen, host: &Host) -> io::Result<()> {
    let seen = Seen::open(host.path(SEEN)).map_err(io::Error::other)?;
    // Known now or not at all.
    clock(host)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(listen.address).await?;
        let address = listener.local_addr()?;
        let names: Vec<&str> = listen.sources.keys().map(String::as_str).collect();
        log::info!("listening on {address} for pushes of {}", names.join(", "));
        let push = Push::new(listen.sources, seen);
        let server = Server { push, host: host.clone(), limits: LIMITS };
        Arc::new(server).accept(&listener).await
    })
}

/// The time now and that of the boot, by the same clock.
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
                    let Some(place) = peers.admit(peer.ip(), self.limits.per_peer) else {
                        log::debug!("{peer} has too many connections");
                        continue;
                    };
                    let server = self.clone();
                    tokio::spawn(async move {
                        server.connection(stream, peer).await;
                        drop((place, permit));
                    });
                }
                Err(error) => {
                    log::warn!("cannot take a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let limits = self.limits;
        let service = service_fn(|request| {
            let server = self.clone();
            async move { Ok::<_, std::convert::Infallible>(server.respond(request, peer).await) }
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
            Ok(parts) => linger(parts.io.into_inner(), limits.linger).await,
            Err(error) => log::debug!("the connection with {peer} broke: {error}"),
        }
    }

    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let (status, body) = match self.handle(request).await {
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

    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Result<String, PushError> {
        let (head, incoming) = request.into_parts();
        let source = self.source(&head)?.to_owned();
        let check = head.uri.query().is_some_and(|q| q.split('&').any(|p| p == "check=true"));
        let token = body(incoming, self.limits.body).await?;
        let clock = clock(&self.host).map_err(|error| PushError::Run(error.to_string()))?;
        // Commands block; other connections are still answered meanwhile.
        tokio::task::spawn_blocking(move || self.push.run(&source, &token, check, clock))
            .await
            .map_err(|error| PushError::Run(error.to_string()))?
    }

    /// Whose push this is, by its head.
    fn source<'a>(&self, head: &'a Parts) -> Result<&'a str, PushError> {
        let source = head.uri.path().strip_prefix(PUSH).ok_or(PushError::Path)?;
        if head.method != Method::POST {
            return Err(PushError::Method);
        }
        self.push.knows(source)?;
        Ok(source)
    }
}

async fn body(incoming: Incoming, patience: Duration) -> Result<String, PushError> {
    if incoming.size_hint().lower() > TOKEN_MAX as u64 {
        return Err(PushError::TooLarge);
    }
    let limited = Limited::new(incoming, TOKEN_MAX).collect();
    let collected =
        timeout(patience, limited).await.map_err(|_| PushError::Body("it took too long".into()))?;
    match collected {
        Ok(body) => String::from_utf8(body.to_bytes().to_vec())
            .map_err(|_| PushError::Body("it is not text".into())),
        Err(error) if error.is::<LengthLimitError>() => Err(PushError::TooLarge),
        Err(error) => Err(PushError::Body(error.to_string())),
    }
}

/// Closes a connection whose client may still be sending: were it closed at once, the answer could
/// get lost. What comes is dropped, for a while.
async fn linger(mut stream: TcpStream, patience: Duration) {
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
    // Whether it ended well makes no difference any more.
    let _ = timeout(patience, drain).await;
}

#[cfg(test)]
mod tests;
