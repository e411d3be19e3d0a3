//! Slow and hostile clients, over loopback.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream as Client};
use std::time::Instant;

use protocol::pattern::PatternFiles;
use protocol::token::sign;
use protocol::{Claims, PrivateKey};
use serde_json::json;
use tokio::net::TcpSocket;

use super::*;

/// Much longer than the limits of these tests, for a busy machine.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

/// Returns the default limits with short timeouts.
fn short_limits() -> Limits {
    Limits { head: SHORT, body: SHORT, response: SHORT, linger: SHORT, ..LIMITS }
}

/// A running server. Its directory is removed when the test ends.
struct TestServer {
    port: u16,
    /// The key of its source.
    key: PrivateKey,
    _directory: tempfile::TempDir,
}

/// Starts a server with the source "ci" and without TLS.
fn listener(limits: Limits) -> TestServer {
    listener_with(limits, None)
}

fn listener_with(limits: Limits, identity: Option<&Identity>) -> TestServer {
    let acceptor = identity.map(|identity| Acceptor::new(identity).unwrap());
    let (send, port) = std::sync::mpsc::channel();
    let key = PrivateKey::generate();
    let ring = key.public().clone().into();
    let directory = tempfile::tempdir().unwrap();
    let host = Host::new(directory.path());
    std::fs::create_dir(directory.path().join("proc")).unwrap();
    std::fs::write(directory.path().join("proc/uptime"), "1000.00 1.00\n").unwrap();
    // The thread runs until the process ends.
    std::thread::spawn(move || {
        let accepted = ReplayGuard::open(host.path(ACCEPTED_FILE)).unwrap();
        let runner = Runner::new(&host, None, [].into());
        let push = Push::new([("ci".to_owned(), ring)].into(), runner, accepted);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            send.send(listener.local_addr().unwrap().port()).unwrap();
            let shells = Shells::new(BTreeSet::new(), &host);
            Arc::new(Server { push, shells, acceptor, host, limits }).accept(&listener).await
        })
    });
    TestServer { port: port.recv().unwrap(), key, _directory: directory }
}

/// Connects from the address 127.0.0.`from`.
fn client(port: u16, from: u8) -> Client {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, from), 0).into()).unwrap();
        socket.connect((Ipv4Addr::LOCALHOST, port).into()).await.unwrap().into_std().unwrap()
    });
    client.set_nonblocking(false).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client
}

fn send(mut client: &Client, text: &str) {
    // The server may have closed the connection; only its response counts.
    let _ = client.write_all(text.as_bytes());
}

/// Returns everything that the server sends until it closes the connection.
fn response(mut client: &Client) -> String {
    let mut response = Vec::new();
    match client.read_to_end(&mut response) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            panic!("the connection is still open")
        }
        _ => String::from_utf8(response).unwrap(),
    }
}

fn head(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n")
}

#[test]
fn closes_a_connection_with_a_slow_head() {
    let server = listener(short_limits());
    let port = server.port;
    let client = client(port, 1);
    let since = Instant::now();
    let mut writer = client.try_clone().unwrap();
    let trickle = std::thread::spawn(move || {
        let _ = writer.write_all(b"POST /etcha/v1/push/ci HTTP/1.1\r\n");
        while since.elapsed() < LONG && writer.write_all(b"X-A: b\r\n").is_ok() {
            std::thread::sleep(SHORT / 10);
        }
    });
    response(&client);
    assert!(since.elapsed() < LONG);
    trickle.join().unwrap();
}

#[test]
fn rejects_a_slow_body() {
    let server = listener(short_limits());
    let port = server.port;
    let client = client(port, 1);
    send(&client, &head("/etcha/v1/push/ci", 1000));
    let mut writer = client.try_clone().unwrap();
    let since = Instant::now();
    let trickle = std::thread::spawn(move || {
        while since.elapsed() < LONG && writer.write_all(b"x").is_ok() {
            std::thread::sleep(SHORT / 10);
        }
    });
    let response = response(&client);
    assert!(response.starts_with("HTTP/1.1 400 ") && response.contains("in time"), "{response}");
    trickle.join().unwrap();
    assert!(since.elapsed() < LONG);
}

#[test]
fn rejects_other_requests_by_their_head() {
    // The body is never sent, and the server does not wait for it.
    let server = listener(Limits { body: 10 * LONG, linger: 10 * LONG, ..LIMITS });
    let port = server.port;
    for (text, status) in [
        (head("/", 10), "404"),
        (head("/etcha/v1/push/", 10), "404"),
        (head("/etcha/v1/push/other", 10), "404"),
        (head("/etcha/v1/push/../push/ci", 10), "404"),
        (head("/etcha/v1/push/ci", 10).replace("POST", "PUT"), "405"),
        (head("/etcha/v1/push/ci", TOKEN_MAX + 1), "413"),
        (head("/etcha/v1/push/ci", 1 << 40), "413"),
    ] {
        let client = client(port, 1);
        send(&client, &text);
        let response = response(&client);
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{text}: {response}");
    }
}

#[test]
fn limits_a_body_without_length() {
    let server = listener(LIMITS);
    let port = server.port;
    let client = client(port, 1);
    send(
        &client,
        "POST /etcha/v1/push/ci HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..=TOKEN_MAX / 0x10000 {
        send(&client, &chunk);
    }
    let response = response(&client);
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
}

#[test]
fn limits_the_head() {
    let server = listener(LIMITS);
    let port = server.port;
    let client = client(port, 1);
    send(&client, "POST /etcha/v1/push/ci HTTP/1.1\r\nX: ");
    send(&client, &"x".repeat(4 * HEAD_MAX));
    let response = response(&client);
    assert!(response.is_empty() || response.starts_with("HTTP/1.1 4"), "{response}");
}

#[test]
fn limits_connections_of_one_peer() {
    let server = listener(LIMITS);
    let port = server.port;
    // Each of these has ten seconds to send its head.
    let silent: Vec<Client> = (0..LIMITS.per_peer).map(|_| client(port, 2)).collect();
    // The server closes this one without a response.
    assert_eq!(response(&client(port, 2)), "");
    let other = client(port, 3);
    send(&other, &head("/", 0));
    assert!(response(&other).starts_with("HTTP/1.1 404 "));
    // Closed connections no longer count.
    drop(silent);
    let since = Instant::now();
    loop {
        let again = client(port, 2);
        send(&again, &head("/", 0));
        if response(&again).starts_with("HTTP/1.1 404 ") {
            break;
        }
        assert!(since.elapsed() < LONG);
    }
}

#[test]
fn serves_waiting_connections_after_others_end() {
    let limits = short_limits();
    let server = listener(limits);
    let port = server.port;
    let peers = u8::try_from(limits.connections / limits.per_peer).unwrap();
    let silent: Vec<Client> = (0..peers)
        .flat_map(|peer| (0..limits.per_peer).map(move |_| 10 + peer))
        .map(|from| client(port, from))
        .collect();
    let waiting = client(port, 2);
    send(&waiting, &head("/", 0));
    // The silent connections time out.
    assert!(response(&waiting).starts_with("HTTP/1.1 404 "));
    drop(silent);
}

#[test]
fn closes_a_connection_whose_client_does_not_read_the_response() {
    let server = listener(Limits { connections: 1, ..short_limits() });
    // The response is larger than the buffers of the sockets, so the server cannot write all of it.
    let print = "head -c 250000 /dev/zero | tr '\\0' x";
    let commands: Vec<_> =
        (0..16).map(|id| json!({"id": id.to_string(), "always": true, "change": print})).collect();
    let files = [("main".to_owned(), json!(commands).to_string())].into();
    let claims = Claims {
        iat: Some(crate::clock::now()),
        etcha_pattern: Some(PatternFiles { entrypoint: "main".into(), files }),
        ..Claims::default()
    };
    let token = sign(&server.key, &claims).unwrap();
    let stuck = client(server.port, 1);
    send(&stuck, &(head("/etcha/v1/push/ci", token.len()) + &token));
    let waiting = client(server.port, 2);
    send(&waiting, &head("/", 0));
    assert!(response(&waiting).starts_with("HTTP/1.1 404 "));
    // What was sent until then has arrived, and is not the whole response.
    let rest = response(&stuck);
    assert!(rest.starts_with("HTTP/1.1 200 "), "{rest:.200}");
    assert!(rest.len() < 7_000_000, "{}", rest.len());
}

#[test]
fn test_clients_connect_from_the_given_address() {
    let server = listener(LIMITS);
    let address = client(server.port, 7).local_addr().unwrap();
    assert_eq!(address.ip(), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7)));
}

#[test]
fn closes_a_connection_with_a_slow_handshake() {
    let identity = Identity::make().unwrap().0;
    let server = listener_with(short_limits(), Some(&identity));
    // The start of a handshake, and nothing.
    for begin in ["\u{16}\u{3}\u{1}", ""] {
        let client = client(server.port, 1);
        let since = Instant::now();
        send(&client, begin);
        assert_eq!(response(&client), "");
        assert!(since.elapsed() < LONG);
    }
}

#[test]
fn closes_a_connection_with_a_broken_handshake() {
    let identity = Identity::make().unwrap().0;
    let server = listener_with(Limits { connections: 1, ..LIMITS }, Some(&identity));
    // A record that is longer than TLS allows, one without a handshake in it, and another version.
    for begin in
        ["\u{16}\u{3}\u{1}\u{7f}\u{7f}", "\u{16}\u{3}\u{1}\0\u{1}", "\u{16}\u{1}\u{1}\0\u{40}"]
    {
        let client = client(server.port, 1);
        send(&client, &format!("{begin}{}", "x".repeat(1000)));
        // At most an alert.
        assert!(response(&client).len() < 20, "{begin:?}");
    }
    let client = client(server.port, 1);
    send(&client, &head("/etcha/v1/push/ci", 10));
    assert!(response(&client).contains("expects TLS"));
}

#[test]
fn answers_plain_http_on_a_port_with_tls() {
    let identity = Identity::make().unwrap().0;
    let server = listener_with(LIMITS, Some(&identity));
    let client = client(server.port, 1);
    send(&client, &head("/etcha/v1/push/ci", 10));
    let response = response(&client);
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert!(body.contains("expects TLS"), "{body}");
    serde_json::from_str::<serde_json::Value>(body).unwrap();
}
