//! A server in front of a registry that changes its answers.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What the server does to answers.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Changes the last byte.
    Change,
    /// Appends bytes.
    Extend(usize),
    /// Ends the connection after so many bytes.
    Truncate(usize),
    /// Ends the connection after so many bytes, but only this number of times.
    TruncateFirst(usize, usize),
    /// As before, and sends the whole file if the client asks for the rest.
    NoRanges(usize),
    /// Sends so many bytes, then nothing more.
    Stall(usize),
    /// Sends another body.
    Replace(Vec<u8>),
    /// Refuses requests with a login, with this body.
    Deny(Vec<u8>),
    /// Forwards the first request with a login without it, as if a token had expired.
    Expire,
    /// Answers with this status.
    Status(&'static str),
    /// Redirects to this URL.
    Redirect(String),
}

/// A running server. It ends with the test process.
pub(crate) struct Proxy {
    /// The address.
    pub(crate) host: String,
    requests: Arc<AtomicUsize>,
    logins: Arc<AtomicUsize>,
}

impl Proxy {
    /// Starts a server that changes answers for paths that contain `path`.
    pub(crate) fn start(upstream: &str, path: &str, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(AtomicUsize::new(0));
        let logins = Arc::new(AtomicUsize::new(0));
        let (upstream, path, counter) = (upstream.to_owned(), path.to_owned(), requests.clone());
        let seen = logins.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (upstream, path) = (upstream.clone(), path.clone());
                let (fault, counter, seen) = (fault.clone(), counter.clone(), seen.clone());
                // The client may close the connection early, so errors are ignored.
                std::thread::spawn(move || {
                    answer(stream, &upstream, &path, &fault, [&counter, &seen])
                });
            }
        });
        Self { host, requests, logins }
    }

    /// Returns the number of requests whose answers were changed.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Returns the number of requests with a login.
    pub(crate) fn logins(&self) -> usize {
        self.logins.load(Ordering::SeqCst)
    }
}

fn answer(
    mut stream: TcpStream,
    upstream: &str,
    path: &str,
    fault: &Fault,
    [counter, logins]: [&AtomicUsize; 2],
) -> io::Result<()> {
    let (requested, headers) = request(&stream)?;
    let agent = ureq::Agent::config_builder().proxy(None).http_status_as_error(false).build();
    let mut call = agent.new_agent().get(format!("http://{upstream}{requested}"));
    let has_login = headers.iter().any(|(name, _)| name == "authorization");
    if has_login {
        logins.fetch_add(1, Ordering::SeqCst);
    }
    let is_changed = requested.contains(path) && (has_login || !matches!(fault, Fault::Deny(_)));
    let is_first = is_changed && counter.load(Ordering::SeqCst) == 0;
    let forgets_login = is_first && matches!(fault, Fault::Expire);
    let ignores_ranges = matches!(fault, Fault::NoRanges(_));
    for (name, value) in &headers {
        let is_forwarded = match name.as_str() {
            "accept" => true,
            "authorization" => !forgets_login,
            "range" => !ignores_ranges,
            _ => false,
        };
        if is_forwarded {
            call = call.header(name, value);
        }
    }
    let response = call.call().map_err(io::Error::other)?;
    let mut status = response.status().to_string();
    let names = ["content-type", "content-range", "www-authenticate", "docker-content-digest"];
    let mut head = String::new();
    for name in names {
        if let Some(value) = response.headers().get(name) {
            head += &format!("{name}: {}\r\n", value.to_str().unwrap());
        }
    }
    let mut body = Vec::new();
    response.into_body().into_reader().read_to_end(&mut body)?;
    let mut sent = usize::MAX;
    let mut stalls = false;
    if is_changed {
        let earlier = counter.fetch_add(1, Ordering::SeqCst);
        match fault {
            Fault::Change => *body.last_mut().unwrap() ^= 1,
            Fault::Extend(count) => body.resize(body.len() + count, b' '),
            Fault::Truncate(count) => sent = *count,
            Fault::TruncateFirst(count, times) if earlier < *times => sent = *count,
            Fault::NoRanges(count) if earlier == 0 => sent = *count,
            Fault::TruncateFirst(..) | Fault::NoRanges(_) | Fault::Expire => {}
            Fault::Stall(count) => (sent, stalls) = (*count, true),
            Fault::Replace(other) => body.clone_from(other),
            Fault::Deny(other) => {
                "403 Forbidden".clone_into(&mut status);
                body.clone_from(other);
            }
            Fault::Status(other) => status = (*other).to_owned(),
            Fault::Redirect(to) => {
                "307 Temporary Redirect".clone_into(&mut status);
                head += &format!("location: {to}\r\n");
            }
        }
    }
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{head}connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body[..sent.min(body.len())])?;
    if stalls {
        std::thread::sleep(Duration::from_secs(60));
    }
    Ok(())
}

/// Reads a request, and returns its path and its headers.
pub(crate) fn request(stream: &TcpStream) -> io::Result<(String, Vec<(String, String)>)> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().ok_or(io::ErrorKind::UnexpectedEof)??;
    let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
    let mut headers = Vec::new();
    for line in lines {
        match line?.split_once(": ") {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
            None => break,
        }
    }
    Ok((path, headers))
}
