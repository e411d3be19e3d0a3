//! The CDN of a test: serves a manifest and its artifacts, and logs all requests.
//!
//! It listens on the loopback interface only, which a guest reaches at 10.0.2.2 (QEMU's user
//! networking). Each path is one configured file, so that no request can reach other files.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, RANGE};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::services::ServeFile;

/// The number of requests that are handled at a time. A guest downloads one file at a time.
const REQUESTS_MAX: usize = 16;
/// The number of requests that are logged, so that a guest that requests endlessly cannot fill the
/// memory.
const LOG_MAX: usize = 10_000;
/// The delay after accept(2) failed, for example because of too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(200);

/// A file that the CDN serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Served {
    /// The path of the URL without the leading slash.
    pub path: String,
    /// The path of the file.
    pub file: PathBuf,
}

/// A request and the status and length of its response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Access {
    /// The method, usually `GET` or `HEAD`.
    pub method: String,
    /// The path with the leading slash.
    pub path: String,
    /// The header `Range` of the request.
    pub range: Option<String>,
    /// The status of the response.
    pub status: u16,
    /// The header `Content-Length` of the response.
    pub length: Option<u64>,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { method, path, status, .. } = self;
        write!(f, "{method} {path} {status}")?;
        self.length.map_or(Ok(()), |length| write!(f, " ({length} bytes)"))
    }
}

/// Returns the accesses as one line for an error message.
pub(crate) fn list(accesses: &[Access]) -> String {
    if accesses.is_empty() {
        return "none".to_owned();
    }
    accesses.iter().map(Access::to_string).collect::<Vec<_>>().join(", ")
}

type Log = Arc<Mutex<Vec<Access>>>;

/// A running server. Dropping it ends the server.
pub(crate) struct Cdn {
    address: SocketAddr,
    log: Log,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
}

impl Cdn {
    /// Starts a server for `files` on a port that the system chooses.
    pub(crate) fn start(files: &[Served]) -> io::Result<Self> {
        let log = Log::default();
        let router = router(files, Arc::clone(&log));
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let server = thread::Builder::new().name("cdn".into()).spawn(move || {
            if let Err(error) = runtime.block_on(serve(listener, router, stopped)) {
                log::error!("the CDN of the test failed: {error}");
            }
        })?;
        Ok(Self { address, log, stop: Some(stop), server: Some(server) })
    }

    /// Returns the address that the server listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the requests so far, in the order of their responses.
    pub(crate) fn accesses(&self) -> Vec<Access> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Cdn {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(server) = self.server.take() {
            // A panic of the thread has already been printed.
            let _ = server.join();
        }
    }
}

fn router(files: &[Served], log: Log) -> Router {
    let mut router = Router::new();
    for served in files {
        // ServeFile handles ranges, HEAD and conditional requests.
        router = router.route_service(&format!("/{}", served.path), ServeFile::new(&served.file));
    }
    router
        // The HTTP driver of UEFI waits forever for the body of a response that has none.
        .fallback(async || (StatusCode::NOT_FOUND, "not found\n"))
        .layer(GlobalConcurrencyLimitLayer::new(REQUESTS_MAX))
        .layer(from_fn_with_state(log, log_request))
}

async fn log_request(State(log): State<Log>, request: Request, next: Next) -> Response {
    let method = request.method().to_string();
    let path = request.uri().path().to_owned();
    let range = request.headers().get(RANGE);
    let range = range.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let response = next.run(request).await;
    let length = response.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    // The router adds the header to a response of its own only after this function.
    let length = length.or_else(|| response.body().size_hint().exact());
    let access = Access { method, path, range, status: response.status().as_u16(), length };
    log::debug!("CDN: {access:?}");
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    if log.len() < LOG_MAX {
        log.push(access);
    }
    drop(log);
    response
}

async fn serve(
    listener: std::net::TcpListener,
    router: Router,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    tokio::spawn(accept(listener, router));
    // Returning ends the runtime with all connections. A stop aborts the downloads in progress,
    // because the guest no longer needs them.
    let _ = stopped.await;
    Ok(())
}

async fn accept(listener: TcpListener, router: Router) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, router.clone()));
            }
            Err(error) => {
                log::warn!("the CDN of the test cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    let served = http1::Builder::new()
        // GRUB recognizes `Content-Length` only in this spelling. Without the header, it takes
        // every file to be empty.
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        log::debug!("a connection to the CDN of the test failed: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    fn cdn() -> (tempfile::TempDir, Cdn) {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            std::fs::write(dir.path().join(name), content).unwrap();
            dir.path().join(name)
        };
        file("secret", "not served");
        let files = [
            Served { path: "x.jwt".into(), file: file("x.jwt", "a.b.c") },
            Served { path: "7/x.initrd".into(), file: file("initrd", "0123456789") },
        ];
        let cdn = Cdn::start(&files).unwrap();
        (dir, cdn)
    }

    /// Sends requests without a client library, which would normalize paths and names of headers.
    fn exchange(cdn: &Cdn, requests: &str) -> String {
        let mut stream = TcpStream::connect(cdn.address()).unwrap();
        stream.write_all(requests.as_bytes()).unwrap();
        let mut responses = String::new();
        stream.read_to_string(&mut responses).unwrap();
        responses
    }

    fn request(cdn: &Cdn, request_line: &str) -> String {
        let request = format!("{request_line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        exchange(cdn, &request).to_ascii_lowercase()
    }

    #[test]
    fn listens_on_loopback_only() {
        assert!(cdn().1.address().ip().is_loopback());
    }

    #[test]
    fn serves_and_logs_configured_paths() {
        let (_dir, cdn) = cdn();
        assert!(request(&cdn, "GET /x.jwt").ends_with("\r\n\r\na.b.c"));
        let head = request(&cdn, "HEAD /7/x.initrd");
        assert!(head.contains("content-length: 10\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        let accesses = cdn.accesses();
        assert_eq!((accesses[0].path.as_str(), accesses[0].status), ("/x.jwt", 200));
        assert_eq!((accesses[1].method.as_str(), accesses[1].length), ("HEAD", Some(10)));
    }

    #[test]
    fn serves_rest_of_file_for_range_request() {
        let (_dir, cdn) = cdn();
        let request =
            "GET /7/x.initrd HTTP/1.1\r\nHost: x\r\nRange: bytes=7-\r\nConnection: close\r\n\r\n";
        let response = exchange(&cdn, request);
        assert!(response.starts_with("HTTP/1.1 206"), "{response}");
        assert!(response.ends_with("\r\n\r\n789"), "{response}");
        assert_eq!(cdn.accesses()[0].range.as_deref(), Some("bytes=7-"));
    }

    #[test]
    fn serves_no_other_paths() {
        let (_dir, cdn) = cdn();
        for path in [
            "/",
            "/secret",
            "/7/",
            "/7/../secret",
            "/../../etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "//etc/passwd",
            "/x.jwt/",
            "/x.jwt/../secret",
        ] {
            let response = request(&cdn, &format!("GET {path}"));
            assert!(response.starts_with("http/1.1 404"), "{path}: {response}");
        }
        assert!(request(&cdn, "POST /x.jwt").starts_with("http/1.1 405"));
    }

    #[test]
    fn sends_headers_in_title_case() {
        let (_dir, cdn) = cdn();
        let request = "GET /x.jwt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let response = exchange(&cdn, request);
        assert!(response.contains("\r\nContent-Length: 5\r\n"), "{response}");
    }

    #[test]
    fn answers_missing_path_with_body_and_keeps_connection() {
        let (_dir, cdn) = cdn();
        let requests = "GET /none HTTP/1.1\r\nHost: x\r\n\r\n\
                        GET /x.jwt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let responses = exchange(&cdn, requests);
        assert!(responses.starts_with("HTTP/1.1 404 Not Found\r\n"), "{responses}");
        assert!(responses.contains("\r\n\r\nnot found\nHTTP/1.1 200 OK\r\n"), "{responses}");
        let listed = list(&cdn.accesses());
        assert_eq!(listed, "GET /none 404 (10 bytes), GET /x.jwt 200 (5 bytes)");
    }

    #[test]
    fn ends_when_dropped_despite_open_connection() {
        let (_dir, cdn) = cdn();
        let address = cdn.address();
        let _idle = TcpStream::connect(address).unwrap();
        drop(cdn);
        assert!(TcpStream::connect(address).is_err());
    }
}
