//! Clients that mean no good, over loopback.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream as Client};
use std::time::Instant;

use protocol::PrivateKey;
use tokio::net::TcpSocket;

use super::*;

/// Much longer than the limits of these tests, for a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

/// The usual limits with other times.
fn limits() -> Limits {
    Limits { head: SHORT, body: SHORT, linger: SHORT, ..LIMITS }
}

/// A listener that knows the source "ci", and its port.
fn listener(limits: Limits) -> u16 {
    let (send, port) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("proc")).unwrap();
        std::fs::write(directory.path().join("proc/uptime"), "1000.00 1.00\n").unwrap();
        let host = Host::new(directory.path());
        let ring = PrivateKey::generate().public().clone().into();
        let push =
            Push::new([("ci".to_owned(), ring)].into(), Seen::open(host.path(SEEN)).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            send.send(listener.local_addr().unwrap().port()).unwrap();
            Arc::new(Server { push, host, limits }).accept(&listener).await
        })
    });
    port.recv().unwrap()
}

/// A connection from the n-th address of loopback.
fn client(port: u16, from: u8) -> Client {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, from), 0).into()).unwrap();
        socket.connect((Ipv4Addr::LOCALHOST, port).into()).await.unwrap().into_std().unwrap()
    });
    client.set_nonblocking(false).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

fn send(mut client: &Client, text: &str) {
    // It may have hung up; what counts is what it answers.
    let _ = client.write_all(text.as_bytes());
}

/// Everything until the other side closes; empty if it did so without a word.
fn answer(mut client: &Client) -> String {
    let mut answer = Vec::new();
    match client.read_to_end(&mut answer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("it is still open"),
        _ => String::from_utf8(answer).unwrap(),
    }
}

fn head(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n")
}

#[test]
fn a_head_that_trickles_is_given_up() {
    let port = listener(limits());
    let client = client(port, 1);
    let since = Instant::now();
    let mut writer = client.try_clone().unwrap();
    let trickle = std::thread::spawn(move || {
        let _ = writer.write_all(b"POST /etcha/v1/push/ci HTTP/1.1\r\n");
        while since.elapsed() < PATIENCE && writer.write_all(b"X-A: b\r\n").is_ok() {
            std::thread::sleep(SHORT / 10);
        }
    });
    answer(&client);
    assert!(since.elapsed() < PATIENCE);
    trickle.join().unwrap();
}

#[test]
fn a_body_that_trickles_is_given_up() {
    let port = listener(limits());
    let client = client(port, 1);
    send(&client, &head("/etcha/v1/push/ci", 1000));
    let mut writer = client.try_clone().unwrap();
    let since = Instant::now();
    let trickle = std::thread::spawn(move || {
        while since.elapsed() < PATIENCE && writer.write_all(b"x").is_ok() {
            std::thread::sleep(SHORT / 10);
        }
    });
    let answer = answer(&client);
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("too long"), "{answer}");
    trickle.join().unwrap();
    assert!(since.elapsed() < PATIENCE);
}

#[test]
fn what_is_no_push_is_refused_by_its_head() {
    // The body never comes, and nobody waits for it.
    let port = listener(Limits { body: 10 * PATIENCE, linger: 10 * PATIENCE, ..LIMITS });
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
        let answer = answer(&client);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{text}: {answer}");
    }
}

#[test]
fn a_body_without_a_length_is_bounded() {
    let port = listener(LIMITS);
    let client = client(port, 1);
    send(
        &client,
        "POST /etcha/v1/push/ci HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..=TOKEN_MAX / 0x10000 {
        send(&client, &chunk);
    }
    let answer = answer(&client);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[test]
fn a_head_without_end_is_bounded() {
    let port = listener(LIMITS);
    let client = client(port, 1);
    send(&client, "POST /etcha/v1/push/ci HTTP/1.1\r\nX: ");
    send(&client, &"x".repeat(4 * HEAD_MAX));
    let answer = answer(&client);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[test]
fn one_peer_cannot_take_every_place() {
    let port = listener(LIMITS);
    // Silent: each has ten seconds for its head.
    let silent: Vec<Client> = (0..LIMITS.per_peer).map(|_| client(port, 2)).collect();
    // Closed without a word.
    assert_eq!(answer(&client(port, 2)), "");
    let other = client(port, 3);
    send(&other, &head("/", 0));
    assert!(answer(&other).starts_with("HTTP/1.1 404 "));
    // A place that is given back can be taken again.
    drop(silent);
    let since = Instant::now();
    loop {
        let again = client(port, 2);
        send(&again, &head("/", 0));
        if answer(&again).starts_with("HTTP/1.1 404 ") {
            break;
        }
        assert!(since.elapsed() < PATIENCE);
    }
}

#[test]
fn when_every_place_is_taken_others_wait_and_are_served() {
    let limits = limits();
    let port = listener(limits);
    let peers = u8::try_from(limits.connections / limits.per_peer).unwrap();
    let silent: Vec<Client> = (0..peers)
        .flat_map(|peer| (0..limits.per_peer).map(move |_| 10 + peer))
        .map(|from| client(port, from))
        .collect();
    let waiting = client(port, 2);
    send(&waiting, &head("/", 0));
    // The silent ones run out of time.
    assert!(answer(&waiting).starts_with("HTTP/1.1 404 "));
    drop(silent);
}

#[test]
fn loopback_has_more_addresses_than_one() {
    let address = client(listener(LIMITS), 7).local_addr().unwrap();
    assert_eq!(address.ip(), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 7)));
}
