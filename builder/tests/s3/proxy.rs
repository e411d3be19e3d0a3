//! A proxy that breaks the requests that rules select.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to a request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The proxy answers with this status line and body. The server gets nothing.
    Answer(&'static str, &'static str),
    /// The connection is reset after this many bytes of the request's body. The server gets nothing.
    ResetRequest(usize),
    /// The server does what was asked, and the connection is reset instead of an answer.
    LoseAnswer,
    /// The server does what was asked, and the connection ends in order without an answer.
    CloseWithoutAnswer,
    /// The connection is reset instead of an answer, and the request reaches the server this much later.
    DoLater(Duration),
    /// The connection is reset after this many bytes of the answer.
    ResetAnswer(usize),
    /// The answer comes byte by byte, with pauses.
    Trickle(Duration),
    /// The connection stays open for this time, without an answer. The server gets nothing.
    Silence(Duration),
    /// The request arrives this much later.
    Delay(Duration),
}

/// Selects requests and breaks them.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// What the line of the request contains, such as `PUT ` or `uploadId=`.
    pub contains: &'static str,
    /// How many requests are broken; later ones are not.
    pub times: usize,
    /// What happens to them.
    pub fault: Fault,
}

/// A proxy in front of a server. It serves one request per connection.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    rules: Mutex<Vec<Rule>>,
    requests: Mutex<Vec<String>>,
}

impl Proxy {
    /// Starts a proxy with these rules.
    pub(crate) fn start(server: SocketAddr, rules: impl IntoIterator<Item = Rule>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let rules = Mutex::new(rules.into_iter().collect());
        let shared = Arc::new(Shared { server, rules, requests: Mutex::default() });
        let for_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                let shared = Arc::clone(&for_thread);
                // A client may leave at any time; its request ends then.
                thread::spawn(move || shared.serve(client?));
            }
        });
        Self { address, shared }
    }

    /// Returns the URL of the proxy.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a rule.
    pub(crate) fn add(&self, rule: Rule) {
        self.shared.rules.lock().unwrap().push(rule);
    }

    /// Returns the lines of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let (head, mut body) = read_head(&mut client)?;
        let line = head.lines().next().unwrap_or_default().to_owned();
        self.requests.lock().unwrap().push(line.clone());
        let length = content_length(&head);
        match self.fault(&line) {
            Some(Fault::Answer(status, text)) => {
                read_body(&mut client, &mut body, length)?;
                let length = text.len();
                write!(
                    client,
                    "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{text}"
                )
            }
            Some(Fault::ResetRequest(after)) => {
                read_body(&mut client, &mut body, after.min(length))?;
                reset(client)
            }
            Some(Fault::Silence(pause)) => {
                thread::sleep(pause);
                Ok(())
            }
            Some(Fault::DoLater(pause)) => {
                read_body(&mut client, &mut body, length)?;
                reset(client)?;
                thread::sleep(pause);
                io::copy(&mut self.ask(&head, &body)?, &mut io::sink()).map(drop)
            }
            fault => {
                read_body(&mut client, &mut body, length)?;
                if let Some(Fault::Delay(pause)) = fault {
                    thread::sleep(pause);
                }
                relay(self.ask(&head, &body)?, client, fault)
            }
        }
    }

    /// Returns the fault of the first rule that selects the request.
    fn fault(&self, line: &str) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap();
        let rule = rules.iter_mut().find(|rule| rule.times > 0 && line.contains(rule.contains))?;
        rule.times -= 1;
        Some(rule.fault.clone())
    }

    /// Sends a request to the server and returns its connection, which closes after the answer.
    fn ask(&self, head: &str, body: &[u8]) -> io::Result<TcpStream> {
        let mut server = TcpStream::connect(self.server)?;
        let (line, fields) = head.split_once("\r\n").unwrap_or_default();
        write!(server, "{line}\r\nConnection: close\r\n{fields}")?;
        server.write_all(body)?;
        Ok(server)
    }
}

/// Passes an answer on, with a fault.
fn relay(mut server: TcpStream, mut client: TcpStream, fault: Option<Fault>) -> io::Result<()> {
    match fault {
        Some(Fault::LoseAnswer) => {
            io::copy(&mut server, &mut io::sink())?;
            reset(client)
        }
        Some(Fault::CloseWithoutAnswer) => {
            io::copy(&mut server, &mut io::sink())?;
            client.shutdown(Shutdown::Write)
        }
        Some(Fault::ResetAnswer(after)) => {
            io::copy(&mut server.take(after as u64), &mut client)?;
            // The client reads what it got so far; a reset may throw that away.
            thread::sleep(Duration::from_millis(100));
            reset(client)
        }
        Some(Fault::Trickle(pause)) => {
            for byte in io::BufReader::new(server).bytes() {
                client.write_all(&[byte?])?;
                thread::sleep(pause);
            }
            Ok(())
        }
        _ => {
            io::copy(&mut server, &mut client)?;
            client.shutdown(Shutdown::Write)
        }
    }
}

/// Reads up to the empty line after the header. Returns the header, and the start of the body.
fn read_head(client: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let (mut bytes, mut block) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), body));
        }
        let count = client.read(&mut block)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&block[..count]);
    }
}

fn read_body(client: &mut TcpStream, body: &mut Vec<u8>, length: usize) -> io::Result<()> {
    let left = length.saturating_sub(body.len()) as u64;
    client.take(left).read_to_end(body).map(drop)
}

fn content_length(head: &str) -> usize {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths.next().map_or(0, |(_, value)| value.trim().parse().unwrap())
}

/// Closes a connection with a reset instead of the orderly end.
fn reset(client: TcpStream) -> io::Result<()> {
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO))
}
