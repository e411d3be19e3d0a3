//! Name servers that answer late, partly or not at all, in a network namespace of the test's own.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::esp::Slot::B;
use serde_json::json;
use updater::cdn::{Cdn, Retries, Timeouts};
use updater::config::Network;

use crate::namespace::{LOST_PACKETS, is_done_in_namespace};
use crate::network::timeouts;
use crate::server::{Reply, Server};
use crate::world::World;

/// The time that a name server without answers for one family may cost a run, with a margin for a slow machine.
/// The C library waits 15 s for such an answer, and an update has five requests.
const COST_MAX: Duration = Duration::from_secs(6);

const A: u16 = 1;
const AAAA: u16 = 28;

/// When a name server answers, and with which addresses. `None` stands for no answer.
type Answer = Option<(Duration, Vec<Vec<u8>>)>;

/// Returns the answer for a name and a type.
fn answer(name: &str, kind: u16) -> Answer {
    let loopback = vec![vec![127, 0, 0, 1]];
    let dead = vec![[&[0x20, 0x01, 0x0d, 0xb8][..], &[0; 11], &[1]].concat()];
    let after = |milliseconds| Duration::from_millis(milliseconds);
    match (name, kind) {
        ("quick.test" | "ipv4.test" | "silent.test" | "late.test", A) => Some((after(0), loopback)),
        ("quick.test" | "slow4.test", AAAA) => Some((after(0), dead)),
        ("late.test", AAAA) => Some((after(2500), dead)),
        ("slow4.test", A) => Some((after(200), loopback)),
        // As a name server makes them up for a network that has only IPv6 (RFC 6147).
        ("nat64.test", A) => Some((after(0), vec![vec![198, 51, 100, 1]])),
        ("nat64.test", AAAA) => Some((after(800), vec![Ipv6Addr::LOCALHOST.octets().to_vec()])),
        ("both-late.test", A) => Some((after(1500), loopback)),
        ("both-late.test", AAAA) => Some((after(1500), dead)),
        ("silent.test", _) | ("dead.test", _) => None,
        _ => Some((after(0), Vec::new())),
    }
}

/// Runs a name server (RFC 1035) at the address that the C library asks by default.
fn serve() {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:53").unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            respond(&socket, &buffer[..length], peer);
        }
    });
}

fn respond(socket: &Arc<UdpSocket>, query: &[u8], peer: SocketAddr) {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..end]).into_owned());
        at = end;
    }
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let Some((delay, addresses)) = answer(&labels.join("."), kind) else { return };
    // The ID of the query, "response, recursion available, no error", and the counts.
    let mut response =
        [&query[..2], &[0x81, 0x80, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]].concat();
    response.extend(&query[12..at + 5]);
    for address in addresses {
        // The name of the question, the type, the class, a time to live of zero, and the address.
        response.extend([0xc0, 12]);
        response.extend(kind.to_be_bytes());
        response.extend([0, 1, 0, 0, 0, 0, 0, address.len() as u8]);
        response.extend(address);
    }
    let socket = socket.clone();
    std::thread::spawn(move || {
        std::thread::sleep(delay);
        socket.send_to(&response, peer)
    });
}

/// Runs a test of this file in namespaces of its own, and returns whether it has run.
fn is_done(test: &str) -> bool {
    is_done_in_namespace(&format!("network_names::{test}"), LOST_PACKETS, "")
}

#[test]
fn late_or_missing_answers_do_not_delay_an_update() {
    if is_done("late_or_missing_answers_do_not_delay_an_update") {
        return;
    }
    serve();
    let mut direct = Duration::ZERO;
    for name in ["quick", "ipv4", "slow4", "late", "silent"] {
        let world = World::new();
        world.publish(2);
        let port = world.cdn.url.rsplit(':').next().unwrap();
        let cdn = format!("http://{name}.test:{port}");
        world.write("esp/etchaos/config.json", json!({ "cdn": cdn }).to_string());
        let since = Instant::now();
        world.run(&["update"]).ended(0);
        let took = since.elapsed();
        println!("update from {name}.test: {:.2} s", took.as_secs_f64());
        world.assert_slot(B, 2);
        if name == "quick" {
            direct = took;
        }
        assert!(took < direct + COST_MAX, "{name}: {took:?}, {direct:?} with quick answers");
    }
}

#[test]
fn a_slow_name_server_is_waited_for() {
    if is_done("a_slow_name_server_is_waited_for") {
        return;
    }
    serve();
    let world = World::new();
    let port = world.cdn.url.rsplit(':').next().unwrap();
    let cdn = format!("http://both-late.test:{port}");
    world.write("esp/etchaos/config.json", json!({ "cdn": cdn }).to_string());
    world.run(&["check"]).ended(0);
    // Its own retries were not needed.
    assert_eq!(world.cdn.requests().len(), 1);
}

/// A host without IPv4 waits for the addresses that it can use.
#[test]
fn a_host_with_one_family_does_not_use_the_other() {
    if is_done("a_host_with_one_family_does_not_use_the_other") {
        return;
    }
    serve();
    let remove = ["addr", "del", "192.0.2.1/32", "dev", "dead"];
    assert!(Command::new("ip").args(remove).status().unwrap().success());
    let server = Server::start_on("[::1]:0");
    server.put("/x", Reply::ok("x"));
    let port = server.url.rsplit(':').next().unwrap();
    let once = Retries { attempts: 1, ..timeouts().manifest_retries };
    let timeouts = Timeouts { manifest_retries: once, ..timeouts() };
    let cdn = Cdn::with_environment(&Network::default(), &[], timeouts, &|_| None).unwrap();
    for _ in 0..2 {
        cdn.manifest(&format!("http://nat64.test:{port}/x"), 1000, None).unwrap();
    }
}

#[test]
fn a_name_server_that_does_not_answer_is_named() {
    if is_done("a_name_server_that_does_not_answer_is_named") {
        return;
    }
    serve();
    let second = Duration::from_secs(1);
    let retries = Retries { attempts: 2, ..timeouts().download_retries };
    let timeouts = Timeouts {
        connect: second,
        manifest_retries: retries,
        download_retries: retries,
        ..timeouts()
    };
    let cdn = Cdn::with_environment(&Network::default(), &[], timeouts, &|_| None).unwrap();
    let proxy = Network { proxy: Some("http://dead.test:3128".into()), ..Network::default() };
    let proxy = Cdn::with_environment(&proxy, &[], timeouts, &|_| None).unwrap();
    for (cdn, url) in [
        (&cdn, "http://dead.test/x"),
        (&proxy, "http://cdn.example/x"),
        (&proxy, "https://cdn.example/x"),
    ] {
        let since = Instant::now();
        let error = cdn.manifest(url, 1000, None).unwrap_err().to_string();
        assert!(error.contains("timeout: no name server"), "{error}");
        // A request without a deadline of its own.
        let error = cdn.probe(url).unwrap_err().to_string();
        assert!(error.contains("timeout: no name server"), "{error}");
        assert!(since.elapsed() < Duration::from_secs(9), "{:?}", since.elapsed());
    }
    let error = cdn.manifest("http://none.test/x", 1000, None).unwrap_err().to_string();
    assert!(error.contains("cannot get") && !error.contains("timeout"), "{error}");
}
