//! Updates by a delta that are killed, and that have little space.

use std::process::{Command, Stdio};
use std::time::Duration;

use protocol::Role;
use protocol::esp::Slot::{A, B};

use super::{entry, release_with, requested, set_memory, world};
use crate::disk::wrap;
use crate::network::bytes;
use crate::server::{End, Reply};
use crate::world::{World, content, sha256};

/// Returns a host whose download of a large initrd was cut off, and the content of the initrd. The CDN had no delta,
/// and the initrd that it sent had this byte added to each of its bytes.
fn interrupted(wrong: u8) -> (World, Vec<u8>) {
    let world = World::new();
    set_memory(&world, 512);
    let mut new = content(Role::Initrd, 1);
    new.resize(20 << 20, 7);
    let delta = super::delta(&content(Role::Initrd, 1), &new);
    world.publish(2);
    let sent: Vec<u8> = new.iter().map(|byte| byte.wrapping_add(wrong)).collect();
    // An update flushes and keeps each 16 MiB.
    world.cdn.put("/2.initrd", Reply::ok(sent).cut(18 << 20, End::Close));
    world.cdn.put("/2.initrd.delta", Reply::status(404));
    let mut next = release_with(entry(&delta));
    (next.artifacts[1].size, next.artifacts[1].sha256) = (new.len() as u64, sha256(&new));
    world.publish_manifest(&next);
    world.run(&["update"]).failed(&["ended after"]);
    world.cdn.put("/2.initrd.delta", Reply::ok(delta));
    world.cdn.remove("/2.initrd");
    (world, new)
}

#[test]
fn resumes_a_download_by_the_delta() {
    // What was downloaded is right, and then wrong.
    for wrong in [0, 1] {
        let (world, new) = interrupted(wrong);
        // The CDN need not have the whole file any more, but `update` checks that it has.
        world.cdn.answer("/2.initrd", {
            let length = new.len();
            move |request| match &*request.method {
                "HEAD" => Reply::ok(vec![0; length]),
                _ => Reply::status(500),
            }
        });
        let ran = world.run(&["update"]).ended(0);
        assert!(std::fs::read(world.esp("etchaos/b/initrd")).unwrap() == new);
        assert_eq!(ran.stderr.contains("writing it again"), wrong != 0, "{}", ran.stderr);
        let status = world.run(&["status", "--json"]).ended(0).json();
        assert_eq!(status["failedDeltas"], serde_json::json!([]));
        assert_eq!(status["slots"]["b"]["files"][1]["from"], "delta");
    }
}

/// Kills updates at many moments. Each leaves a host that boots, and the last one completes the update.
#[test]
fn an_update_that_was_killed_is_completed_by_the_next_one() {
    let (world, _) = world();
    for milliseconds in (0..60).map(|n| n * 2) {
        let mut command = world.command(&["update"]);
        let mut updater = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        updater.kill().unwrap();
        updater.wait().unwrap();
        world.assert_slot(A, 1);
        let (good, trial) = world.boots();
        assert_eq!(good, A);
        if trial.is_some() {
            world.assert_slot(B, 2);
            std::fs::remove_dir_all(world.esp("etchaos/b")).unwrap();
            world.set_state(protocol::grubenv::BootState::with_good(A));
        }
    }
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 2);
    assert_eq!(world.boots(), (A, Some((B, 3))));
}

/// Runs its arguments with a small file system at the first one, which has the content of the second one. Prints a
/// digest of the new initrd.
const SMALL: &str = r#"
mount -t tmpfs -o size="$3" tmpfs "$1" || exit 99
cp -a "$2/." "$1" && esp=$1 && shift 3 && "$@" && sha256sum "$esp/etchaos/b/initrd"
"#;

#[test]
fn needs_no_space_for_the_delta() {
    let world = World::new();
    set_memory(&world, 512);
    let mut new = bytes(2 << 20);
    new.resize(3 << 20, 0);
    let delta = super::delta(&content(Role::Initrd, 1), &new);
    assert!((2 << 20..new.len()).contains(&delta.len()), "{}", delta.len());
    world.publish(2);
    world.cdn.put("/2.initrd", Reply::ok(vec![0; new.len()]));
    world.cdn.put("/2.initrd.delta", Reply::ok(delta.clone()));
    let mut next = release_with(entry(&delta));
    (next.artifacts[1].size, next.artifacts[1].sha256) = (new.len() as u64, sha256(&new));
    world.publish_manifest(&next);

    // Both releases fit, and a megabyte more.
    let sizes = [content(Role::Kernel, 1).len(), content(Role::Initrd, 1).len(), new.len()];
    let size = sizes[0] * 2 + sizes[1] + sizes[2] + (1 << 20);
    let saved = world.path("saved");
    std::fs::rename(world.path("esp"), &saved).unwrap();
    std::fs::create_dir(world.path("esp")).unwrap();
    let command = world.command(&["update"]);
    let mut limited = Command::new("unshare");
    limited.args(["--map-root-user", "--mount", "sh", "-c", SMALL, "sh"]).arg(world.esp(""));
    limited.arg(saved).arg(size.to_string());
    let output = wrap(limited, &command).output().unwrap();
    if output.status.code() == Some(99) {
        assert!(std::env::var("CI").is_err(), "this test needs unshare and tmpfs");
        eprintln!("SKIPPED: cannot mount a file system");
        return;
    }
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && stdout.contains(&sha256(&new)), "{stdout}{stderr}");
    assert!(!requested(&world, "/2.initrd"));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
