//! Interrupted downloads that the next update resumes, and unexpected files and permissions on the ESP.

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
/// The updater flushes a file whenever this many bytes have been written.
const FLUSH: usize = 16 * MIB;

/// Waits until `done` returns true. Panics with `problem` after a minute.
fn wait_until(problem: &str, mut done: impl FnMut() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < Duration::from_secs(60), "{problem}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the size of a file, or 0 if it does not exist.
fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |data| data.len())
}

/// A release with an initrd so large that the updater flushes it twice during the download.
struct LargeRelease {
    initrd: Vec<u8>,
}

impl LargeRelease {
    const SIZE: usize = 2 * FLUSH + 5 * MIB;

    /// Makes the CDN offer the n-th release with a large initrd.
    fn publish(world: &World, n: u64) -> Self {
        let initrd: Vec<u8> =
            content(Role::Initrd, n).into_iter().cycle().take(Self::SIZE).collect();
        let mut release = release(n);
        let [_, artifact] = &mut release.artifacts[..] else { panic!() };
        (artifact.size, artifact.sha256) = (Self::SIZE as u64, sha256(&initrd));
        world.publish(n);
        world.publish_manifest(&release);
        let large = Self { initrd };
        large.serve(world, n);
        large
    }

    /// Makes the CDN send the first `after` bytes of the initrd, and then nothing.
    fn stall(&self, world: &World, n: u64, after: usize) {
        let body = self.initrd.clone();
        let handler = move |request: &crate::server::Request| {
            Reply::file(request, &body, "\"x\"").cut(after, End::Stall)
        };
        world.cdn.answer(&format!("/{n}.initrd"), handler);
    }

    /// Makes the CDN send the whole initrd.
    fn serve(&self, world: &World, n: u64) {
        let body = self.initrd.clone();
        let handler = move |request: &crate::server::Request| Reply::file(request, &body, "\"x\"");
        world.cdn.answer(&format!("/{n}.initrd"), handler);
    }

    fn assert_is_in(&self, world: &World, slot: &str) {
        let found = fs::read(world.esp(&format!("etchaos/{slot}/initrd"))).unwrap();
        assert!(found == self.initrd, "slot {slot} holds another initrd");
    }
}

/// Returns the first byte of the range in the last request for this path.
fn last_range(world: &World, path: &str) -> Option<usize> {
    let requests = world.cdn.received();
    requests.iter().rfind(|r| r.method == "GET" && r.path == path).unwrap().from()
}

/// Returns how often the CDN received this request.
fn count(world: &World, request: &str) -> usize {
    world.cdn.requests().iter().filter(|received| *received == request).count()
}

/// Starts an update.
fn start(world: &World) -> Child {
    // SIGHUP is ignored if the tests themselves run under nohup.
    let mut env = Command::new("env");
    env.arg("--default-signal=HUP");
    let mut command = wrap(env, &world.command(&["update"]));
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

/// Waits for the end of a process. Returns the signal that ended it and its stderr.
fn ended(mut child: Child) -> (Option<i32>, String) {
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    (child.wait().unwrap().signal(), stderr)
}

#[test]
fn resumes_an_interrupted_download() {
    // Only flushed data is resumed, as after a power cut.
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        let world = World::new();
        let large = LargeRelease::publish(&world, 2);
        large.stall(&world, 2, FLUSH + 3 * MIB);
        let child = start(&world);
        let initrd = world.esp("etchaos/b/initrd");
        wait_until("the download does not begin", || size(&initrd) == (FLUSH + 3 * MIB) as u64);
        let sent_at = Instant::now();
        send(&child, signal);
        let (signal_of_end, stderr) = ended(child);
        assert_eq!(signal_of_end, Some(signal as i32), "{stderr}");
        assert!(sent_at.elapsed() < Duration::from_secs(30), "{stderr}");
        assert!(world.esp("etchaos/b/partial.jwt").exists());
        assert_eq!(world.boots(), (A, None));
        let status = world.run(&["status", "--json"]).ended(0).json();
        assert_eq!(status["slots"]["b"]["state"], "partial", "{status}");

        large.serve(&world, 2);
        world.run(&["update"]).ended(0);
        large.assert_is_in(&world, "b");
        assert_eq!(last_range(&world, "/2.initrd"), Some(FLUSH));
        assert_eq!(count(&world, "GET /2.vmlinuz"), 1);
        assert!(!world.esp("etchaos/b/partial.jwt").exists());
        assert_eq!(world.boots(), (A, Some((B, 3))));
    }
}

/// Publishes release 2. The CDN sends its initrd so slowly that a signal interrupts the download.
fn publish_slowly(world: &World) {
    world.publish(2);
    let pause = Some(Duration::from_millis(5));
    world.cdn.put("/2.initrd", Reply { pause, ..Reply::ok(content(Role::Initrd, 2)) });
}

#[test]
fn signals_end_a_download_with_a_message() {
    // SIGHUP arrives when the operator's terminal session is lost.
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let world = World::new();
        publish_slowly(&world);
        let child = start(&world);
        let initrd = world.esp("etchaos/b/initrd");
        wait_until("the download does not begin", || size(&initrd) > 0);
        send(&child, signal);
        let (signal_of_end, stderr) = ended(child);
        assert_eq!(signal_of_end, Some(signal as i32), "{stderr}");
        for part in ["interrupted:", "the next update continues"] {
            assert!(stderr.contains(part), "{part}: {stderr}");
        }
    }
}

#[test]
fn ignores_sighup_under_nohup() {
    let world = World::new();
    publish_slowly(&world);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]);
    let mut command = wrap(command, &world.command(&["update"]));
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let initrd = world.esp("etchaos/b/initrd");
    wait_until("the download does not begin", || size(&initrd) > 0);
    send(&child, Signal::SIGHUP);
    std::thread::sleep(Duration::from_millis(300));
    // SIGTERM is not ignored.
    send(&child, Signal::SIGTERM);
    let (signal_of_end, stderr) = ended(child);
    assert_eq!(signal_of_end, Some(Signal::SIGTERM as i32), "{stderr}");
    assert!(stderr.contains("interrupted:"), "{stderr}");
}

/// Returns a host on which an update to release 2 was killed just after the first flush of the initrd,
/// with that release and the path of the partial initrd.
fn world_with_partial_download() -> (World, LargeRelease, PathBuf) {
    let world = World::new();
    let large = LargeRelease::publish(&world, 2);
    large.stall(&world, 2, FLUSH + 1);
    let child = start(&world);
    let initrd = world.esp("etchaos/b/initrd");
    wait_until("the download does not begin", || size(&initrd) == (FLUSH + 1) as u64);
    send(&child, Signal::SIGKILL);
    ended(child);
    (world, large, initrd)
}

#[test]
fn removes_partial_download_of_another_release() {
    let (world, ..) = world_with_partial_download();
    world.publish(3);
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 3);
    assert!(!world.esp("etchaos/b/partial.jwt").exists());
}

#[test]
fn restarts_a_damaged_partial_download() {
    for damage in ["content", "too long", "full length", "manifest"] {
        let (world, large, initrd) = world_with_partial_download();
        let mut bytes = fs::read(&initrd).unwrap();
        match damage {
            "content" => bytes[1000] ^= 1,
            "too long" => bytes.resize(LargeRelease::SIZE + 1, 0),
            "full length" => bytes.resize(LargeRelease::SIZE, 0),
            _ => fs::write(world.esp("etchaos/b/partial.jwt"), "x").unwrap(),
        }
        fs::write(&initrd, bytes).unwrap();
        large.serve(&world, 2);
        world.run(&["update"]).ended(0);
        large.assert_is_in(&world, "b");
        let kernels = if damage == "manifest" { 2 } else { 1 };
        assert_eq!(count(&world, "GET /2.vmlinuz"), kernels, "{damage}");
    }
}

#[test]
fn repair_removes_partial_download_of_a_withdrawn_release() {
    let world = World::new();
    world.publish(2);
    world.cdn.put("/2.initrd", Reply::ok(vec![b'x'; content(Role::Initrd, 2).len()]));
    world.run(&["update"]).failed(&["SHA-256"]);
    assert!(world.esp("etchaos/b/partial.jwt").exists());
    // The running release is published again.
    world.publish_manifest(&Release { build: 3, ..release(1) });
    assert_eq!(world.run(&["update", "--json"]).ended(0).json()["step"], "repair");
    world.assert_slot(B, 1);
    assert!(!world.esp("etchaos/b/partial.jwt").exists());
    assert_eq!(world.boots(), (A, None));
}

#[test]
fn replaces_a_directory_named_grubenv() {
    let world = World::new();
    fs::remove_file(world.esp("etchaos/grubenv")).unwrap();
    world.write("esp/etchaos/grubenv/deep/x", "");
    let status = world.run(&["status", "--json"]).ended(0).json();
    assert!(status["grubenvProblem"].as_str().unwrap().contains("not a file"), "{status}");
    world.publish(2);
    world.run(&["update"]).ended(0);
    assert_eq!(world.boots(), (A, Some((B, 3))));
}

/// Returns the command without the capabilities that bypass file permissions, as in a hardened unit.
fn without_override(command: Command) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return command;
    }
    let mut limited = Command::new("setpriv");
    limited.args(["--bounding-set", "-dac_override,-dac_read_search", "--inh-caps=-all"]);
    wrap(limited, &command)
}

/// Returns `wrapper` with `command` as its last arguments, and with the environment of `command`.
pub(crate) fn wrap(mut wrapper: Command, command: &Command) -> Command {
    wrapper.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapper.env(name, value),
            None => wrapper.env_remove(name),
        };
    }
    wrapper
}

#[test]
fn replaces_read_only_files() {
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
fn reports_read_only_file_system_with_hint() {
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
        assert!(std::env::var("CI").is_err(), "this test needs unshare and bind mounts");
        eprintln!("SKIPPED: cannot mount a read-only file system");
        return;
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("fsck.vfat -a") && stderr.contains("write-protected"), "{stderr}");
    assert!(stderr.contains("etchaos/"), "{stderr}");
}
