//! Answers that no library would write, byte by byte.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::Role;
use protocol::esp::Slot::B;
use protocol::token::sign;
use rustls::ServerConnection;
use serde_json::json;
use updater::cdn::{Cdn, Retries, Times};
use updater::config::Network;

use crate::network::{Memory, bytes, hasty as patient, plain, times};
use crate::network_proxy::Authority;
use crate::world::{World, claims, content, release};

const SIZE: usize = 200_000;
/// A silence of this length is a stall.
const STALL: Duration = Duration::from_millis(300);
/// As long goes on what would go on for ever.
const FOREVER: Duration = Duration::from_secs(30);
/// Two stalls and as much again for every step of a slow machine.
const SOON: Duration = Duration::from_secs(10);

/// Does this with every connection. Says where.
fn listen(
    serve: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            // A client that hangs up is no failure of the test.
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Reads a request; an empty one if there is none.
fn request(stream: &mut impl Read) -> std::io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? > 0 {
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Sends this again and again, with pauses or as fast as it goes.
fn repeat(stream: &mut impl Write, bytes: &[u8], pause: Duration) -> std::io::Result<()> {
    let since = Instant::now();
    while since.elapsed() < FOREVER {
        stream.write_all(bytes)?;
        std::thread::sleep(pause);
    }
    Ok(())
}

/// Two attempts, and not much time for either.
fn hasty() -> Times {
    let retries = Retries { attempts: 2, ..times().download_retries };
    Times {
        connect: STALL,
        stall: STALL,
        manifest: 2 * STALL,
        download_retries: retries,
        ..times()
    }
}

fn fetch(cdn: &Cdn, url: &str) -> Result<(), String> {
    let mut sink = Memory::default();
    cdn.fetch(url, 0, SIZE as u64, &mut sink).map_err(|error| error.to_string())?;
    assert!(sink.bytes == bytes(SIZE));
    Ok(())
}

/// It ends, and says that nothing of use came in time.
#[track_caller]
fn gives_up<T>(kind: &str, what: impl FnOnce() -> Result<T, String>) {
    let since = Instant::now();
    let error = what().err().unwrap_or_else(|| panic!("{kind}: it was taken"));
    assert!(error.contains("timeout"), "{kind}: {error}");
    assert!(since.elapsed() < SOON, "{kind}: {:?}", since.elapsed());
}

const CHUNKED: &str = "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn what_is_nothing_yet_is_not_waited_for_for_ever() {
    let cdn = Cdn::with_environment(&Network::default(), &[], hasty(), &|_| None).unwrap();
    let drip = Duration::from_millis(20);
    for (kind, first, then, pause) in [
        ("trailers now and then", "0\r\n", "X: y\r\n".to_owned(), drip),
        ("trailers without end", "0\r\n", "X: y\r\n".repeat(1000), Duration::ZERO),
        ("the size of a chunk", "", "0".to_owned(), drip),
        ("the end of a chunk", "1\r\nx", " ".to_owned(), drip),
    ] {
        let address = listen(move |mut stream| {
            request(&mut stream)?;
            stream.write_all(format!("{CHUNKED}{first}").as_bytes())?;
            repeat(&mut stream, then.as_bytes(), pause)
        });
        gives_up(kind, || fetch(&cdn, &format!("http://{address}/x")));
    }
    // Whoever has it all needs no more of it.
    let address = listen(move |mut stream| {
        request(&mut stream)?;
        stream.write_all(format!("{CHUNKED}{SIZE:x}\r\n").as_bytes())?;
        stream.write_all(&bytes(SIZE))?;
        stream.write_all(b"\r\n0\r\n")?;
        repeat(&mut stream, b"X: y\r\n", drip)
    });
    let since = Instant::now();
    fetch(&patient(Duration::from_secs(2)), &format!("http://{address}/x")).unwrap();
    assert!(since.elapsed() < SOON);
}

#[test]
fn half_a_tls_record_is_not_waited_for_for_ever() {
    let ours = Authority::new();
    let cdn = Cdn::with_environment(&ours.network(), &[], hasty(), &|_| None).unwrap();
    for kind in ["half a handshake", "half a record", "records with nothing in them"] {
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
        gives_up(kind, || fetch(&cdn, &format!("https://{address}/x")));
    }
}

#[test]
fn a_proxy_is_not_waited_for_for_ever() {
    let proxy = listen(|mut stream| {
        stream.write_all(b"HTTP/1.1 200 X\r\nX: ")?;
        repeat(&mut stream, b"y", Duration::from_millis(20))
    });
    let variable = |name: &str| (name == "https_proxy").then(|| format!("http://{proxy}"));
    let cdn = Cdn::with_environment(&Network::default(), &[], hasty(), &variable).unwrap();
    let url = "https://cdn.example/x";
    gives_up("a file", || fetch(&cdn, url));
    gives_up("a manifest", || cdn.manifest(url, 1000, None).map_err(|error| error.to_string()));
}

/// Each is the file, or an error that says why not: whatever it is, it is not taken for another file,
/// and a server library that reads it in another way changes nothing.
#[test]
fn odd_answers_are_the_file_or_an_error() {
    let head = |lines: &str| format!("HTTP/1.1 200 X\r\n{lines}\r\n\r\n").into_bytes();
    let body = |lines: &str| [head(lines), bytes(SIZE)].concat();
    let chunk = |size: &str, end: &str| {
        let size = format!("{size}\r\n").into_bytes();
        [head("Transfer-Encoding: chunked"), size, bytes(SIZE), end.into()].concat()
    };
    let size = format!("{SIZE:x}");
    let with = |text: &str| text.replace("SIZE", &SIZE.to_string());
    for (kind, answer, said) in [
        ("one length twice", body(&with("Content-Length: SIZE\r\nContent-Length: SIZE")), ""),
        ("two lengths", body(&with("Content-Length: SIZE\r\nContent-Length: 5")), "content-length"),
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
        ("the largest chunk", chunk("ffffffffffffffff", "more"), "more than the 200000"),
        ("a larger one", chunk("10000000000000000", ""), "chunk"),
        ("a negative one", chunk("-5", ""), "chunk"),
        ("chunks without an end", chunk(&size, "\r\n"), ""),
        ("chunks without a line end", chunk("5", ""), "ended after 5 of"),
        (
            "more than the length",
            [body(&with("Content-Length: SIZE")), b"more".to_vec()].concat(),
            "",
        ),
        ("HTTP/0.9", bytes(SIZE), "HTTP version"),
        ("HTTP/1.0", [b"HTTP/1.0 200 X\r\n\r\n".to_vec(), bytes(SIZE)].concat(), ""),
        ("HTTP/2", b"HTTP/2 200\r\n\r\n".to_vec(), "HTTP version"),
        ("TLS", vec![21, 3, 3, 0, 2, 2, 70], "cannot get"),
        ("nothing", Vec::new(), "disconnected"),
        ("another protocol", b"HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n".to_vec(), "101"),
        ("a header without a colon", body(&with("garbage\r\nContent-Length: SIZE")), "header"),
        ("a NUL", body(&with("X: \0\r\nContent-Length: SIZE")), "header"),
    ] {
        let address = listen(move |mut stream| {
            request(&mut stream)?;
            stream.write_all(&answer)?;
            stream.shutdown(Shutdown::Write)
        });
        match fetch(&plain(), &format!("http://{address}/x")) {
            Ok(()) => assert_eq!(said, "", "{kind} was taken"),
            Err(error) => assert!(!said.is_empty() && error.contains(said), "{kind}: {error}"),
        }
    }
}

#[test]
fn chunks_that_are_cut_anywhere_are_resumed() {
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
        // What says that it ends there was not cut.
        match end {
            "\r\n0\r\n" => assert!(result.unwrap_err().contains("ended after 100000")),
            _ => assert_eq!(result, Ok(()), "{end:?}"),
        }
    }
}

/// A body behind an answer to HEAD, and more than was announced: the next answer comes without it.
#[test]
fn what_comes_behind_an_answer_is_not_the_next_answer() {
    for more in ["<html>", "HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n"] {
        let world = World::new();
        let token = sign(&world.key, &claims(&release(2))).unwrap();
        let address = listen(move |mut stream| {
            loop {
                let asked = request(&mut stream)?;
                let body = match asked.split(' ').nth(1) {
                    None => return Ok(()),
                    Some("/2.vmlinuz") => content(Role::Kernel, 2),
                    Some("/2.initrd") => content(Role::Initrd, 2),
                    Some(_) => token.clone().into_bytes(),
                };
                let head = format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n", body.len());
                let sent = if asked.starts_with("GET") { &body[..] } else { &[] };
                stream.write_all(&[head.as_bytes(), sent].concat())?;
                // Whoever asks at once has asked by then.
                std::thread::sleep(Duration::from_millis(50));
                stream.write_all(more.as_bytes())?;
            }
        });
        let config = json!({"cdn": format!("http://{address}")});
        world.write("esp/etchaos/config.json", config.to_string());
        world.run(&["update"]).ended(0);
        world.assert_slot(B, 2);
    }
}
