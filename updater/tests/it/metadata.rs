//! User data from the metadata service of a cloud platform. The tests own the service's address in a
//! network namespace, and run the real binary there.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::esp::Slot::{A, B};
use serde_json::{Value, json};

use crate::namespace::{LOOPBACK, is_done_in_namespace};
use crate::server::{End, Reply, Server};
use crate::world::World;

/// The address of every metadata service.
const ADDRESS: &str = "169.254.169.254/32";

const AWS: &[(&str, &str)] = &[("sys_vendor", "Amazon EC2")];
const AZURE: &[(&str, &str)] = &[("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77")];
const GCP: &[(&str, &str)] = &[("product_name", "Google Compute Engine")];
const HETZNER: &[(&str, &str)] = &[("sys_vendor", "Hetzner")];
const OPENSTACK_TAG: &[(&str, &str)] =
    &[("chassis_asset_tag", "OpenStack Nova"), ("product_name", "vServer")];
const OPENSTACK: &[(&str, &str)] = &[("product_name", "OpenStack Nova")];

const AWS_TOKEN: &str = "/latest/api/token";
const AWS_DATA: &str = "/latest/user-data";
const AZURE_DATA: &str = "/metadata/instance/compute/userData?api-version=2021-01-01&format=text";
const GCP_DATA: &str = "/computeMetadata/v1/instance/attributes/user-data";
const HETZNER_DATA: &str = "/hetzner/v1/userdata";
const OPENSTACK_DATA: &str = "/openstack/latest/user_data";

/// A configuration in user data. It does not change whether the host updates.
const CONFIG: &str = r#"{"rateLimit": "1G"}"#;
/// The gzip of [`CONFIG`].
const GZIP: &str = "H4sIAAAAAAACA6tWKkosSfXJzM0sUbJSUDJ0V6oFAD+NxMUTAAAA";

/// Runs a test of this file in a namespace of its own, which has only the loopback interface, and returns whether
/// it has run.
fn is_done(test: &str) -> bool {
    is_done_in_namespace(&format!("metadata::{test}"), LOOPBACK, "")
}

fn own_the_address() {
    let added = Command::new("ip").args(["address", "add", ADDRESS, "dev", "lo"]).status().unwrap();
    assert!(added.success());
}

/// Makes an IPv6 address of a service an address of the loopback interface.
fn own(address: &str) {
    let arguments = ["-6", "address", "add", address, "dev", "lo", "nodad"];
    assert!(Command::new("ip").args(arguments).status().unwrap().success());
}

/// Returns a host whose firmware has these strings.
fn host(strings: &[(&str, &str)]) -> World {
    let world = World::new();
    for (name, value) in strings {
        world.write(&format!("host/sys/class/dmi/id/{name}"), format!("{value}\n"));
    }
    world
}

fn shown(world: &World) -> Value {
    world.run(&["config", "--json"]).json()
}

/// Forgets the answer, as a reboot does.
fn reboot(world: &World) {
    let _ = fs::remove_file(world.path("host/run/etchaos/user-data.json"));
}

#[test]
fn asks_each_platform_as_it_documents() {
    if is_done("asks_each_platform_as_it_documents") {
        return;
    }
    own_the_address();
    let server = Server::start_on("0.0.0.0:80");
    server.answer(AWS_TOKEN, |request| {
        let ttl = request.header("x-aws-ec2-metadata-token-ttl-seconds");
        let is_valid = request.method == "PUT"
            && ttl
                .and_then(|ttl| ttl.parse().ok())
                .is_some_and(|ttl: u32| (1..=21600).contains(&ttl))
            && request.header("x-forwarded-for").is_none();
        if is_valid { Reply::ok("TOKEN==") } else { Reply::status(400) }
    });
    server.answer(AWS_DATA, |request| match request.header("x-aws-ec2-metadata-token") {
        Some("TOKEN==") => Reply::ok(CONFIG).header("Content-Type: application/octet-stream"),
        _ => Reply::status(401),
    });
    server.answer(AZURE_DATA, |request| match request.header("metadata") {
        Some("true") => Reply::ok(STANDARD.encode(CONFIG)),
        _ => Reply::status(400),
    });
    server.answer(GCP_DATA, |request| match request.header("metadata-flavor") {
        Some("Google") => Reply::ok(CONFIG).header("Metadata-Flavor: Google"),
        _ => Reply::status(403),
    });
    server.put(HETZNER_DATA, Reply::ok(CONFIG));
    server.put(OPENSTACK_DATA, Reply::ok(format!("#etchaos\n{CONFIG}")));
    for (strings, name, requests) in [
        (AWS, "AWS", vec![format!("PUT {AWS_TOKEN}"), format!("GET {AWS_DATA}")]),
        (AZURE, "Azure", vec![format!("GET {AZURE_DATA}")]),
        (GCP, "GCP", vec![format!("GET {GCP_DATA}")]),
        (HETZNER, "Hetzner", vec![format!("GET {HETZNER_DATA}")]),
        (OPENSTACK, "OpenStack", vec![format!("GET {OPENSTACK_DATA}")]),
    ] {
        let world = host(strings);
        let before = server.requests().len();
        let mut command = world.command(&["config", "--json"]);
        // A proxy would answer, if one were asked.
        let output = command.env("http_proxy", "http://127.0.0.1:1").output().unwrap();
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        let expected = json!({"value": "1G", "source": format!("{name} user data")});
        assert_eq!(shown["rateLimit"], expected, "{shown}");
        assert_eq!(server.requests()[before..], requests, "{name}");
        // The answer is kept for the boot, where only root can read it.
        for arguments in [&["config"][..], &["health", "--wait"], &["update"]] {
            world.run(arguments).ended(0);
        }
        assert_eq!(server.requests().len(), before + requests.len(), "{name}");
        reboot(&world);
        world.run(&["config"]).ended(0);
        assert_eq!(server.requests().len(), before + 2 * requests.len(), "{name}");
    }
    // Nobody is asked on other machines.
    let before = server.requests().len();
    for strings in [&[("sys_vendor", "QEMU"), ("product_name", "Standard PC")][..], &[]] {
        let world = host(strings);
        assert_eq!(shown(&world)["ignored"], json!([]));
    }
    // A cidata volume overrides user data.
    let world = host(HETZNER);
    world.write("host/dev/disk/by-label/cidata/user-data", r#"{"rateLimit": "2M"}"#);
    assert_eq!(shown(&world)["rateLimit"]["source"], "cidata user-data");
    assert_eq!(server.requests().len(), before + 1);
    // The config drive of OpenStack has the same user data, so the service is not asked.
    let world = host(OPENSTACK);
    world.write("host/dev/disk/by-label/config-2/openstack/latest/user_data", CONFIG);
    assert_eq!(shown(&world)["rateLimit"]["source"], "config-2 openstack/latest/user_data");
    assert_eq!(server.requests().len(), before + 1);
}

#[test]
fn answers_without_a_configuration_are_no_errors() {
    if is_done("answers_without_a_configuration_are_no_errors") {
        return;
    }
    own_the_address();
    let server = Server::start_on("0.0.0.0:80");
    let ignored = |world: &World, part: &str| {
        let shown = shown(world);
        let reason = shown["ignored"][0]["reason"].as_str().unwrap_or_else(|| panic!("{shown}"));
        assert!(reason.contains(part) && shown["broken"] == json!([]), "{shown}");
        world.run(&["update"]).ended(0);
    };
    // Version 1 of AWS has no tokens.
    server.put(AWS_DATA, Reply::ok(CONFIG));
    assert_eq!(shown(&host(AWS))["rateLimit"]["source"], "AWS user data");
    let requests = server.requests();
    assert_eq!(requests, [format!("PUT {AWS_TOKEN}"), format!("GET {AWS_DATA}")]);
    assert!(server.received()[1].header("x-aws-ec2-metadata-token").is_none());
    // A server may end a token with a line break.
    server.put(AWS_TOKEN, Reply::ok("TOKEN==\n"));
    assert_eq!(shown(&host(AWS))["rateLimit"]["source"], "AWS user data");
    let last = server.received().pop().unwrap();
    assert_eq!(last.header("x-aws-ec2-metadata-token"), Some("TOKEN=="));
    // The service is turned off.
    server.put(AWS_TOKEN, Reply::status(403));
    ignored(&host(AWS), "turned off");
    for (strings, path) in [(HETZNER, HETZNER_DATA), (OPENSTACK, OPENSTACK_DATA)] {
        ignored(&host(strings), "this machine has none");
        server.put(path, Reply::ok(""));
        ignored(&host(strings), "it is empty");
        server.put(path, Reply::ok("#cloud-config\npackages: [vim]\n"));
        ignored(&host(strings), "cloud-init");
    }
    server.put(GCP_DATA, Reply::status(404).header("Metadata-Flavor: Google"));
    ignored(&host(GCP), "this machine has none");
    let html = "<!DOCTYPE html><html><body>health: no such page</body></html>";
    server.put(HETZNER_DATA, Reply { status: 404, ..Reply::ok(html) });
    ignored(&host(HETZNER), "this machine has none");
    server.put(HETZNER_DATA, Reply::ok(html));
    ignored(&host(HETZNER), "neither a JSON object");
    // Encodings that HTTP allows.
    for reply in [
        chunked(&[&CONFIG[..5], &CONFIG[5..]]),
        Reply::ok(STANDARD.decode(GZIP).unwrap()).header("Content-Encoding: gzip"),
        Reply { length: Some(None), ..Reply::ok(CONFIG) },
        Reply { pause: Some(Duration::from_millis(50)), ..Reply::ok(CONFIG) },
    ] {
        server.put(HETZNER_DATA, reply);
        assert_eq!(shown(&host(HETZNER))["rateLimit"]["source"], "Hetzner user data");
    }
    // Only the service of one platform is asked.
    let before = server.requests().len();
    assert_eq!(shown(&host(&[AWS, OPENSTACK_TAG].concat()))["broken"], json!([]));
    assert_eq!(server.requests()[before..], [format!("PUT {AWS_TOKEN}")]);
}

/// A machine without IPv4 reaches the services that have a second address.
#[test]
fn asks_by_ipv6_if_there_is_no_ipv4() {
    if is_done("asks_by_ipv6_if_there_is_no_ipv4") {
        return;
    }
    let server = Server::start_on("[::]:80");
    server.put(AWS_TOKEN, Reply::ok("TOKEN=="));
    server.put(AWS_DATA, Reply::ok(CONFIG));
    server.put(GCP_DATA, Reply::ok(CONFIG).header("Metadata-Flavor: Google"));
    server.put(HETZNER_DATA, Reply::ok(CONFIG));
    world_is_broken(&host(AWS), "http://169.254.169.254 ");
    own("fd00:ec2::254/128");
    own("fd20:ce::254/128");
    for (strings, source) in [(AWS, "AWS user data"), (GCP, "GCP user data")] {
        assert_eq!(shown(&host(strings))["rateLimit"]["source"], source);
    }
    assert_eq!(server.requests().len(), 3);
    world_is_broken(&host(HETZNER), "http://169.254.169.254 ");
    // An answer by IPv4 decides, also if it is an error.
    own_the_address();
    server.put(AWS_TOKEN, Reply::status(500));
    world_is_broken(&host(AWS), "status 500");
    assert_eq!(server.requests().len(), 4);
}

#[test]
fn a_service_that_fails_does_not_stop_a_host() {
    if is_done("a_service_that_fails_does_not_stop_a_host") {
        return;
    }
    own_the_address();
    let server = Server::start_on("0.0.0.0:80");
    let stalled = || Reply::ok("x").cut(0, End::Stall);
    for (reply, part) in [
        (stalled(), "timeout"),
        (Reply { pause: Some(Duration::from_secs(1)), ..Reply::ok(CONFIG) }, "timeout"),
        (Reply::status(401), "status 401"),
        (Reply::status(403), "status 403"),
        (Reply::status(410), "status 410"),
        (Reply::status(429), "status 429"),
        (Reply::status(500), "status 500"),
        (Reply { length: Some(Some(1000)), ..Reply::ok(CONFIG) }, "not complete"),
        (chunked(&[CONFIG]).cut(4, End::Close), "not complete"),
        (Reply::status(302).header("Location: http://127.0.0.1/x"), "status 302"),
        (Reply::ok(CONFIG).cut(3, End::Close), "not complete"),
        (
            Reply {
                length: Some(None),
                ..Reply::ok(vec![b'{'; 1 << 20]).cut(1 << 20, End::Repeat)
            },
            "",
        ),
        (Reply::ok("#etchaos\n{\"proxy\":"), "EOF"),
        (Reply::ok(r#"{"reboot": "soon"}"#), "\"reboot\""),
    ] {
        let world = host(HETZNER);
        world.publish(2);
        server.put(HETZNER_DATA, reply);
        let since = Instant::now();
        let shown = shown(&world);
        let list = if part.is_empty() { "ignored" } else { "broken" };
        let reason = shown[list][0]["reason"].as_str().unwrap_or_else(|| panic!("{shown}"));
        assert!(reason.contains(part), "{part}: {reason}");
        assert!(since.elapsed() < Duration::from_secs(8), "{part}: {:?}", since.elapsed());
        world.run(&["config", "--require", "cdn"]).ended(0);
        world.run(&["health", "--wait"]).ended(0);
        let code = if part.is_empty() { 0 } else { 4 };
        world.run(&["update", "--no-reboot"]).ended(code);
        assert_eq!(world.boots(), (A, Some((B, 3))), "{part}");
        // A failure is not kept.
        server.put(HETZNER_DATA, Reply::ok(CONFIG));
        if part.contains("status") || part == "timeout" || part == "not complete" {
            world.run(&["config"]).ended(0);
        }
    }
    // The answer to a request for a token takes more hops than the machine allows. Without a token, nothing
    // is asked.
    server.put(AWS_TOKEN, stalled());
    server.put(AWS_DATA, Reply::status(401));
    let (since, before) = (Instant::now(), server.requests().len());
    world_is_broken(&host(AWS), "timeout");
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert_eq!(server.requests()[before..], [format!("PUT {AWS_TOKEN}")]);
    // GCP's header field proves that the answer is from the service.
    server.put(GCP_DATA, Reply::ok(CONFIG));
    world_is_broken(&host(GCP), "no header field Metadata-Flavor");
    server.put(AWS_TOKEN, Reply::ok("line\nbreak"));
    world_is_broken(&host(AWS), "session token is not text");
    server.put(AWS_TOKEN, Reply::status(400));
    world_is_broken(&host(AWS), "session token is refused with status 400");
    // The listener is tried again, because the answer may come later.
    assert_eq!(host(AWS).run(&["config", "--require", "listen"]).code, 255);
    // A command without network does not ask.
    let world = host(AWS);
    world.write("host/proc/uptime", "100000.00 1.00");
    world.on_trial(A, B, 2);
    world.boot(B);
    let before = server.requests().len();
    world.run(&["fallback", "--at-deadline"]).ended(0);
    assert_eq!(server.requests().len(), before);
}

/// Returns a response in chunks (RFC 9112 section 7.1).
fn chunked(chunks: &[&str]) -> Reply {
    let body: String =
        chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
    let reply = Reply::ok(format!("{body}0\r\n\r\n")).header("Transfer-Encoding: chunked");
    Reply { length: Some(None), ..reply }
}

fn world_is_broken(world: &World, part: &str) {
    let shown = shown(world);
    let reason = shown["broken"][0]["reason"].as_str().unwrap_or_else(|| panic!("{shown}"));
    assert!(reason.contains(part), "{reason}");
}

#[test]
fn a_host_waits_for_its_network_while_it_boots() {
    if is_done("a_host_waits_for_its_network_while_it_boots") {
        return;
    }
    let server = Server::start_on("0.0.0.0:80");
    server.put(OPENSTACK_DATA, Reply::ok(CONFIG));
    // Without a platform there is nothing to wait for.
    let since = Instant::now();
    let world = host(&[]);
    world.write("host/proc/uptime", "5.00 1.00");
    world.run(&["config"]).ended(0);
    // After the boot, one attempt is enough.
    let world = host(OPENSTACK);
    world.write("host/proc/uptime", "1000.00 1.00");
    world_is_broken(&world, "169.254.169.254");
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    // `health --wait` waits for checks that may be in user data, but not without end.
    let world = host(HETZNER);
    world.write("host/proc/uptime", "100.00 1.00");
    server
        .put(HETZNER_DATA, Reply::ok(r#"{"health": {"checks": ["exit 7"], "deadline": "1min"}}"#));
    let uptime = world.path("host/proc/uptime");
    let boot = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(7));
        fs::write(uptime, "1000.00 1.00").unwrap();
    });
    let since = Instant::now();
    let ran = world.run(&["health", "--wait"]).ended(0);
    assert!(ran.stderr.matches("169.254.169.254").count() > 1, "{}", ran.stderr);
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
    boot.join().unwrap();
    // While the host boots, the address appears after two seconds.
    let world = host(OPENSTACK);
    world.write("host/proc/uptime", "5.00 1.00");
    let network = std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(2));
        own_the_address();
    });
    let shown = world.run(&["config", "--json"]).ended(0).json();
    assert_eq!(shown["rateLimit"]["source"], "OpenStack user data");
    network.join().unwrap();
    let world = host(HETZNER);
    world.write("host/proc/uptime", "100.00 1.00");
    let ran = world.run(&["health", "--wait"]).ended(1);
    assert!(ran.stderr.contains("check 1"), "{}", ran.stderr);
}
