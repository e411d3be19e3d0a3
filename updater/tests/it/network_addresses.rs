//! Hosts with addresses that do not answer, in a network namespace of the test's own: packets to them go to
//! the other end of a cable, where nothing receives them.

use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use protocol::esp::Slot::B;
use serde_json::json;
use updater::cdn::{Cdn, Timeouts};
use updater::config::Network;

use crate::network::timeouts;
use crate::server::Reply;
use crate::world::{World, target};

/// Set in the namespace.
const CHILD: &str = "ETCHAOS_TEST_NAMESPACE";
/// The time that a dead family may cost a run, with a margin for a slow machine. Without a race, one address
/// costs 20 s for each request, and an update has five.
const COST_MAX: Duration = Duration::from_secs(5);

/// Makes the cable. Without "arp off", the kernel itself would report that nothing answers there. The
/// addresses are of networks that are only for documentation.
const SETUP: &str = "
    ip link set lo up
    ip link add dead type veth peer name drop
    ip link set drop up
    ip link set dead arp off up
    ip -6 addr add 2001:db8:1::1/64 dev dead nodad
    ip -6 route add 2001:db8::/32 dev dead
    ip addr add 192.0.2.1/32 dev dead
    ip route add 198.51.100.0/24 dev dead
    mount --bind \"$1\" /etc/hosts || exit 99
    shift
    exec \"$@\"";

/// Names whose addresses are looked up in /etc/hosts.
fn hosts() -> String {
    let mut hosts = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for (name, count) in [("one.test", 1), ("eight.test", 8), ("thirty.test", 30)] {
        for n in 1..=count {
            hosts.push_str(&format!("2001:db8::{n:x} {name}\n"));
        }
        hosts.push_str(&format!("127.0.0.1 {name}\n"));
    }
    hosts.push_str("198.51.100.1 all.test\n2001:db8::1 all.test\n");
    hosts
}

/// Runs a test of this file in namespaces of its own. Returns whether this is the parent, for which nothing
/// is left to do.
fn is_done_in_namespace(test: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return false;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hosts");
    fs::write(&file, hosts()).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "--mount", "--kill-child", "--fork"]);
    command.args(["sh", "-ec", SETUP, "sh"]).arg(&file).arg(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("network_addresses::{test}"), "--nocapture"]).env(CHILD, "1");
    let Output { status, stdout, stderr } = command.output().expect("unshare can be run");
    let text = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    if text.contains("running 1 test") {
        assert!(status.success() && text.contains("1 passed"), "{text}");
        print!("{text}");
    } else {
        assert!(std::env::var("CI").is_err(), "this test needs namespaces: {text}");
        eprintln!("SKIPPED: no network namespace can be made here: {text}");
    }
    true
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
fn dead_ipv6_costs_less_than_a_second() {
    if is_done_in_namespace("dead_ipv6_costs_less_than_a_second") {
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
fn dead_addresses_of_a_proxy_cost_less_than_a_second() {
    if is_done_in_namespace("dead_addresses_of_a_proxy_cost_less_than_a_second") {
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
    if is_done_in_namespace("fails_if_no_address_answers") {
        return;
    }
    let timeouts = Timeouts { connect: Duration::from_secs(2), ..timeouts() };
    let cdn = Cdn::with_environment(&Network::default(), &[], timeouts, &|_| None).unwrap();
    let since = Instant::now();
    let error = cdn.manifest("http://all.test:8080/x", 1000, None).unwrap_err().to_string();
    assert!(error.contains("timeout: no connection"), "{error}");
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
}
