//! Signals sent to the real binary: exit codes, and a SIGHUP that `nohup` ignores.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Starts `testbed boot` on a work directory whose lock is held, where it waits for the lock.
fn start_waiting(work: &Path, ignore_hangup: bool) -> (Child, File) {
    let turn = File::create(work.join("testbed-turn")).unwrap();
    turn.lock().unwrap();
    let trap = if ignore_hangup { "trap '' HUP; " } else { "" };
    let child = Command::new("/bin/sh")
        .args(["-c", &format!("{trap}exec \"$0\" boot --disk /dev/null --work \"$1\"")])
        .arg(env!("CARGO_BIN_EXE_testbed"))
        .arg(work)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The lock file is opened after the handlers are installed.
    let files = format!("/proc/{}/fd", child.id());
    let path = std::fs::canonicalize(work).unwrap().join("testbed-turn");
    wait_until(|| {
        let Ok(mut open) = std::fs::read_dir(&files) else { return false };
        open.any(|file| file.is_ok_and(|f| std::fs::read_link(f.path()).is_ok_and(|to| to == path)))
    });
    (child, turn)
}

fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < TIMEOUT, "timed out");
        thread::sleep(POLL_INTERVAL);
    }
}

fn send(child: &Child, signal: &str) {
    let kill = Command::new("/bin/kill").args([signal, &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
}

fn wait(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > TIMEOUT {
            child.kill().unwrap();
            panic!("the program did not react to the signal");
        }
        thread::sleep(POLL_INTERVAL);
    }
}

#[test]
fn exits_with_128_plus_the_signal_number() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        let work = tempfile::tempdir().unwrap();
        let (mut child, _turn) = start_waiting(work.path(), false);
        send(&child, signal);
        assert_eq!(wait(&mut child).code(), Some(code), "{signal}");
    }
}

#[test]
fn ignores_sighup_under_nohup() {
    let work = tempfile::tempdir().unwrap();
    let (mut child, _turn) = start_waiting(work.path(), true);
    send(&child, "-HUP");
    thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "it ended at SIGHUP");
    send(&child, "-TERM");
    assert_eq!(wait(&mut child).code(), Some(143));
}
