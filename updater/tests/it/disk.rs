//! What a disk holds besides, and what is kept of a download that did not come to its end.

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::esp::Slot::{A, B};
use protocol::{Release, Role};

use crate::server::{End, Reply};
use crate::world::{World, content, release, sha256};

const MIB: usize = 1 << 20;
/// As the updater flushes.
const FLUSH: usize = 16 * MIB;

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |data| data.len())
}

/// The n-th release with an initrd that is flushed twice on the way. Its first `cut` bytes come, and
/// then nothing, until `heal`.
struct Large {
    initrd: Vec<u8>,
}

impl Large {
    const SIZE: usize = 2 * FLUSH + 5 * MIB;

    fn publish(world: &World, n: u64) -> Self {
        let initrd: Vec<u8> =
            content(Role::Initrd, n).into_iter().cycle().take(Self::SIZE).collect();
        let mut release = release(n);
        let [_, artifact] = &mut release.artifacts[..] else { panic!() };
        (artifact.size, artifact.sha256) = (Self::SIZE as u64, sha256(&initrd));
        world.publish(n);
        world.publish_manifest(&release);
        let large = Self { initrd };
        large.heal(world, n);
        large
    }

    fn stall(&self, world: &World, n: u64, after: usize) {
        let body = self.initrd.clone();
        let answer = move |request: &crate::server::Request| {
            Reply::file(request, &body, "\"x\"").cut(after, End::Stall)
        };
        world.cdn.answer(&format!("/{n}.initrd"), answer);
    }

    fn heal(&self, world: &World, n: u64) {
        let body = self.initrd.clone();
        let answer = move |request: &crate::server::Request| Reply::file(request, &body, "\"x\"");
        world.cdn.answer(&format!("/{n}.initrd"), answer);
    }

    fn assert_in(&self, world: &World, slot: &str) {
        let found = fs::read(world.esp(&format!("etchaos/{slot}/initrd"))).unwrap();
        assert!(found == self.initrd);
    }
}

/// Where the last request for this path began.
fn last_range(world: &World, path: &str) -> Option<usize> {
    let asked = world.cdn.asked();
    asked.iter().rfind(|r| r.method == "GET" && r.path == path).unwrap().from()
}

fn count(world: &World, request: &str) -> usize {
    world.cdn.requests().iter().filter(|asked| *asked == request).count()
}

fn start(world: &World) -> Child {
    // Whoever runs the tests by nohup.
    let mut default = Command::new("env");
    default.arg("--default-signal=HUP");
    let mut command = through(default, &world.command(&["update"]));
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

fn ended(mut child: Child) -> (Option<i32>, String) {
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().signal(), said)
}

#[test]
fn a_download_that_is_ended_is_kept_and_gone_on_with() {
    // Asked for the end, killed; and then as if the power had been cut, which may leave less.
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        let world = World::new();
        let large = Large::publish(&world, 2);
        large.stall(&world, 2, FLUSH + 3 * MIB);
        let child = start(&world);
        let initrd = world.esp("etchaos/b/initrd");
        until("the download does not begin", || size(&initrd) == (FLUSH + 3 * MIB) as u64);
        let asked = Instant::now();
        send(&child, signal);
        let (by, said) = ended(child);
        assert_eq!(by, Some(signal as i32), "{said}");
        assert!(asked.elapsed() < Duration::from_secs(30), "{said}");
        assert!(world.esp("etchaos/b/partial.jwt").exists());
        assert_eq!(world.boots(), (A, None));
        let status = world.run(&["status", "--json"]).ended(0).json();
        assert_eq!(status["slots"]["b"]["state"], "partial", "{status}");

        large.heal(&world, 2);
        world.run(&["update"]).ended(0);
        large.assert_in(&world, "b");
        assert_eq!(last_range(&world, "/2.initrd"), Some(FLUSH));
        assert_eq!(count(&world, "GET /2.vmlinuz"), 1);
        assert!(!world.esp("etchaos/b/partial.jwt").exists());
        assert_eq!(world.boots(), (A, Some((B, 3))));
    }
}

/// Release 2, whose initrd comes slowly enough to be ended on the way.
fn publish_slowly(world: &World) {
    world.publish(2);
    let pause = Some(Duration::from_millis(5));
    world.cdn.put("/2.initrd", Reply { pause, ..Reply::ok(content(Role::Initrd, 2)) });
}

#[test]
fn the_end_comes_in_order_between_two_bytes() {
    // The last one is sent to who runs it by hand, when the connection to the host is lost.
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let world = World::new();
        publish_slowly(&world);
        let child = start(&world);
        let initrd = world.esp("etchaos/b/initrd");
        until("the download does not begin", || size(&initrd) > 0);
        send(&child, signal);
        let (by, said) = ended(child);
        assert_eq!(by, Some(signal as i32), "{said}");
        for part in ["interrupted:", "the next update resumes the download"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}

#[test]
fn who_is_started_by_nohup_goes_on() {
    let world = World::new();
    publish_slowly(&world);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]);
    let mut command = through(command, &world.command(&["update"]));
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let initrd = world.esp("etchaos/b/initrd");
    until("the download does not begin", || size(&initrd) > 0);
    send(&child, Signal::SIGHUP);
    std::thread::sleep(Duration::from_millis(300));
    // By the first one that it was not told to overlook.
    send(&child, Signal::SIGTERM);
    let (by, said) = ended(child);
    assert_eq!(by, Some(Signal::SIGTERM as i32), "{said}");
    assert!(said.contains("interrupted:"), "{said}");
}

/// A host whose download of release 2 was killed, just after it was flushed.
fn killed() -> (World, Large, PathBuf) {
    let world = World::new();
    let large = Large::publish(&world, 2);
    large.stall(&world, 2, FLUSH + 1);
    let child = start(&world);
    let initrd = world.esp("etchaos/b/initrd");
    until("the download does not begin", || size(&initrd) == (FLUSH + 1) as u64);
    send(&child, Signal::SIGKILL);
    ended(child);
    (world, large, initrd)
}

#[test]
fn what_is_left_of_another_release_goes() {
    let (world, ..) = killed();
    world.publish(3);
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 3);
    assert!(!world.esp("etchaos/b/partial.jwt").exists());
}

#[test]
fn what_is_left_and_damaged_is_begun_again() {
    for damage in ["content", "longer", "whole", "manifest"] {
        let (world, large, initrd) = killed();
        let mut bytes = fs::read(&initrd).unwrap();
        match damage {
            "content" => bytes[1000] ^= 1,
            "longer" => bytes.resize(Large::SIZE + 1, 0),
            "whole" => bytes.resize(Large::SIZE, 0),
            _ => fs::write(world.esp("etchaos/b/partial.jwt"), "x").unwrap(),
        }
        fs::write(&initrd, bytes).unwrap();
        large.heal(&world, 2);
        world.run(&["update"]).ended(0);
        large.assert_in(&world, "b");
        let kernels = if damage == "manifest" { 2 } else { 1 };
        assert_eq!(count(&world, "GET /2.vmlinuz"), kernels, "{damage}");
    }
}

#[test]
fn a_beginning_in_the_spare_slot_is_removed_by_a_repair_when_the_release_is_withdrawn() {
    let world = World::new();
    world.publish(2);
    world.cdn.put("/2.initrd", Reply::ok(vec![b'x'; content(Role::Initrd, 2).len()]));
    world.run(&["update"]).failed(&["SHA-256"]);
    assert!(world.esp("etchaos/b/partial.jwt").exists());
    // What runs, published anew.
    world.publish_manifest(&Release { build: 3, ..release(1) });
    assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "repair");
    world.assert_slot(B, 1);
    assert!(!world.esp("etchaos/b/partial.jwt").exists());
    assert_eq!(world.boots(), (A, None));
}

#[test]
fn a_directory_named_grubenv_goes() {
    let world = World::new();
    fs::remove_file(world.esp("etchaos/grubenv")).unwrap();
    world.write("esp/etchaos/grubenv/deep/x", "");
    let status = world.run(&["status", "--json"]).ended(0).json();
    assert!(status["grubenvProblem"].as_str().unwrap().contains("not a file"), "{status}");
    world.publish(2);
    world.run(&["update"]).ended(0);
    assert_eq!(world.boots(), (A, Some((B, 3))));
}

/// A command without the right to overlook permissions, as in a tight unit.
fn without_override(command: Command) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return command;
    }
    let mut limited = Command::new("setpriv");
    limited.args(["--bounding-set", "-dac_override,-dac_read_search", "--inh-caps=-all"]);
    through(limited, &command)
}

/// A command that is run by another one.
fn through(mut by: Command, command: &Command) -> Command {
    by.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => by.env(name, value),
            None => by.env_remove(name),
        };
    }
    by
}

#[test]
fn read_only_files_are_written() {
    let world = World::new();
    world.fill(B, 1, 0);
    for name in ["grubenv", "b/vmlinuz", "b/initrd", "b/release.jwt"] {
        let path = world.esp(&format!("etchaos/{name}"));
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&path, permissions).unwrap();
    }
    world.publish(2);
    let output = without_override(world.command(&["update"])).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    world.assert_slot(B, 2);
    assert_eq!(world.boots(), (A, Some((B, 3))));
}

#[test]
fn a_read_only_file_system_is_told_with_the_way_out() {
    let world = World::new();
    world.publish(2);
    let script = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" || exit 99; "$@""#;
    let mut updater = Command::new("unshare");
    updater.args(["--map-root-user", "--mount", "sh", "-c", script]).arg(world.esp(""));
    let command = world.command(&["update"]);
    updater.arg(command.get_program()).args(command.get_args());
    let output = updater.output();
    let Some(output) =
        output.ok().filter(|output| !matches!(output.status.code(), Some(99) | None))
    else {
        assert!(std::env::var("CI").is_err(), "unshare and bind mounts are needed for this test");
        eprintln!("SKIPPED: nothing can be mounted here");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("fsck.vfat -a") && said.contains("write-protected"), "{said}");
    assert!(said.contains("etchaos/"), "{said}");
}
