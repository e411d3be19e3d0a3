//! Hosts with addresses that do not answer, in a network namespace of the test's own.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::process::Output;
use std::time::{Duration, Instant};

use protocol::esp::Slot::B;
use serde_json::json;
use updater::cdn::{Cdn, ManifestResponse, Timeouts};
use updater::config::Network;

use crate::namespace::{LOST_PACKETS, is_done_in_namespace};
use crate::network::{Memory, bytes, timeouts};
use crate::network_proxy::Authority;
use crate::server::{End, Reply, Server};
use crate::world::{World, target};

/// The time that a dead family may cost a run, with a margin for a slow machine. Without a race, one address
/// costs 20 s for each request, and an update has five.
const COST_MAX: Duration = Duration::from_secs(5);

/// Names whose addresses are looked up in /etc/hosts.
fn hosts() -> String {
    let mut hosts = String::new();
    for (name, count) in [("one.test", 1), ("eight.test", 8), ("thirty.test", 30)] {
        for n in 1..=count {
            hosts.push_str(&format!("2001:db8::{n:x} {name}\n"));
        }
        hosts.push_str(&format!("127.0.0.1 {name}\n"));
    }
    hosts + "198.51.100.1 all.test\n2001:db8::1 all.test\n"
}

/// Runs a test of this file in namespaces of its own, and returns whether it has run.
fn is_done(test: &str) -> bool {
    is_done_in_namespace(&format!("network_addresses::{test}"), LOST_PACKETS, &hosts())
}

/// A client that waits for a second.
fn impatient(network: &Network) -> Cdn {
    let second = Duration::from_secs(1);
    let timeouts = Timeouts { connect: second, stall: second, ..timeouts() };
    Cdn::with_environment(network, &[], timeouts, &|_| None).unwrap()
}

/// Accepts connections and never answers.
fn accept_only(address: &str) -> TcpListener {
    let listener = TcpListener::bind(address).unwrap();
    let incoming = listener.try_clone().unwrap();
    std::thread::spawn(move || {
        for mut stream in incoming.incoming().flatten() {
            std::thread::spawn(move || stream.read_to_end(&mut Vec::new()));
        }
    });
    listener
}

/// Sets the CDN of a host, and returns the time and the result of a command.
fn run(world: &World, cdn: &str, arguments: &[&str], proxy: &str) -> (Duration, Output) {
    world.write("esp/etchaos/config.json", json!({"cdn": cdn}).to_string());
    let since = Instant::now();
    let output = world.command(arguments).env("http_proxy", proxy).output().unwrap();
    (since.elapsed(), output)
}

fn port(world: &World) -> &str {
    world.cdn.url.rsplit(':').next().unwrap()
}

#[test]
fn dead_ipv6_does_not_delay_an_update() {
    if is_done("dead_ipv6_does_not_delay_an_update") {
        return;
    }
    let mut update = Duration::ZERO;
    for name in ["localhost", "one.test", "eight.test", "thirty.test"] {
        let world = World::new();
        world.publish(2);
        let cdn = format!("http://{name}:{}", port(&world));
        let (took, output) = run(&world, &cdn, &["update"], "");
        println!("update from {name}: {:.2} s", took.as_secs_f64());
        assert!(output.status.success(), "{name}: {output:?}");
        world.assert_slot(B, 2);
        if name == "localhost" {
            update = took;
        }
        assert!(took < update + COST_MAX, "{name}: {took:?}, directly {update:?}");
    }
}

#[test]
fn dead_addresses_of_a_proxy_do_not_delay_an_update() {
    if is_done("dead_addresses_of_a_proxy_do_not_delay_an_update") {
        return;
    }
    let world = World::new();
    let manifest = format!("/{}", target().manifest_name());
    let (port, cdn) = (port(&world).to_owned(), "http://cdn.test:8080");
    // The server takes the place of a proxy: it receives the URL in the absolute form.
    let token = fs::read(world.esp("etchaos/a/release.jwt")).unwrap();
    world.cdn.put(&format!("{cdn}{manifest}"), Reply::ok(token));
    let proxy = format!("http://user:1234#s3cret@eight.test:{port}");
    let (took, output) = run(&world, cdn, &["check"], &proxy);
    println!("check through a proxy: {:.2} s", took.as_secs_f64());
    assert!(took < COST_MAX * 2, "{took:?}");
    let received = world.cdn.received();
    assert_eq!(received.len(), 1, "{output:?}");
    assert_eq!(received[0].header("proxy-authorization"), Some("Basic dXNlcjoxMjM0I3MzY3JldA=="));
}

#[test]
fn fails_if_no_address_answers() {
    if is_done("fails_if_no_address_answers") {
        return;
    }
    let timeouts = Timeouts { connect: Duration::from_secs(2), ..timeouts() };
    let cdn = Cdn::with_environment(&Network::default(), &[], timeouts, &|_| None).unwrap();
    let since = Instant::now();
    let error = cdn.manifest("http://all.test:8080/x", 1000, None).unwrap_err().to_string();
    assert!(error.contains("timeout: no connection"), "{error}");
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
}

#[test]
fn another_address_is_tried_if_one_accepts_and_never_answers() {
    if is_done("another_address_is_tried_if_one_accepts_and_never_answers") {
        return;
    }
    let server = Server::start();
    let port = server.url.rsplit(':').next().unwrap();
    server.put("/x", Reply::ok("x"));
    server.answer("/file", |request| Reply::file(request, &bytes(9000), "\"1\""));
    let dead = accept_only(&format!("[::1]:{port}"));
    let cdn = impatient(&Network::default());
    let url = format!("http://localhost:{port}");
    for most in [COST_MAX, Duration::from_millis(900)] {
        let since = Instant::now();
        let found = cdn.manifest(&format!("{url}/x"), 1000, None).unwrap();
        assert!(matches!(found, ManifestResponse::Modified { bytes, .. } if bytes == b"x"));
        // The address that works is remembered.
        assert!(since.elapsed() < most, "{:?}", since.elapsed());
    }
    let mut sink = Memory::default();
    impatient(&Network::default()).fetch(&format!("{url}/file"), 0, 9000, &mut sink).unwrap();
    assert!(sink.bytes == bytes(9000));
    // The TLS handshake is not answered either.
    let authority = Authority::new();
    let server = Server::start_tls(authority.config("localhost"));
    server.put("/x", Reply::ok("x"));
    let port = server.url.rsplit(':').next().unwrap();
    let dead_tls = accept_only(&format!("[::1]:{port}"));
    let since = Instant::now();
    let url = format!("https://localhost:{port}/x");
    impatient(&authority.network()).manifest(&url, 1000, None).unwrap();
    assert!(since.elapsed() < COST_MAX, "{:?}", since.elapsed());
    drop((dead, dead_tls));
}

#[test]
fn an_address_that_stalls_is_left_during_a_download() {
    if is_done("an_address_that_stalls_is_left_during_a_download") {
        return;
    }
    let good = Server::start();
    let port = good.url.rsplit(':').next().unwrap();
    let stalling = Server::start_on(&format!("[::1]:{port}"));
    let file = |request: &_| Reply::file(request, &bytes(300_000), "\"1\"");
    good.answer("/x", file);
    stalling.answer("/x", move |request| file(request).cut(100_000, End::Stall));
    let (cdn, since, mut sink) =
        (impatient(&Network::default()), Instant::now(), Memory::default());
    cdn.fetch(&format!("http://localhost:{port}/x"), 0, 300_000, &mut sink).unwrap();
    assert!(sink.bytes == bytes(300_000) && sink.restarts == 0);
    assert_eq!((stalling.received().len(), good.received().len()), (1, 1));
    assert_eq!(good.received()[0].from(), Some(100_000));
    assert!(since.elapsed() < COST_MAX, "{:?}", since.elapsed());
}
