use super::*;
use protocol::pattern::{Command, Entry};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;

/// The type of the first record of a connection with TLS (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 22;
const TIMEOUT: Duration = Duration::from_secs(20);

fn pattern() -> Pattern {
    let command = Command { id: "x".into(), check: Some("true".into()), ..Command::default() };
    Pattern { run: vec![Entry::Command(Box::new(command))], ..Pattern::default() }
}

/// Starts a listener that sends one of `answers` per connection. Returns its port and a receiver of
/// the request lines and bodies.
fn listener(answers: Vec<String>) -> (u16, mpsc::Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, requests) = mpsc::channel();
    let is_tls = |stream: &TcpStream| {
        let mut first = [0];
        stream.peek(&mut first).is_ok_and(|_| first == [TLS_HANDSHAKE])
    };
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            // As the listener of an older release does.
            while is_tls(&stream) {
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
                stream = listener.accept().unwrap().0;
            }
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut request_line, mut length) = (String::new(), 0);
            reader.read_line(&mut request_line).unwrap();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let line = line.to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let _ = sender.send((request_line, String::from_utf8(body).unwrap()));
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    (port, requests)
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Returns a client of a listener without TLS.
fn plain(port: u16, key: PrivateKey) -> PushClient {
    let mut client = PushClient::new(port, key);
    client.address.tls = false;
    client
}

fn push(answer: String) -> Result<Report, PushError> {
    let (port, _requests) = listener(vec![answer]);
    let client = plain(port, PrivateKey::generate());
    client.push(&pattern(), Mode::Change, TIMEOUT)
}

#[test]
fn sends_signed_pattern_and_returns_report() {
    let key = PrivateKey::generate();
    let report = r#"{"results":[{"id":"x","outcome":"failed","output":"no"}],"new":1}"#;
    let (port, requests) = listener(vec![answer("200 OK", report), answer("200 OK", report)]);
    let client = plain(port, key.clone());
    let report = client.push(&pattern(), Mode::Check, TIMEOUT).unwrap();
    assert_eq!(report.failures().next().unwrap().output, "no");
    client.push(&pattern(), Mode::Change, TIMEOUT).unwrap();

    let (request_line, token) = requests.recv().unwrap();
    assert!(request_line.starts_with("POST /etcha/v1/push/testbed?check "), "{request_line}");
    let claims = token::verify(&token, &key.public().clone().into()).unwrap();
    assert_eq!(claims.etcha_pattern.as_ref().unwrap().pattern().unwrap(), pattern());
    assert!(claims.exp.unwrap() - claims.iat.unwrap() <= 3600);
    assert_eq!(claims.etchaos_mode, Some(Mode::Check));
    let (request_line, token) = requests.recv().unwrap();
    assert!(request_line.starts_with("POST /etcha/v1/push/testbed "), "{request_line}");
    let second = token::verify(&token, &key.public().clone().into()).unwrap();
    assert_ne!(claims.jti, second.jti);
    assert_eq!(second.etchaos_mode, Some(Mode::Change));
}

#[test]
fn pushes_to_guests_of_older_releases_without_tls() {
    let (port, requests) = listener(vec![answer("200 OK", r#"{"results":[]}"#)]);
    let client = PushClient::new(port, PrivateKey::generate());
    assert!(client.push(&pattern(), Mode::Change, TIMEOUT).unwrap().results.is_empty());
    assert!(requests.recv().unwrap().0.starts_with("POST "));
}

#[test]
fn treats_rejection_as_final_and_shows_body() {
    for status in ["401 Unauthorized", "404 Not Found", "500 Internal Server Error", "302 Found"] {
        let error = push(answer(status, "unknown key\n")).unwrap_err();
        assert!(!error.is_temporary());
        assert!(error.to_string().contains("unknown key"), "{error}");
    }
}

#[test]
fn treats_busy_statuses_as_temporary() {
    for status in
        ["409 Conflict", "425 Too Early", "503 Service Unavailable", "429 Too Many Requests"]
    {
        assert!(push(answer(status, "starting")).unwrap_err().is_temporary(), "{status}");
    }
}

#[test]
fn shows_answer_that_is_not_a_report() {
    let error = push(answer("200 OK", "<html>")).unwrap_err();
    assert!(!error.is_temporary() && error.to_string().contains("<html>"), "{error}");
}

#[test]
fn reports_closed_ports_and_truncated_answers_as_temporary() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let client = PushClient::new(closed, PrivateKey::generate());
    let error = client.push(&pattern(), Mode::Check, TIMEOUT).unwrap_err();
    assert!(matches!(error, PushError::NotSent(_)) && error.is_temporary(), "{error}");
    for truncated in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"] {
        let error = push(truncated.into()).unwrap_err();
        assert!(matches!(error, PushError::NoAnswer(_)), "{error}");
    }
}

#[test]
fn times_out_without_answer() {
    // The kernel accepts the connection into its backlog, but no answer is sent.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = plain(port, PrivateKey::generate());
    let error = client.push(&pattern(), Mode::Check, Duration::from_millis(200)).unwrap_err();
    assert!(error.is_temporary() && error.to_string().contains("timeout"), "{error}");
}

#[test]
fn guest_config_contains_public_key() {
    let key = PrivateKey::generate();
    let config: serde_json::Value = serde_json::from_str(&guest_config(
        &key,
        8080,
        &KeyRing::default(),
        &serde_json::Map::new(),
    ))
    .unwrap();
    assert_eq!(config["cdn"], "http://10.0.2.2:8080");
    assert_eq!(config["listen"]["sources"]["testbed"]["keys"][0], key.public().to_string());
}
