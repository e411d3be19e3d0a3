//! Malformed and endless responses, written byte by byte.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::Role;
use protocol::esp::Slot::B;
use protocol::token::sign;
use rustls::ServerConnection;
use serde_json::json;
use updater::cdn::{Cdn, Retries, Timeouts};
use updater::config::Network;

use crate::network::{Memory, bytes, plain, timeouts, with_stall_timeout};
use crate::network_proxy::Authority;
use crate::world::{World, claims, content, release};

const SIZE: usize = 200_000;
/// The stall timeout of the clients.
const STALL: Duration = Duration::from_millis(300);
/// The duration of a response that never ends.
const FOREVER: Duration = Duration::from_secs(30);
/// The time in which a client must give up: two stall timeouts, and a margin for a slow machine.
const GIVE_UP_TIME: Duration = Duration::from_secs(10);

/// Calls `serve` for every connection. Returns the address.
fn listen(
    serve: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            // The client may close the connection early, so errors are ignored.
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Reads the head of a request. It is empty if the connection was closed.
fn request(stream: &mut impl Read) -> std::io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? > 0 {
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Sends the bytes repeatedly with a pause in between.
fn repeat(stream: &mut impl Write, bytes: &[u8], pause: Duration) -> std::io::Result<()> {
    let since = Instant::now();
    while since.elapsed() < FOREVER {
        stream.write_all(bytes)?;
        std::thread::sleep(pause);
    }
    Ok(())
}

/// Two attempts with short timeouts.
fn short_timeouts() -> Timeouts {
    let retries = Retries { attempts: 2, ..timeouts().download_retries };
    Timeouts {
        connect: STALL,
        stall: STALL,
        manifest: 2 * STALL,
        download_retries: retries,
        ..timeouts()
    }
}

fn fetch(cdn: &Cdn, url: &str) -> Result<(), String> {
    let mut sink = Memory::default();
    cdn.fetch(url, 0, SIZE as u64, &mut sink).map_err(|error| error.to_string())?;
    assert!(sink.bytes == bytes(SIZE));
    Ok(())
}

/// Asserts that an operation soon fails with a timeout.
#[track_caller]
fn assert_times_out<T>(kind: &str, operation: impl FnOnce() -> Result<T, String>) {
    let since = Instant::now();
    let error = operation().err().unwrap_or_else(|| panic!("{kind} was accepted"));
    assert!(error.contains("timeout"), "{kind}: {error}");
    assert!(since.elapsed() < GIVE_UP_TIME, "{kind}: {:?}", since.elapsed());
}

const CHUNKED: &str = "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn times_out_on_endless_chunk_framing() {
    let cdn = Cdn::with_environment(&Network::default(), &[], short_timeouts(), &|_| None).unwrap();
    let drip = Duration::from_millis(20);
    for (kind, first, then, pause) in [
        ("slow trailers", "0\r\n", "X: y\r\n".to_owned(), drip),
        ("endless trailers", "0\r\n", "X: y\r\n".repeat(1000), Duration::ZERO),
        ("an endless chunk size", "", "0".to_owned(), drip),
        ("no line end after a chunk", "1\r\nx", " ".to_owned(), drip),
    ] {
        let address = listen(move |mut stream| {
            request(&mut stream)?;
            stream.write_all(format!("{CHUNKED}{first}").as_bytes())?;
            repeat(&mut stream, then.as_bytes(), pause)
        });
        assert_times_out(kind, || fetch(&cdn, &format!("http://{address}/x")));
    }
    // After the last byte of the file, trailers are not awaited.
    let address = listen(move |mut stream| {
        request(&mut stream)?;
        stream.write_all(format!("{CHUNKED}{SIZE:x}\r\n").as_bytes())?;
        stream.write_all(&bytes(SIZE))?;
        stream.write_all(b"\r\n0\r\n")?;
        repeat(&mut stream, b"X: y\r\n", drip)
    });
    let since = Instant::now();
    fetch(&with_stall_timeout(Duration::from_secs(2)), &format!("http://{address}/x")).unwrap();
    assert!(since.elapsed() < GIVE_UP_TIME);
}

#[test]
fn times_out_on_incomplete_tls_records() {
    let ours = Authority::new();
    let cdn = Cdn::with_environment(&ours.network(), &[], short_timeouts(), &|_| None).unwrap();
    for kind in ["half a handshake", "half a record", "empty records"] {
        let config = Arc::new(ours.config("127.0.0.1"));
        let address = listen(move |mut stream| {
            let pause = Duration::from_millis(20);
            if kind == "half a handshake" {
                stream.write_all(&[22, 3, 3, 0x3f, 0xff])?;
                return repeat(&mut stream, &[0], pause);
            }
            let mut tls = ServerConnection::new(config.clone()).unwrap();
            while tls.is_handshaking() {
                tls.complete_io(&mut stream)?;
            }
            let head = format!("HTTP/1.1 200 X\r\nContent-Length: {SIZE}\r\n\r\n");
            tls.writer().write_all(head.as_bytes())?;
            tls.complete_io(&mut stream)?;
            if kind == "half a record" {
                tls.writer().write_all(&bytes(16_000))?;
                let mut record = Vec::new();
                tls.write_tls(&mut record)?;
                return record.iter().try_for_each(|byte| {
                    std::thread::sleep(pause);
                    stream.write_all(&[*byte])
                });
            }
            let since = Instant::now();
            while since.elapsed() < FOREVER {
                tls.refresh_traffic_keys().unwrap();
                tls.complete_io(&mut stream)?;
                std::thread::sleep(pause);
            }
            Ok(())
        });
        assert_times_out(kind, || fetch(&cdn, &format!("https://{address}/x")));
    }
}

#[test]
fn times_out_on_endless_proxy_response() {
    let proxy = listen(|mut stream| {
        stream.write_all(b"HTTP/1.1 200 X\r\nX: ")?;
        repeat(&mut stream, b"y", Duration::from_millis(20))
    });
    let variable = |name: &str| (name == "https_proxy").then(|| format!("http://{proxy}"));
    let cdn = Cdn::with_environment(&Network::default(), &[], short_timeouts(), &variable).unwrap();
    let url = "https://cdn.example/x";
    assert_times_out("a file", || fetch(&cdn, url));
    assert_times_out("a manifest", || {
        cdn.manifest(url, 1000, None).map_err(|error| error.to_string())
    });
}

/// Each response yields the correct file or a specific error, never other data.
#[test]
fn malformed_responses_yield_file_or_error() {
    let head = |lines: &str| format!("HTTP/1.1 200 X\r\n{lines}\r\n\r\n").into_bytes();
    let body = |lines: &str| [head(lines), bytes(SIZE)].concat();
    let chunk = |size: &str, end: &str| {
        let size = format!("{size}\r\n").into_bytes();
        [head("Transfer-Encoding: chunked"), size, bytes(SIZE), end.into()].concat()
    };
    let size = format!("{SIZE:x}");
    let with = |text: &str| text.replace("SIZE", &SIZE.to_string());
    for (kind, response, expected) in [
        ("the same length twice", body(&with("Content-Length: SIZE\r\nContent-Length: SIZE")), ""),
        (
            "two different lengths",
            body(&with("Content-Length: SIZE\r\nContent-Length: 5")),
            "content-length",
        ),
        ("a length with a sign", body(&with("Content-Length: +SIZE")), "content-length"),
        ("a length of 77 bits", body("Content-Length: 99999999999999999999999"), "content-length"),
        (
            "chunks and a length",
            {
                let lines = "Transfer-Encoding: chunked\r\nContent-Length: 5";
                [head(lines), format!("{size}\r\n").into(), bytes(SIZE), b"\r\n0\r\n\r\n".to_vec()]
                    .concat()
            },
            "",
        ),
        ("a chunk with an extension", chunk(&format!("{size};a=b"), "\r\n0\r\n\r\n"), ""),
        ("trailers", chunk(&size, "\r\n0\r\nX: y\r\n\r\n"), ""),
        ("the largest chunk size", chunk("ffffffffffffffff", "more"), "more than the 200000"),
        ("a chunk size of 65 bits", chunk("10000000000000000", ""), "chunk"),
        ("a negative chunk size", chunk("-5", ""), "chunk"),
        ("no last chunk", chunk(&size, "\r\n"), ""),
        ("no line end after a chunk", chunk("5", ""), "ended after 5 of"),
        (
            "data after the length",
            [body(&with("Content-Length: SIZE")), b"more".to_vec()].concat(),
            "",
        ),
        ("HTTP/0.9", bytes(SIZE), "HTTP version"),
        ("HTTP/1.0", [b"HTTP/1.0 200 X\r\n\r\n".to_vec(), bytes(SIZE)].concat(), ""),
        ("HTTP/2", b"HTTP/2 200\r\n\r\n".to_vec(), "HTTP version"),
        ("a TLS alert", vec![21, 3, 3, 0, 2, 2, 70], "cannot get"),
        ("an empty response", Vec::new(), "disconnected"),
        ("a protocol upgrade", b"HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n".to_vec(), "101"),
        ("a header without a colon", body(&with("garbage\r\nContent-Length: SIZE")), "header"),
        ("a NUL", body(&with("X: \0\r\nContent-Length: SIZE")), "header"),
    ] {
        let address = listen(move |mut stream| {
            request(&mut stream)?;
            stream.write_all(&response)?;
            stream.shutdown(Shutdown::Write)
        });
        match fetch(&plain(), &format!("http://{address}/x")) {
            Ok(()) => assert_eq!(expected, "", "{kind} was accepted"),
            Err(error) => {
                assert!(!expected.is_empty() && error.contains(expected), "{kind}: {error}")
            }
        }
    }
}

#[test]
fn resumes_after_interruption_within_chunk() {
    for end in ["", "\r", "\r\n", "\r\n3", "\r\n3e8", "\r\n3e8\r", "\r\n3e8\r\n", "\r\n0\r\n"] {
        let address = listen(move |mut stream| {
            let half = SIZE / 2;
            if request(&mut stream)?.contains(&format!("bytes={half}-")) {
                let range = format!("Content-Range: bytes {half}-{}/{SIZE}", SIZE - 1);
                stream.write_all(format!("HTTP/1.1 206 X\r\n{range}\r\n\r\n").as_bytes())?;
                return stream.write_all(&bytes(SIZE)[half..]);
            }
            stream.write_all(format!("{CHUNKED}{half:x}\r\n").as_bytes())?;
            stream.write_all(&bytes(SIZE)[..half])?;
            stream.write_all(end.as_bytes())
        });
        let result = fetch(&plain(), &format!("http://{address}/x"));
        // A last chunk marks the end of the body, so this response was not interrupted.
        match end {
            "\r\n0\r\n" => assert!(result.unwrap_err().contains("only 100000 of")),
            _ => assert_eq!(result, Ok(()), "{end:?}"),
        }
    }
}

/// A body after the response to HEAD, and data after the announced length, are not parsed as the next
/// response.
#[test]
fn ignores_data_after_response() {
    for excess in ["<html>", "HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n"] {
        let world = World::new();
        let token = sign(&world.key, &claims(&release(2))).unwrap();
        let address = listen(move |mut stream| {
            loop {
                let received = request(&mut stream)?;
                let body = match received.split(' ').nth(1) {
                    None => return Ok(()),
                    Some("/2.vmlinuz") => content(Role::Kernel, 2),
                    Some("/2.initrd") => content(Role::Initrd, 2),
                    Some(_) => token.clone().into_bytes(),
                };
                let head = format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n", body.len());
                let sent = if received.starts_with("GET") { &body[..] } else { &[] };
                stream.write_all(&[head.as_bytes(), sent].concat())?;
                // Gives a client that reuses the connection time to send its next request.
                std::thread::sleep(Duration::from_millis(50));
                stream.write_all(excess.as_bytes())?;
            }
        });
        let config = json!({"cdn": format!("http://{address}")});
        world.write("esp/etchaos/config.json", config.to_string());
        world.run(&["update"]).ended(0);
        world.assert_slot(B, 2);
    }
}
