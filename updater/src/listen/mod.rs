//! Runs Patterns that are pushed: `POST /etcha/v1/push/<source>` with a JWT as body.
//!
//! Off unless the configuration names keys. What is pushed is signed; it is not encrypted, and
//! neither are the answers.

mod push;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use protocol::pattern::Mode;
use protocol::token::TOKEN_MAX;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use self::push::{Push, PushError};
use crate::config::Listen;

/// Where Etcha's clients push to.
const PUSH: &str = "/etcha/v1/push/";
/// More at once than a person or a CI job needs; each costs a token's size of memory at most.
const CONNECTIONS_MAX: usize = 16;
/// For the header of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// For its body: a megabyte over a bad line.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// After a connection could not be taken (too many open files, say), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves for ever.
pub fn serve(listen: Listen) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(listen.address).await?;
        let address = listener.local_addr()?;
        let names: Vec<&str> = listen.sources.keys().map(String::as_str).collect();
        log::info!("listening on {address} for pushes of {}", names.join(", "));
        let push = Arc::new(Push::new(listen.sources));
        accept(&listener, &push).await
    })
}

async fn accept(listener: &TcpListener, push: &Arc<Push>) -> io::Result<()> {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = free.clone().acquire_owned().await.map_err(io::Error::other)?;
        match listener.accept().await {
            Ok((stream, peer)) => {
                let push = push.clone();
                tokio::spawn(async move {
                    connection(stream, peer, push).await;
                    drop(permit);
                });
            }
            Err(error) => {
                log::warn!("cannot take a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, push: Arc<Push>) {
    let service = service_fn(|request| {
        let push = push.clone();
        async move { Ok::<_, std::convert::Infallible>(respond(request, peer, push).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        log::debug!("the connection with {peer} broke: {error}");
    }
}

async fn respond(
    request: Request<Incoming>,
    peer: SocketAddr,
    push: Arc<Push>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let (status, body) = match handle(request, push).await {
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

async fn handle(request: Request<Incoming>, push: Arc<Push>) -> Result<String, PushError> {
    let (head, incoming) = request.into_parts();
    // Read in any case: who still sends when the connection is closed does not see the answer.
    let token = body(incoming).await;
    let source = head.uri.path().strip_prefix(PUSH).ok_or(PushError::Path)?.to_owned();
    if head.method != Method::POST {
        return Err(PushError::Method);
    }
    let check = head.uri.query().is_some_and(|q| q.split('&').any(|p| p == "check=true"));
    let mode = if check { Mode::Check } else { Mode::Change };
    push.knows(&source)?;
    let token = token?;
    // Commands block; other connections are still answered meanwhile.
    tokio::task::spawn_blocking(move || push.run(&source, &token, mode, crate::commands::now()))
        .await
        .map_err(|error| PushError::Run(error.to_string()))?
}

async fn body(incoming: Incoming) -> Result<String, PushError> {
    let limited = Limited::new(incoming, TOKEN_MAX).collect();
    let collected = tokio::time::timeout(BODY_TIMEOUT, limited)
        .await
        .map_err(|_| PushError::Body("it took too long".into()))?;
    match collected {
        Ok(body) => String::from_utf8(body.to_bytes().to_vec())
            .map_err(|_| PushError::Body("it is not text".into())),
        Err(error) if error.is::<LengthLimitError>() => Err(PushError::TooLarge),
        Err(error) => Err(PushError::Body(error.to_string())),
    }
}
