//! A web server on loopback that serves a directory, as a CDN does.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Responses that do not come from the directory, by path.
type Cache = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A running server. It ends with the test process.
pub(crate) struct Server {
    pub(crate) url: String,
    cache: Cache,
}

impl Server {
    /// Serves a directory. Each response has the content that the file has when it is opened.
    pub(crate) fn start(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let cache = Cache::default();
        let (root, shared) = (root.to_owned(), cache.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (root, cache) = (root.clone(), shared.clone());
                // The client may close the connection early, so errors are ignored.
                std::thread::spawn(move || answer(stream, &root, &cache));
            }
        });
        Self { url, cache }
    }

    /// Answers requests for a path with these bytes, whatever the directory has.
    pub(crate) fn keep_in_cache(&self, path: &str, bytes: Vec<u8>) {
        self.cache.lock().unwrap().insert(format!("/{path}"), bytes);
    }
}

fn answer(mut stream: TcpStream, root: &Path, cache: &Cache) -> io::Result<()> {
    let path = request(&stream)?;
    let cached = cache.lock().unwrap().get(&path).cloned();
    let mut head = |status: &str, length: u64| {
        write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n")
    };
    if let Some(bytes) = cached {
        head("200 OK", bytes.len() as u64)?;
        return stream.write_all(&bytes);
    }
    let at: PathBuf = root.join(decoded(path.trim_start_matches('/')));
    match File::open(at) {
        Ok(file) => {
            let length = file.metadata()?.len();
            head("200 OK", length)?;
            io::copy(&mut file.take(length), &mut stream).map(drop)
        }
        Err(_) => head("404 Not Found", 0),
    }
}

/// Reads the head of a request and returns its path.
fn request(stream: &TcpStream) -> io::Result<String> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    Ok(first.split(' ').nth(1).unwrap_or_default().to_owned())
}

/// Decodes the percent-encoding of a path (RFC 3986, section 2.1).
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).filter(|_| *first == b'%');
        let byte =
            digits.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
