//! Downloads from servers whose answer is not the file, or not yet.

use std::time::{Duration, Instant};

use crate::network::{Memory, bytes, with_stall_timeout};
use crate::network_download::{PIECE, SIZE, assert_failed, fetch, url};
use crate::server::{End, Reply, Server};

#[test]
fn rejects_wrong_lengths() {
    let unannounced = |body: Vec<u8>| Reply { length: Some(None), ..Reply::ok(body) };
    let announced = |n: u64, body| Reply { length: Some(Some(n)), ..Reply::ok(body) };
    let size = SIZE as u64;
    for (reply, message_part, requests) in [
        (announced(size + 1, bytes(SIZE)), "announces 500001", 1),
        (announced(size - 1, bytes(SIZE)), "announces 499999", 1),
        (announced(size, bytes(SIZE - 1)), "ended after 499999", 5),
        (unannounced(bytes(SIZE - 1)), "ended after 499999", 5),
        (unannounced(bytes(SIZE + 1)), "sends more than the 500000", 1),
        (unannounced(bytes(PIECE)).cut(PIECE, End::Repeat), "sends more than the 500000", 1),
    ] {
        let server = Server::start();
        server.put("/x", reply);
        let mut sink = Memory::default();
        assert_failed(fetch(&server, &mut sink), &server, &[message_part], requests);
        assert!(sink.bytes.len() <= SIZE);
    }
    let server = Server::start();
    server.put("/x", unannounced(bytes(SIZE)));
    let mut sink = Memory::default();
    fetch(&server, &mut sink).unwrap();
    assert!(sink.bytes == bytes(SIZE));
    // All bytes are sent, but the response never ends.
    let server = Server::start();
    server.put("/x", unannounced(bytes(SIZE)).cut(SIZE, End::Stall));
    let mut sink = Memory::default();
    with_stall_timeout(Duration::from_secs(1)).fetch(&url(&server), 0, size, &mut sink).unwrap();
    assert!(sink.bytes == bytes(SIZE));
}

#[test]
fn recognizes_html_pages() {
    let page = "<!DOCTYPE html><title>Please log in</title>";
    let chunked = format!("{:x}\r\n{page}\r\n0\r\n\r\n", page.len());
    for reply in [
        Reply::ok(page),
        Reply::ok("Welcome!").header("Content-Type: text/html; charset=utf-8"),
        Reply { length: Some(None), ..Reply::ok(chunked) }.header("Transfer-Encoding: chunked"),
    ] {
        let server = Server::start();
        server.put("/x", reply);
        let message_parts = ["looks like HTML", "captive portal", "500000"];
        let mut sink = Memory::default();
        assert_failed(fetch(&server, &mut sink), &server, &message_parts, 1);
        assert!(sink.bytes.is_empty());
    }
}

/// A network that asks for a login costs nothing of what was downloaded before.
#[test]
fn an_html_page_does_not_replace_a_partial_download() {
    let page = "<meta http-equiv=\"refresh\" content=\"0; url=http://portal.example/\">";
    let chunked = format!("{:x}\r\n{page}\r\n0\r\n\r\n", page.len());
    for reply in [
        Reply::ok(page),
        Reply { length: Some(None), ..Reply::ok(page) },
        Reply { length: Some(None), ..Reply::ok(chunked) }.header("Transfer-Encoding: chunked"),
    ] {
        let server = Server::start();
        server.put("/x", reply);
        let mut sink = Memory::with(&bytes(PIECE));
        assert_failed(fetch(&server, &mut sink), &server, &["looks like HTML"], 1);
        assert!(sink.bytes == bytes(PIECE) && sink.restarts == 0);
        server.answer("/x", |r| Reply::file(r, &bytes(SIZE), "\"1\""));
        fetch(&server, &mut sink).unwrap();
        assert!(sink.bytes == bytes(SIZE) && sink.restarts == 0);
    }
}

#[test]
fn retries_transient_statuses_only() {
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let server = Server::start();
        server.answer("/x", move |r| match r.nth {
            0..3 => Reply::status(status),
            _ => Reply::ok(bytes(SIZE)),
        });
        fetch(&server, &mut Memory::default()).unwrap();
        assert_eq!(server.received().len(), 4);
        server.put("/x", Reply::status(status));
        let message_part = status.to_string();
        assert_failed(fetch(&server, &mut Memory::default()), &server, &[&message_part], 9);
    }
    for status in [400, 401, 403, 404, 410, 451, 204, 300, 304, 416] {
        let server = Server::start();
        server.put("/x", Reply::status(status));
        let message_part = format!("status {status}");
        assert_failed(fetch(&server, &mut Memory::default()), &server, &[&message_part], 1);
    }
}

#[test]
fn honours_retry_after() {
    let date = || {
        let then = std::time::SystemTime::now() + Duration::from_secs(3);
        httpdate::fmt_http_date(then)
    };
    // A date has a resolution of one second.
    for (in_seconds, least) in [(true, 1000), (false, 900)] {
        let server = Server::start();
        server.answer("/x", move |r| match r.nth {
            0 if in_seconds => Reply::status(503).header("Retry-After: 1"),
            0 => Reply::status(503).header(format!("Retry-After: {}", date())),
            _ => Reply::ok(bytes(SIZE)),
        });
        let since = Instant::now();
        fetch(&server, &mut Memory::default()).unwrap();
        let took = since.elapsed();
        assert!(took >= Duration::from_millis(least), "{took:?}");
        assert_eq!(server.received().len(), 2);
    }
    // Longer than the timeout of all attempts.
    let server = Server::start();
    server.put("/x", Reply::status(429).header("Retry-After: 86400"));
    assert_failed(fetch(&server, &mut Memory::default()), &server, &["429"], 1);
}

#[test]
fn rejects_too_large_heads() {
    for header in [&"X: y\r\n".repeat(1000), &format!("X: {}", "y".repeat(1 << 20))] {
        let server = Server::start();
        server.put("/x", Reply::ok(bytes(SIZE)).header(header.trim_end()));
        assert_failed(
            fetch(&server, &mut Memory::default()),
            &server,
            &["cannot get", "header"],
            1,
        );
    }
}

#[test]
fn rejects_content_encoding() {
    let server = Server::start();
    server.put("/x", Reply::ok(bytes(SIZE)).header("Content-Encoding: gzip"));
    assert_failed(
        fetch(&server, &mut Memory::default()),
        &server,
        &["content encoding \"gzip\""],
        1,
    );
    assert_eq!(server.received()[0].header("accept-encoding"), Some("identity"));
}
