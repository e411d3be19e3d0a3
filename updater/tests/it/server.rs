//! An HTTP server on loopback with configurable responses and faults.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// The duration of a response that never ends. It is longer than any test waits.
const FOREVER: Duration = Duration::from_secs(60);

/// A response.
#[derive(Clone, Default)]
pub(crate) struct Reply {
    pub status: u16,
    pub headers: Vec<String>,
    pub body: Vec<u8>,
    /// The value of `Content-Length` if it is not the body's length; `Some(None)` omits the field.
    pub length: Option<Option<u64>>,
    /// The pause after each byte of the body.
    pub pause: Option<Duration>,
    /// The number of bytes of the body to send before `end`.
    pub cut: Option<usize>,
    pub end: End,
}

/// How a connection ends.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum End {
    #[default]
    Close,
    Reset,
    /// Keeps the connection open without sending anything until the client closes it.
    Stall,
    /// Repeats the body until the client closes the connection.
    Repeat,
}

impl Reply {
    /// Returns a response with status 200 and this body.
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    /// Returns a response without a body.
    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// Adds a header field, such as `ETag: "1"`.
    pub(crate) fn header(mut self, header: impl Into<String>) -> Self {
        self.headers.push(header.into());
        self
    }

    /// Returns the response of a correct server for a file with this ETag. Supports `If-None-Match`, `If-Range` and
    /// `Range`.
    pub(crate) fn file(request: &Request, body: &[u8], etag: &str) -> Self {
        let etag_field = format!("ETag: {etag}");
        if request.header("if-none-match") == Some(etag) {
            return Self::status(304).header(etag_field);
        }
        let is_same = request.header("if-range").is_none_or(|known| known == etag);
        match request.from().filter(|_| is_same) {
            Some(from) if from < body.len() => Self {
                status: 206,
                body: body[from..].to_vec(),
                headers: vec![etag_field, content_range(from, body.len())],
                ..Self::default()
            },
            Some(_) => Self::status(416),
            None => Self::ok(body).header(etag_field),
        }
    }

    /// Ends the response after `after` bytes of the body.
    pub(crate) fn cut(mut self, after: usize, end: End) -> Self {
        (self.cut, self.end) = (Some(after), end);
        self
    }
}

/// Returns a `Content-Range` from a byte to the end.
pub(crate) fn content_range(from: usize, size: usize) -> String {
    format!("Content-Range: bytes {from}-{}/{size}", size - 1)
}

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
    /// The number of earlier requests for this path.
    pub nth: usize,
}

impl Request {
    /// Returns the value of a header field. The name must be in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        found.next().map(|(_, value)| value.as_str())
    }

    /// Returns the first byte of `Range`.
    pub(crate) fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

type Handler = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

#[derive(Default)]
struct State {
    handlers: Mutex<BTreeMap<String, Handler>>,
    requests: Mutex<Vec<Request>>,
    sent: AtomicU64,
}

/// A running server. It counts and records what it receives and sends.
pub(crate) struct Server {
    pub url: String,
    state: Arc<State>,
}

impl Server {
    /// Starts a server on a free port.
    pub(crate) fn start() -> Self {
        Self::start_on("127.0.0.1:0")
    }

    /// Starts a server on an address.
    pub(crate) fn start_on(address: &str) -> Self {
        Self::listen(address, "http", |stream| Ok(Box::new(stream)))
    }

    /// Starts a server that uses TLS.
    pub(crate) fn start_tls(config: ServerConfig) -> Self {
        let config = Arc::new(config);
        Self::listen("127.0.0.1:0", "https", move |stream| {
            let connection =
                ServerConnection::new(config.clone()).map_err(std::io::Error::other)?;
            Ok(Box::new(StreamOwned::new(connection, stream)))
        })
    }

    fn listen(
        address: &str,
        scheme: &str,
        wrap: impl Fn(TcpStream) -> std::io::Result<Box<dyn Stream>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let state = Arc::<State>::default();
        let (shared, wrap) = (state.clone(), Arc::new(wrap));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, wrap) = (shared.clone(), wrap.clone());
                // The client may close the connection early, so errors are ignored.
                std::thread::spawn(move || {
                    let socket = stream.try_clone()?;
                    serve(wrap(stream)?, &socket, &state)
                });
            }
        });
        Self { url, state }
    }

    /// Sets a fixed response for a path.
    pub(crate) fn put(&self, path: &str, reply: Reply) {
        self.answer(path, move |_| reply.clone());
    }

    /// Sets the function that makes the response for a path.
    pub(crate) fn answer(
        &self,
        path: &str,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) {
        self.state.handlers.lock().unwrap().insert(path.to_owned(), Arc::new(handler));
    }

    /// Removes the response for a path, which then gets a 404.
    pub(crate) fn remove(&self, path: &str) {
        self.state.handlers.lock().unwrap().remove(path);
    }

    /// Returns the request lines without the version, such as `GET /x`, in order.
    pub(crate) fn requests(&self) -> Vec<String> {
        let received = self.received();
        received.iter().map(|request| format!("{} {}", request.method, request.path)).collect()
    }

    /// Returns the requests in order.
    pub(crate) fn received(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    /// Returns the number of bytes of all responses so far, including heads, without TLS overhead.
    pub(crate) fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn serve(stream: Box<dyn Stream>, socket: &TcpStream, state: &State) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let request = read_request(&mut reader, state)?;
    let handler = state.handlers.lock().unwrap().get(&request.path).cloned();
    let reply = handler.map_or(Reply::status(404), |handler| handler(&request));
    let mut stream = Counted { stream: reader.into_inner(), sent: &state.sent };
    stream.write_all(head(&reply).as_bytes())?;
    if request.method != "HEAD" && reply.status != 304 {
        let length = reply.body.len();
        let body = &reply.body[..reply.cut.map_or(length, |cut| cut.min(length))];
        match reply.pause {
            None => stream.write_all(body)?,
            Some(pause) => {
                for byte in body {
                    stream.write_all(&[*byte])?;
                    std::thread::sleep(pause);
                }
            }
        }
    }
    stream.flush()?;
    match reply.end {
        End::Close => {}
        End::Reset => {
            // Without this pause, the reset could discard data that the client has not received yet.
            std::thread::sleep(Duration::from_millis(50));
            let no_linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(socket, sockopt::Linger, &no_linger).map_err(std::io::Error::from)?;
        }
        End::Stall => {
            socket.set_read_timeout(Some(FOREVER))?;
            let _ = { socket }.read(&mut [0]);
        }
        End::Repeat => {
            let since = Instant::now();
            while since.elapsed() < FOREVER {
                stream.write_all(&reply.body)?;
            }
        }
    }
    Ok(())
}

fn read_request(reader: &mut impl BufRead, state: &State) -> std::io::Result<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let first = lines.first().cloned().unwrap_or_default();
    let mut words = first.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let header = |line: &String| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let headers = lines.iter().skip(1).filter_map(header).collect();
    let mut requests = state.requests.lock().unwrap();
    let nth = requests.iter().filter(|earlier| earlier.path == path).count();
    let request = Request { method, path, headers, nth };
    requests.push(request.clone());
    Ok(request)
}

fn head(reply: &Reply) -> String {
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    if let Some(length) = reply.length.unwrap_or(Some(reply.body.len() as u64))
        && reply.status != 304
    {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    for header in &reply.headers {
        head.push_str(&format!("{header}\r\n"));
    }
    head + "\r\n"
}

/// A stream that counts the bytes written to it.
struct Counted<'a> {
    stream: Box<dyn Stream>,
    sent: &'a AtomicU64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let length = self.stream.write(bytes)?;
        self.sent.fetch_add(length as u64, Ordering::SeqCst);
        Ok(length)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}
