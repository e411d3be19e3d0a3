//! Commands for several targets, with the real program: what is refused before anything starts, what runs side by
//! side, how failures are reported, and how all processes end.

mod judge;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// The time after which a test gives up.
const TIME_MAX: Duration = Duration::from_secs(60);

fn builder(directory: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_builder"));
    command.current_dir(directory).args(arguments.split_whitespace()).stdin(Stdio::null());
    for name in
        ["ETCHAOS_SIGNING_KEY", "ETCHAOS_SIGN_COMMAND", "http_proxy", "all_proxy", "HTTP_PROXY"]
    {
        command.env_remove(name);
    }
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns whether this machine can build. Otherwise, the test is skipped.
fn can_build(directory: &Path) -> bool {
    let setup = builder(directory, "setup deb deb12 --json").output().unwrap();
    let setup: Value = serde_json::from_slice(&setup.stdout).unwrap();
    let missing = &setup["missingPackages"];
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root || missing != &Value::Array(Vec::new()) {
        judge::skip(&format!("a build needs root, and the packages {missing}"));
        return false;
    }
    true
}

#[test]
fn refuses_all_targets_that_cannot_be_built_and_starts_none() {
    let directory = tempfile::tempdir().unwrap();
    for command in ["run", "build", "setup"] {
        let out = if command == "setup" { "" } else { "--out out" };
        let arguments = format!("{command} deb arc nosuch --arch amd64,arm64 {out}");
        let Output { status, stdout, stderr } =
            builder(directory.path(), &arguments).output().unwrap();
        let stderr = text(&stderr);
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert_eq!(text(&stdout), "");
        for expected in [
            "\n  arc_arm64: the variant arc is not built for arm64, only for amd64",
            "\n  nosuch_amd64: ",
            "\n  nosuch_arm64: ",
        ] {
            assert!(stderr.contains(expected), "expected {expected:?} in\n{stderr}");
        }
        for good in ["deb_amd64", "deb_arm64", "arc_amd64", "at a time"] {
            assert!(!stderr.contains(good), "{good} in\n{stderr}");
        }
        assert!(!directory.path().join("out").exists());
    }
}

#[test]
fn refuses_options_that_need_one_target() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, code, expected) in [
        ("build deb deb12 --list", 1, "work on one target"),
        ("build deb --arch amd64,arm64 --shell init", 1, "work on one target"),
        ("build", 2, "<VARIANT>"),
        ("build deb --arch amd64,mips", 2, "mips"),
        ("build deb deb12 --jobs 0", 2, "--jobs"),
        ("run deb --arch amd64,arm64 --accel kvm", 1, "KVM"),
    ] {
        let output = builder(directory.path(), arguments).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {stderr}");
        assert!(stderr.contains(expected), "{arguments}: {stderr}");
        assert!(!directory.path().join("out").exists(), "{arguments}");
    }
}

#[test]
fn setup_lists_the_needs_of_all_targets() {
    let directory = tempfile::tempdir().unwrap();
    let needs = |arguments: &str| -> Vec<String> {
        let output = builder(directory.path(), arguments).output().unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = found["requirements"].as_array().unwrap();
        found.iter().map(|need| need["needs"].as_str().unwrap().to_owned()).collect()
    };
    let (amd64, arm64) =
        (needs("setup deb --arch amd64 --json"), needs("setup deb --arch arm64 --json"));
    let both = needs("setup deb deb12 --arch amd64,arm64 --json");
    let has = |needs: &[String], name: &str| needs.iter().any(|need| need == name);
    // The testbed needs QEMU for the architecture of the target, whatever that of this machine is.
    let (x86, arm) = ("qemu-system-x86_64", "qemu-system-aarch64");
    assert!(has(&amd64, x86) && !has(&amd64, arm), "{amd64:?}");
    assert!(has(&arm64, arm) && !has(&arm64, x86), "{arm64:?}");
    assert!(amd64.iter().chain(&arm64).all(|need| has(&both, need)), "{both:?}");
}

/// Starts a server on the loopback that never answers. Returns its URL, and the connections with their requests.
fn silent_server() -> (String, Receiver<(String, TcpStream)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut request = String::new();
            BufReader::new(&stream).read_line(&mut request).unwrap();
            if sender.send((request, stream)).is_err() {
                return;
            }
        }
    });
    (url, receiver)
}

/// Returns the targets of the requests, sorted.
fn requested<'a>(requests: impl IntoIterator<Item = &'a String>) -> Vec<&'a str> {
    let target = |request: &'a String| request.split(['_', '.']).nth(1).unwrap();
    let mut targets: Vec<&str> = requests.into_iter().map(target).collect();
    targets.sort_unstable();
    targets
}

/// Waits until a connection is closed at its other end.
fn wait_for_end(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(TIME_MAX)).unwrap();
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
}

fn wait(child: &mut Child) -> std::process::ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(started.elapsed() < TIME_MAX, "the builder does not end");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn builders_run_side_by_side_and_end_with_the_one_that_started_them() {
    let directory = tempfile::tempdir().unwrap();
    if !can_build(directory.path()) {
        return;
    }
    for (signal, code) in
        [(Signal::SIGINT, Some(130)), (Signal::SIGTERM, Some(143)), (Signal::SIGKILL, None)]
    {
        let (url, connections) = silent_server();
        let arguments = format!("build deb deb12 --jobs 2 --from {url}");
        let mut child = builder(directory.path(), &arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Both read the published release at the same time.
        let mut both = [(); 2].map(|()| connections.recv_timeout(TIME_MAX).unwrap());
        assert_eq!(requested(both.iter().map(|(request, _)| request)), ["deb", "deb12"]);
        // Only the first builder gets the signal.
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        let status = wait(&mut child);
        assert_eq!(status.code(), code, "{signal}: {:?}", status.signal());
        both.iter_mut().for_each(|(_, stream)| wait_for_end(stream));
        // The targets are free again.
        for target in ["deb_amd64", "deb12_amd64"] {
            let lock = directory.path().join("out").join(target).join("lock");
            if let Ok(lock) = fs::File::open(lock) {
                lock.lock().unwrap();
            }
        }
    }
}

#[test]
fn every_failure_is_in_the_summary_and_does_not_stop_the_others() {
    let directory = tempfile::tempdir().unwrap();
    if !can_build(directory.path()) {
        return;
    }
    let (url, connections) = silent_server();
    let (open, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let arguments = format!("build deb deb12 --jobs 1 --json --from {url}");
    let output = thread::scope(|scope| {
        let run = scope.spawn(|| builder(directory.path(), &arguments).output().unwrap());
        let mut requests = Vec::new();
        while !run.is_finished() {
            let Ok((request, mut stream)) = connections.recv_timeout(Duration::from_millis(50))
            else {
                continue;
            };
            requests.push(request);
            let (open, most) = (&open, &most);
            scope.spawn(move || {
                most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Another builder would have the time to connect.
                thread::sleep(Duration::from_millis(500));
                open.fetch_sub(1, Ordering::SeqCst);
                let answer = "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                stream.write_all(answer.as_bytes()).unwrap();
            });
        }
        assert_eq!(requested(&requests), ["deb", "deb12"]);
        run.join().unwrap()
    });
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(most.load(Ordering::SeqCst), 1, "--jobs 1 was given");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let targets = found["targets"].as_array().unwrap();
    assert_eq!(targets.len(), 2, "{found:#}");
    for (target, name) in targets.iter().zip(["deb_", "deb12_"]) {
        let name_found = target["target"].as_str().unwrap();
        assert!(name_found.starts_with(name), "{name_found}");
        assert_eq!(target["result"], "failed");
        let error = target["error"].as_str().unwrap();
        assert!(error.contains("500") && error.contains(&url), "{error}");
        assert!(stderr.contains(&format!("\n{name_found}: error: ")), "{stderr}");
    }
    assert!(stderr.contains("2 of 2 targets failed: deb_"), "{stderr}");
    assert_eq!(stderr.matches("no --signing-key was given").count(), 1, "{stderr}");
}

#[test]
fn a_builder_of_one_target_ends_if_its_parent_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    // Process 1 is not the parent of this command.
    let arguments = "--one-of-several deb_amd64 --parent 1 publish deb deb12";
    let output = builder(directory.path(), arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("has ended"), "{}", text(&output.stderr));
    assert!(!directory.path().join("out").exists());
}
