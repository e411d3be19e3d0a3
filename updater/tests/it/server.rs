//! A web server on loopback that says what it is told to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What to answer.
#[derive(Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<String>,
    pub body: Vec<u8>,
    /// What to announce instead of the body's length; `Some(None)` announces nothing.
    pub length: Option<Option<u64>>,
    /// How long to wait before each byte of the body.
    pub pause: Option<Duration>,
}

impl Reply {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }
}

type Replies = Arc<Mutex<BTreeMap<String, Reply>>>;

pub struct Server {
    pub url: String,
    replies: Replies,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (replies, requests) = (Replies::default(), Arc::<Mutex<Vec<String>>>::default());
        let (map, log) = (replies.clone(), requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (map, log) = (map.clone(), log.clone());
                // A client that hangs up is no failure of the test.
                std::thread::spawn(move || answer(stream, &map, &log).ok());
            }
        });
        Self { url, replies, requests }
    }

    pub fn put(&self, path: &str, reply: Reply) {
        self.replies.lock().unwrap().insert(path.to_owned(), reply);
    }

    pub fn remove(&self, path: &str) {
        self.replies.lock().unwrap().remove(path);
    }

    /// `GET /x` and so on, in order.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn answer(
    mut stream: TcpStream,
    replies: &Replies,
    requests: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut words = request.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    requests.lock().unwrap().push(format!("{method} {path}"));
    let missing = Reply { status: 404, ..Reply::default() };
    let reply = replies.lock().unwrap().get(path).cloned().unwrap_or(missing);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    if let Some(length) = reply.length.unwrap_or(Some(reply.body.len() as u64)) {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    for header in &reply.headers {
        head.push_str(&format!("{header}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if method != "HEAD" {
        match reply.pause {
            None => stream.write_all(&reply.body)?,
            Some(pause) => {
                for byte in &reply.body {
                    stream.write_all(&[*byte])?;
                    std::thread::sleep(pause);
                }
            }
        }
    }
    stream.flush()
}
