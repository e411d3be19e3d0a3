//! What `update`, `status`, the journal and the metrics say about how files were obtained.

use protocol::Role;
use protocol::esp::Slot::{A, B};
use serde_json::{Value, json};

use super::{entry, release_with, world};
use crate::server::Reply;
use crate::world::{World, content, release};

fn status(world: &World) -> Value {
    world.run(&["status", "--json"]).ended(0).json()
}

/// Returns the value of a metric.
fn metric(world: &World, sample: &str) -> Option<u64> {
    let text = std::fs::read_to_string(world.path("etchaos.prom")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    line.map(|value| value.parse().unwrap())
}

/// Configures metrics, and no reboot.
fn configure(world: &World) {
    let config = json!({"metrics": world.path("etchaos.prom"), "reboot": "never"});
    world.write("esp/etchaos/config.json", config.to_string());
}

#[test]
fn shows_how_each_file_was_obtained() {
    let (world, bytes) = world();
    configure(&world);
    // The release has the kernel of the one before.
    let mut next = release_with(entry(&bytes));
    next.artifacts[0] =
        protocol::Artifact { url: "2.vmlinuz".into(), ..release(1).artifacts[0].clone() };
    world.publish_manifest(&next);
    let size = content(Role::Initrd, 2).len() as u64;
    let delta = bytes.len() as u64;

    let ran = world.run(&["update", "--json"]).ended(0);
    let files = json!([
        {"role": "kernel", "from": "copy", "bytes": 0, "reason": null},
        {"role": "initrd", "from": "delta", "bytes": delta, "reason": null},
    ]);
    assert_eq!(ran.json()["download"], json!({"bytes": delta, "files": files}));
    let line = format!("the initrd is complete: delta, {delta} of {size} bytes fetched");
    assert!(ran.stderr.contains(&line), "{}", ran.stderr);
    assert_eq!(status(&world)["slots"]["b"]["files"], files);
    // Slot a comes from the disk image.
    assert_eq!(status(&world)["slots"]["a"]["files"], json!(null));
    let sample = r#"etchaos_slot_fetched_bytes{slot="b",role="initrd",from="delta"}"#;
    let kernel = content(Role::Kernel, 1).len() as u64;
    for (sample, value) in [
        ("etchaos_fetched_bytes_total", delta),
        (r#"etchaos_saved_bytes_total{by="copy"}"#, kernel),
        (r#"etchaos_saved_bytes_total{by="delta"}"#, size - delta),
        (sample, delta),
    ] {
        assert_eq!(metric(&world, sample), Some(value), "{sample}");
    }

    // After the reboot, the counters begin again, and the slot still says how its files were obtained.
    std::fs::remove_dir_all(world.path("host/run")).unwrap();
    std::fs::create_dir(world.path("host/run")).unwrap();
    world.on_trial(A, B, 2);
    world.boot(B);
    assert_eq!(status(&world)["slots"]["b"]["files"], files);
    let table = world.run(&["status"]).ended(0).stdout;
    for line in [
        format!("kernel: copy, 0 of {kernel} bytes fetched"),
        format!("initrd: delta, {delta} of {size} bytes fetched"),
    ] {
        assert!(table.contains(&line), "{table}");
    }
    assert_eq!(metric(&world, "etchaos_fetched_bytes_total"), Some(0));
    assert_eq!(metric(&world, sample), Some(delta));
}

#[test]
fn shows_why_the_whole_file_was_downloaded() {
    let (world, bytes) = world();
    configure(&world);
    let other = vec![0; bytes.len()];
    world.cdn.put("/2.initrd.delta", Reply::ok(other.clone()));
    world.publish_manifest(&release_with(entry(&other)));
    let [kernel, initrd] = Role::BOOT.map(|role| content(role, 2).len() as u64);
    let fetched = initrd + other.len() as u64;
    let ran = world.run(&["update"]).ended(0);
    for text in [&ran.stdout, &world.run(&["status"]).ended(0).stdout] {
        assert!(text.contains("2.initrd.delta: the delta is malformed"), "{text}");
        assert!(text.contains(&fetched.to_string()), "{text}");
    }
    let line = "the initrd was downloaded whole: 2.initrd.delta: the delta is malformed";
    assert!(ran.stdout.contains(line), "{}", ran.stdout);
    let files = &status(&world)["slots"]["b"]["files"];
    assert_eq!((&files[1]["from"], &files[1]["bytes"]), (&json!("download"), &json!(fetched)));
    assert_eq!(metric(&world, "etchaos_fetched_bytes_total"), Some(kernel + fetched));
    assert_eq!(metric(&world, r#"etchaos_saved_bytes_total{by="delta"}"#), Some(0));
}

#[test]
fn origins_of_another_release_are_not_shown() {
    let (world, _) = world();
    configure(&world);
    world.run(&["update"]).ended(0);
    assert!(status(&world)["slots"]["b"]["files"].is_array());
    // Another system replaces the release.
    world.fill(B, 3, 3);
    assert_eq!(status(&world)["slots"]["b"]["files"], json!(null));
    // A file that is damaged, or too large, is not shown either.
    let twice = json!({"role": "initrd", "from": "copy", "bytes": 0, "reason": null});
    let id = release(3).id().to_string();
    let twice = json!({"release": id, "files": [twice, twice]}).to_string();
    for text in ["{", "[]", &twice, &"x".repeat(100_000)] {
        world.write("esp/etchaos/b/origins.json", text);
        assert_eq!(status(&world)["slots"]["b"]["files"], json!(null));
    }
}
