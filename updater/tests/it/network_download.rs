//! Downloads from servers that interrupt, stall or change the file, and from several mirrors.

use std::io::Write;
use std::net::TcpListener;
use std::num::NonZeroU64;
use std::process::Stdio;
use std::time::{Duration, Instant};

use protocol::Artifact;
use updater::cdn::{Cdn, FetchError, Timeouts};
use updater::config::Network;

use crate::network::{Memory, artifact, bytes, client, plain, timeouts, with_stall_timeout};
use crate::server::{End, Reply, Server, content_range};
use crate::world::{World, peak_memory, release};

pub(crate) const SIZE: usize = 500_000;
/// Larger than the number of bytes that counts as progress.
pub(crate) const PIECE: usize = 100_000;

/// Returns the file's URL.
pub(crate) fn url(server: &Server) -> String {
    format!("{}/x", server.url)
}

pub(crate) fn fetch(server: &Server, sink: &mut Memory) -> Result<(), FetchError> {
    plain().fetch(&url(server), sink.bytes.len() as u64, SIZE as u64, sink)
}

/// Asserts that a download failed with a message that has these parts, after this many requests.
#[track_caller]
pub(crate) fn assert_failed(
    result: Result<(), FetchError>,
    server: &Server,
    message_parts: &[&str],
    requests: usize,
) {
    let error = result.unwrap_err().to_string();
    for text in message_parts {
        assert!(error.contains(text), "no {text:?} in: {error}");
    }
    assert_eq!(server.received().len(), requests, "{error}");
}

#[test]
fn resumes_after_interruption() {
    for end in [End::Close, End::Reset] {
        let server = Server::start();
        server.answer("/x", move |r| Reply::file(r, &bytes(SIZE), "\"1\"").cut(PIECE, end));
        let mut sink = Memory::default();
        fetch(&server, &mut sink).unwrap();
        assert!(sink.bytes == bytes(SIZE));
        assert_eq!(sink.restarts, 0);
        let received = server.received();
        let from: Vec<usize> = received.iter().filter_map(|r| r.from()).collect();
        assert_eq!(from, [PIECE, 2 * PIECE, 3 * PIECE, 4 * PIECE]);
        assert!(received[1..].iter().all(|r| r.header("if-range") == Some("\"1\"")));
        assert!(server.sent() < SIZE as u64 + 5 * 300, "{}", server.sent());
    }
}

#[test]
fn resumes_after_stall() {
    let server = Server::start();
    server.answer("/x", |r| Reply::file(r, &bytes(SIZE), "\"1\"").cut(2 * PIECE, End::Stall));
    let mut sink = Memory::default();
    let since = Instant::now();
    with_stall_timeout(Duration::from_secs(1))
        .fetch(&url(&server), 0, SIZE as u64, &mut sink)
        .unwrap();
    assert!(sink.bytes == bytes(SIZE));
    assert_eq!(sink.restarts, 0);
    assert!(since.elapsed() >= Duration::from_secs(2));
    assert!(server.received()[1..].iter().all(|r| r.from().is_some()));
}

#[test]
fn resumes_after_bytes_of_earlier_run() {
    let server = Server::start();
    server.answer("/x", |r| Reply::file(r, &bytes(SIZE), "\"1\""));
    let mut sink = Memory::with(&bytes(SIZE)[..300_001]);
    fetch(&server, &mut sink).unwrap();
    assert!(sink.bytes == bytes(SIZE) && sink.restarts == 0);
    assert_eq!(server.received()[0].from(), Some(300_001));
    // A complete file causes no request. One that is too long is downloaded again.
    fetch(&server, &mut sink).unwrap();
    assert_eq!(server.received().len(), 1);
    sink.bytes.push(0);
    fetch(&server, &mut sink).unwrap();
    assert!(sink.bytes == bytes(SIZE) && sink.restarts == 1);
    assert_eq!(server.received()[1].from(), None);
}

#[test]
fn restarts_if_server_does_not_support_ranges() {
    let server = Server::start();
    server.answer("/x", |r| match r.nth {
        0 | 1 => Reply::ok(bytes(SIZE)).cut(PIECE, End::Close),
        _ => Reply::ok(bytes(SIZE)),
    });
    let mut sink = Memory::default();
    fetch(&server, &mut sink).unwrap();
    assert!(sink.bytes == bytes(SIZE));
    assert_eq!((sink.restarts, server.received().len()), (2, 3));
}

#[test]
fn gives_up_without_progress() {
    for end in [End::Close, End::Reset] {
        let server = Server::start();
        server.put("/x", Reply::ok(bytes(SIZE)).cut(PIECE, end));
        assert_failed(fetch(&server, &mut Memory::default()), &server, &["ended after 100000"], 5);
    }
    // One byte per response does not count as progress.
    let server = Server::start();
    server.answer("/x", |r| Reply::file(r, &bytes(SIZE), "\"1\"").cut(1, End::Close));
    assert_failed(fetch(&server, &mut Memory::default()), &server, &["ended after 5"], 5);
}

/// A server that does not support ranges sends a little more each time.
#[test]
fn gives_up_after_too_many_restarts() {
    const LARGE: usize = 20 * PIECE;
    let server = Server::start();
    server.answer("/x", |r| Reply::ok(bytes(LARGE)).cut((r.nth + 1) * PIECE, End::Close));
    let mut sink = Memory::default();
    let result = plain().fetch(&url(&server), 0, LARGE as u64, &mut sink);
    assert_eq!(sink.restarts, 5);
    assert_failed(result, &server, &["ended after 600000 of 2000000"], 6);
}

#[test]
fn restarts_after_unusable_ranges() {
    let full_range = content_range(0, SIZE);
    let early = content_range(PIECE - 1, SIZE);
    let replies: [(u16, &[&str]); 7] = [
        (206, &[]),
        (206, &["Content-Range: bytes garbage"]),
        (206, &["Content-Type: multipart/byteranges; boundary=x"]),
        (206, &[&full_range]),
        (206, &[&early]),
        (206, &["Content-Range: bytes 100000-500000/*"]),
        (416, &["Content-Range: bytes */100000"]),
    ];
    for (status, headers) in replies {
        let server = Server::start();
        let headers: Vec<String> = headers.iter().map(|header| header.to_string()).collect();
        let response = format!("{status} {headers:?}");
        server.answer("/x", move |r| match r.from() {
            Some(_) => Reply { status, headers: headers.clone(), ..Reply::ok(bytes(SIZE)) },
            None if r.nth == 0 => Reply::ok(bytes(SIZE)).cut(PIECE, End::Close),
            None => Reply::ok(bytes(SIZE)),
        });
        let mut sink = Memory::default();
        fetch(&server, &mut sink).unwrap();
        assert!(sink.bytes == bytes(SIZE), "{response}");
        assert_eq!((sink.restarts, server.received().len()), (1, 3), "{response}");
    }
    // A partial response to a request without `Range`.
    let server = Server::start();
    let range = content_range(0, SIZE);
    server.put("/x", Reply { status: 206, ..Reply::ok(bytes(SIZE)).header(range) });
    assert_failed(fetch(&server, &mut Memory::default()), &server, &["206"], 1);
}

#[test]
fn restarts_if_file_changes_during_download() {
    let other = || bytes(SIZE).into_iter().map(|b| b ^ 1).collect::<Vec<u8>>();
    // A correct server sends 200. Another one sends 206 with a different ETag.
    for is_correct in [true, false] {
        let server = Server::start();
        server.answer("/x", move |r| match (r.nth, r.from()) {
            (0, _) => Reply::file(r, &bytes(SIZE), "\"1\"").cut(PIECE, End::Close),
            (1, Some(from)) if !is_correct => Reply {
                status: 206,
                headers: vec![content_range(from, SIZE), "ETag: \"2\"".into()],
                ..Reply::ok(&other()[from..])
            },
            _ => Reply::file(r, &other(), "\"2\""),
        });
        let mut sink = Memory::default();
        fetch(&server, &mut sink).unwrap();
        assert!(sink.bytes == other());
        assert_eq!(sink.restarts, 1);
    }
    // The new file is shorter than the manifest says.
    let server = Server::start();
    server.answer("/x", |r| match r.nth {
        0 => Reply::file(r, &bytes(SIZE), "\"1\"").cut(PIECE, End::Close),
        _ => Reply::file(r, &bytes(SIZE - 1), "\"2\""),
    });
    assert_failed(
        fetch(&server, &mut Memory::default()),
        &server,
        &["announces 499999", "500000"],
        2,
    );
}

#[test]
fn gives_up_on_slow_server() {
    let server = Server::start();
    let pause = Some(Duration::from_millis(10));
    server.answer("/x", move |r| Reply { pause, ..Reply::file(r, &bytes(SIZE), "\"1\"") });
    let mut sink = Memory::default();
    let cdn = with_stall_timeout(Duration::from_millis(200));
    let error = cdn.fetch(&url(&server), 0, SIZE as u64, &mut sink).unwrap_err().to_string();
    // The timeout is reached first if the test machine is slow.
    assert!(error.contains("too slow") || error.contains("timeout"), "{error}");
    assert_eq!(server.received().len(), 5);
}

#[test]
fn times_out_without_response_head() {
    let short = Duration::from_millis(300);
    let timeouts = Timeouts { connect: short, stall: short, ..timeouts() };
    let cdn = Cdn::with_environment(&Network::default(), &[], timeouts, &|_| None).unwrap();
    // The servers accept a connection and send an incomplete head or interim responses without end.
    for head in ["", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 X\r\nX: y\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut is_open = stream.write_all(head.as_bytes()).is_ok();
                    while is_open {
                        std::thread::sleep(Duration::from_millis(20));
                        let next = if head.contains("X: y") { "X: y\r\n" } else { head };
                        is_open = stream.write_all(next.as_bytes()).is_ok() && !next.is_empty();
                    }
                    std::thread::sleep(Duration::from_secs(20));
                });
            }
        });
        for scheme in ["http", "https"] {
            let since = Instant::now();
            let url = format!("{scheme}://{address}/x");
            let error = cdn.fetch(&url, 0, SIZE as u64, &mut Memory::default()).unwrap_err();
            assert!(error.to_string().contains("cannot get"), "{error}");
            assert!(since.elapsed() < Duration::from_secs(15), "{head:?} {scheme}");
        }
    }
}

#[test]
fn does_not_retry_if_sink_is_full() {
    let server = Server::start();
    server.put("/x", Reply::ok(bytes(SIZE)));
    let mut sink = Memory { is_full: true, ..Memory::default() };
    let result = fetch(&server, &mut sink);
    assert!(matches!(result, Err(FetchError::Sink(_))));
    assert_failed(result, &server, &["cannot write"], 1);
}

#[test]
fn respects_rate_limit() {
    let server = Server::start();
    server.answer("/x", |r| Reply::file(r, &bytes(SIZE), "\"1\""));
    let rate_limit = NonZeroU64::new(500_000);
    let limited = client(&Network { rate_limit, ..Network::default() });
    let since = Instant::now();
    limited.fetch(&url(&server), 0, SIZE as u64, &mut Memory::default()).unwrap();
    let took = since.elapsed();
    assert!((900..20_000).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn resumes_from_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    std::fs::write(&path, bytes(SIZE)).unwrap();
    let fetch = |from: usize, sink: &mut Memory| {
        plain().fetch(path.to_str().unwrap(), from as u64, SIZE as u64, sink)
    };
    for from in [0, 1, 300_001, SIZE] {
        let mut sink = Memory::with(&bytes(SIZE)[..from]);
        fetch(from, &mut sink).unwrap();
        assert!(sink.bytes == bytes(SIZE) && sink.restarts == 0, "{from}");
    }
    std::fs::write(&path, bytes(SIZE - 1)).unwrap();
    let error = fetch(0, &mut Memory::default()).unwrap_err().to_string();
    assert!(error.contains("499999"), "{error}");
    std::fs::remove_file(&path).unwrap();
    let error = fetch(5, &mut Memory::default()).unwrap_err().to_string();
    assert!(error.contains("copied to the CDN's directory"), "{error}");
}

#[test]
fn falls_back_to_next_mirror() {
    let damaged = || bytes(SIZE).into_iter().map(|b| b ^ 1).collect::<Vec<u8>>();
    let bad = [
        Reply::status(404),
        Reply::status(503),
        Reply::ok("<html>"),
        Reply::ok(damaged()),
        Reply::ok(damaged()).cut(PIECE, End::Close),
        Reply::ok(bytes(SIZE)).cut(PIECE, End::Reset),
    ];
    for (index, reply) in bad.into_iter().enumerate() {
        let (first, second) = (Server::start(), Server::start());
        first.put("/x", reply);
        second.answer("/x", |r| Reply::file(r, &bytes(SIZE), "\"1\""));
        let mut sink = Memory::default();
        let urls = [url(&first), url(&second)];
        plain().download(&urls, &artifact(&bytes(SIZE)), &mut sink).unwrap();
        assert!(sink.bytes == bytes(SIZE), "{index}");
        // The second server resumes the data of the first. If the digest is wrong, it sends the whole
        // file.
        let from: Vec<_> = second.received().iter().map(|r| r.from()).collect();
        let expected = match index {
            4 => vec![Some(PIECE), None],
            5 => vec![Some(PIECE)],
            _ => vec![None],
        };
        assert_eq!(from, expected, "{index}");
    }
}

#[test]
fn discards_partial_file_of_another_release() {
    let server = Server::start();
    server.answer("/x", |r| Reply::file(r, &bytes(SIZE), "\"1\""));
    let mut sink = Memory::with(&[7; PIECE]);
    plain().download(&[url(&server)], &artifact(&bytes(SIZE)), &mut sink).unwrap();
    assert!(sink.bytes == bytes(SIZE));
    assert_eq!((sink.restarts, server.received().len()), (1, 2));
}

#[test]
fn reports_error_of_each_mirror() {
    let (first, second) = (Server::start(), Server::start());
    second.put("/x", Reply::ok(vec![0; SIZE]));
    let mut sink = Memory::default();
    let urls = [format!("{}?token=SECRET", url(&first)), url(&second)];
    let result = plain().download(&urls, &artifact(&bytes(SIZE)), &mut sink);
    let error = result.unwrap_err().to_string();
    for part in ["failed from all 2 mirrors", &first.url, "404", &second.url, "SHA-256"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!error.contains("SECRET"), "{error}");
    assert!(sink.bytes.is_empty());
}

#[test]
fn memory_use_is_independent_of_file_size() {
    const LARGE: usize = 120 << 20;
    let world = World::new();
    let large = vec![7; LARGE];
    let mut release = release(2);
    release.artifacts[1] = Artifact { url: "large".into(), ..artifact(&large) };
    world.publish(2);
    world.publish_manifest(&release);
    world.cdn.answer("/large", |r| {
        let file = Reply::file(r, &vec![7; LARGE], "\"1\"");
        if r.from().is_none() { file.cut(LARGE / 2, End::Reset) } else { file }
    });
    let mut updater = world.command(&["update"]).stdout(Stdio::null()).spawn().unwrap();
    let peak = peak_memory(&mut updater);
    assert!(updater.wait().unwrap().success());
    eprintln!("peak of the resident set: {peak} KiB");
    // For a debug build, whose code alone is larger than the memory of a release build.
    assert!((1..24 << 10).contains(&peak), "{peak} KiB");
    let resumed = world.cdn.received().iter().filter(|r| r.from().is_some()).count();
    assert_eq!(resumed, 1);
}
