//! How the builder ends: signals, closed standard output, and keys that cannot be printed.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

const BUILDER: &str = env!("CARGO_BIN_EXE_builder");

/// Starts a builder that blocks on a named pipe, below `wrapper` if that is not empty.
fn start_blocked(directory: &Path, wrapper: &[&str]) -> Child {
    let pipe = directory.join("key");
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let argv: Vec<&str> = wrapper.iter().copied().chain([BUILDER, "pubkey"]).collect();
    let child = Command::new(argv[0])
        .args(&argv[1..])
        .arg(&pipe)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let start = Instant::now();
    // SIGTERM is bit 14 of the mask of caught signals once the handlers are installed.
    while !fs::read_to_string(&status).unwrap().lines().any(|line| {
        let mask = line.strip_prefix("SigCgt:").map(|mask| u64::from_str_radix(mask.trim(), 16));
        mask.is_some_and(|mask| mask.unwrap() & (1 << 14) != 0)
            && fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap() == "builder\n"
    }) {
        assert!(start.elapsed() < Duration::from_secs(20), "no signal handlers");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

#[test]
fn exits_with_128_plus_signal() {
    for (signal, code) in [(Signal::SIGHUP, 129), (Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let directory = tempfile::tempdir().unwrap();
        let mut child = start_blocked(directory.path(), &[]);
        send(&child, signal);
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(code), "{signal}: signal {:?}", status.signal());
    }
}

#[test]
fn survives_sighup_under_nohup() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = start_blocked(directory.path(), &["nohup"]);
    send(&child, Signal::SIGHUP);
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "SIGHUP ended the builder");
    send(&child, Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn exits_quietly_if_reader_closes_output() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("k");
    assert!(Command::new(BUILDER).arg("keygen").arg(&key).output().unwrap().status.success());
    let key = key.to_str().unwrap();
    for arguments in [
        &["variants"][..],
        &["render", "deb", "--arch", "amd64"],
        &["setup"],
        &["setup", "--json"],
        &["pubkey", key],
    ] {
        // The read end is closed before the builder starts.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(BUILDER).args(arguments).stdout(writer).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), text.as_str()), (Some(141), ""), "{arguments:?}");
    }
}

#[test]
fn survives_closed_standard_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = Command::new(BUILDER).args(["render", "nosuch"]).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn render_stops_when_reader_closes_output() {
    let mut child = Command::new(BUILDER)
        .args(["render", "deb", "--arch", "amd64"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::with_capacity(1, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "{\n");
    assert!(matches!(child.wait().unwrap().code(), Some(0 | 141)));
}

#[test]
fn keygen_removes_key_that_it_cannot_print() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("k");
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(BUILDER).arg("keygen").arg(&key).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("No space left"));
    assert!(!key.exists());
}

#[test]
fn pubkey_prints_what_keygen_printed() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("k");
    let run = |command: &str| {
        let output = Command::new(BUILDER).arg(command).arg(&key).output().unwrap();
        (output.status.code(), output.stdout)
    };
    let created = run("keygen");
    assert_eq!(created.0, Some(0));
    assert_eq!(run("pubkey"), created);
    assert_eq!(run("keygen").0, Some(1), "an existing key must not be overwritten");
    fs::write(&key, "nonsense\n").unwrap();
    assert_eq!(run("pubkey").0, Some(1));
}
