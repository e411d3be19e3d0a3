//! Files with the right size and the wrong content, which are not downloaded again by each run.

use protocol::Role;
use protocol::esp::Slot::{A, B};
use protocol::token::sign;
use serde_json::{Value, json};

use crate::server::{Reply, Server};
use crate::world::{World, claims, content, now, release, target};

const RECORD: &str = "host/run/etchaos-updater/wrong-files.json";

/// Returns the initrd of release 2 with a wrong byte.
fn wrong() -> Vec<u8> {
    let mut bytes = content(Role::Initrd, 2);
    bytes[1000] ^= 1;
    bytes
}

/// Returns a host whose CDN has a wrong initrd.
fn world() -> World {
    let world = World::new();
    world.publish(2);
    world.cdn.put("/2.initrd", Reply::ok(wrong()));
    world
}

fn downloads(server: &Server) -> usize {
    server.requests().iter().filter(|request| *request == "GET /2.initrd").count()
}

fn record(world: &World) -> Value {
    serde_json::from_slice(&std::fs::read(world.path(RECORD)).unwrap()).unwrap()
}

/// Lets some seconds pass, for the record.
fn wait(world: &World, seconds: u64) {
    let mut record = record(world);
    let time = record["files"][0]["time"].as_u64().unwrap();
    record["files"][0]["time"] = json!(time - seconds);
    world.write(RECORD, record.to_string());
}

#[test]
fn is_downloaded_again_after_a_growing_delay() {
    let world = world();
    world.run(&["update"]).failed(&["SHA-256", "damaged or replaced"]);
    for _ in 0..3 {
        world.run(&["update"]).failed(&[
            "not downloaded again before",
            "--retry-failed",
            "did not match the manifest once",
        ]);
    }
    assert_eq!(downloads(&world.cdn), 1);
    for (n, hours) in [(2, 12), (3, 24), (4, 48)] {
        wait(&world, hours * 3600 - 60);
        world.run(&["update"]).failed(&["not downloaded again before"]);
        wait(&world, 61);
        world.run(&["update"]).failed(&["SHA-256"]);
        assert_eq!(downloads(&world.cdn), n);
    }
    assert_eq!(world.boots(), (A, None));
    // The operator, or a reboot, which clears /run, tries at once.
    world.run(&["update", "--retry-failed"]).failed(&["has the SHA-256"]);
    std::fs::remove_dir_all(world.path("host/run")).unwrap();
    std::fs::create_dir(world.path("host/run")).unwrap();
    world.run(&["update"]).failed(&["has the SHA-256"]);
    assert_eq!(downloads(&world.cdn), 6);
    // So does a damaged record.
    world.write(RECORD, "{");
    world.run(&["update"]).failed(&["has the SHA-256"]);
}

#[test]
fn is_shown_by_status() {
    let world = world();
    let status = || world.run(&["status", "--json"]).ended(0).json();
    assert_eq!(status()["wrongFiles"], json!([]));
    world.run(&["update"]).failed(&["SHA-256"]);
    let shown = &status()["wrongFiles"][0];
    assert_eq!((&shown["role"], &shown["failures"]), (&json!("initrd"), &json!(1)));
    assert_eq!(shown["url"], format!("{}/2.initrd", world.cdn.url));
    let time = shown["time"].as_u64().unwrap();
    assert!(time <= now() && shown["next"] == time + 12 * 3600, "{shown}");
    let table = world.run(&["status"]).ended(0).stdout;
    assert!(table.contains("wrong file  initrd at http://127.0.0.1:"), "{table}");
    wait(&world, 12 * 3600);
    assert_eq!(status()["wrongFiles"], json!([]));
}

#[test]
fn is_downloaded_at_once_if_the_manifest_or_the_file_changes() {
    let world = world();
    world.run(&["update"]).failed(&["has the SHA-256"]);
    let renewed = protocol::Claims { iat: Some(now() - 9), ..claims(&release(2)) };
    world.publish_token(sign(&world.key, &renewed).unwrap());
    world.run(&["update"]).failed(&["has the SHA-256"]);
    assert_eq!(downloads(&world.cdn), 2);
    // The server has another wrong file.
    world.cdn.put("/2.initrd", Reply::ok(wrong()).header("ETag: \"1\""));
    world.run(&["update"]).failed(&["has the SHA-256"]);
    world.run(&["update"]).failed(&["not downloaded again"]);
    assert_eq!(downloads(&world.cdn), 3);
    world.cdn.put("/2.initrd", Reply::ok(content(Role::Initrd, 2)).header("ETag: \"2\""));
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 2);
    assert!(!world.path(RECORD).exists());
}

#[test]
fn does_not_keep_another_mirror_from_being_used() {
    let world = world();
    let mirror = Server::start();
    mirror.put("/2.initrd", Reply::status(404));
    let config = json!({"cdn": [world.cdn.url, mirror.url]});
    world.write("esp/etchaos/config.json", config.to_string());
    world.run(&["update"]).failed(&["all 2 mirrors", "SHA-256", "404"]);
    assert_eq!(downloads(&world.cdn), 1);
    mirror.put("/2.initrd", Reply::ok(content(Role::Initrd, 2)));
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 2);
    assert_eq!((downloads(&world.cdn), downloads(&mirror)), (1, 2));
}

#[test]
fn includes_a_file_that_is_too_long_without_saying_so() {
    let world = world();
    let mut long = content(Role::Initrd, 2);
    long.extend(b"more");
    world.cdn.put("/2.initrd", Reply { length: Some(None), ..Reply::ok(long) });
    world.run(&["update"]).failed(&["sends more than"]);
    world.run(&["update"]).failed(&["not downloaded again"]);
    assert_eq!(downloads(&world.cdn), 1);
    assert_eq!(record(&world)["files"][0]["url"], format!("{}/2.initrd", world.cdn.url));
}

/// The servers behind one address may send different ETags for the same file.
#[test]
fn is_not_downloaded_again_because_another_server_sends_its_etag() {
    let world = world();
    world.cdn.answer("/2.initrd", |request| {
        Reply::ok(wrong()).header(format!("ETag: \"{}\"", request.nth % 3))
    });
    for _ in 0..8 {
        world.run(&["update"]).failed(&["2.initrd"]);
    }
    assert!(downloads(&world.cdn) <= 3, "{}", downloads(&world.cdn));
}

#[test]
fn includes_a_file_that_is_too_short_without_saying_so() {
    let world = world();
    let short = &wrong()[..content(Role::Initrd, 2).len() - 1];
    let mut chunked = format!("{:x}\r\n", short.len()).into_bytes();
    chunked.extend([short, b"\r\n0\r\n\r\n"].concat());
    let reply = Reply { length: Some(None), ..Reply::ok(chunked) };
    world.cdn.put("/2.initrd", reply.header("Transfer-Encoding: chunked"));
    world.run(&["update"]).failed(&["sends only", "published completely"]);
    world.run(&["update"]).failed(&["not downloaded again"]);
    assert_eq!(downloads(&world.cdn), 1);
    world.cdn.put("/2.initrd", Reply::ok(content(Role::Initrd, 2)).header("ETag: \"2\""));
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 2);
}

#[test]
fn does_not_stop_a_host_whose_records_cannot_be_written() {
    let world = world();
    // A file in the place of the directory of the records.
    world.write("host/run/etchaos-updater", "");
    for n in 1..=2 {
        world.run(&["update"]).failed(&["has the SHA-256"]);
        assert_eq!(downloads(&world.cdn), n);
    }
    world.cdn.put("/2.initrd", Reply::ok(content(Role::Initrd, 2)));
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 2);
}

#[test]
fn is_downloaded_again_after_the_clock_was_set_back() {
    let world = world();
    world.run(&["update"]).failed(&["has the SHA-256"]);
    let mut future = record(&world);
    future["files"][0]["time"] = json!(now() + 30 * 86_400);
    world.write(RECORD, future.to_string());
    assert_eq!(world.run(&["status", "--json"]).ended(0).json()["wrongFiles"], json!([]));
    world.run(&["update"]).failed(&["has the SHA-256"]);
    assert_eq!(downloads(&world.cdn), 2);
    // The time of the record is the present again.
    world.run(&["update"]).failed(&["not downloaded again"]);
}

#[test]
fn two_mirrors_with_wrong_files_are_both_left_alone() {
    let world = world();
    let mirror = Server::start();
    mirror.put("/2.initrd", Reply::ok(wrong()));
    let config = json!({"cdn": [world.cdn.url, mirror.url]});
    world.write("esp/etchaos/config.json", config.to_string());
    world.run(&["update"]).failed(&["all 2 mirrors", "SHA-256"]);
    world.run(&["update"]).failed(&["not downloaded again"]);
    assert_eq!((downloads(&world.cdn), downloads(&mirror)), (1, 1));
    assert_eq!(record(&world)["files"].as_array().unwrap().len(), 2);
    mirror.put("/2.initrd", Reply::ok(content(Role::Initrd, 2)).header("ETag: \"2\""));
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 2);
    assert_eq!((downloads(&world.cdn), downloads(&mirror)), (1, 2));
}

/// A directory costs no download, so a corrected file is used at once.
#[test]
fn does_not_concern_directories() {
    let world = World::new();
    let manifest = target().manifest_name();
    world.write(&format!("mirror/{manifest}"), sign(&world.key, &claims(&release(2))).unwrap());
    world.write("mirror/2.vmlinuz", content(Role::Kernel, 2));
    world.write("mirror/2.initrd", wrong());
    world.write("esp/etchaos/config.json", json!({"cdn": world.path("mirror")}).to_string());
    world.run(&["update"]).failed(&["has the SHA-256"]);
    world.write("mirror/2.initrd", content(Role::Initrd, 2));
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 2);
}
