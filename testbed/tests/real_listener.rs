//! `testbed push` and `testbed shell` with the listener of the real updater.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use protocol::PrivateKey;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::{Value, json};

/// Long enough for a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A host whose listener runs, and an operator with a key of its source "ops".
struct Host {
    directory: tempfile::TempDir,
    listener: Child,
    address: String,
    fingerprint: String,
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.listener.kill();
        let _ = self.listener.wait();
    }
}

/// Compiles the updater, if that has not been done, and returns the path of the program.
fn updater() -> PathBuf {
    let directory = Path::new(env!("CARGO_BIN_EXE_testbed")).parent().unwrap();
    let profile = directory.file_name().unwrap().to_str().unwrap().replace("debug", "dev");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "updater", "--bin", "updater"])
        .args(["--profile", &profile])
        .arg("--target-dir")
        .arg(directory.parent().unwrap())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(status.unwrap().success(), "the updater cannot be compiled");
    directory.join("updater")
}

impl Host {
    fn start(shell: bool) -> Self {
        Self::start_with(shell, true)
    }

    fn start_with(shell: bool, tls: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let key = PrivateKey::generate();
        write("ops.key", &(key.reveal() + "\n"));
        write("host/proc/uptime", "86400.00 1.00\n");
        write("host/run/x", "");
        let source = json!({"keys": [key.public().to_string()], "shell": shell});
        let listen = json!({"address": "127.0.0.1:0", "tls": tls, "sources": {"ops": source}});
        let config = json!({"listen": listen});
        write("esp/etchaos/config.json", &config.to_string());
        let mut listener = Command::new(updater())
            .arg("--esp")
            .arg(directory.path().join("esp"))
            .arg("--host-root")
            .arg(directory.path().join("host"))
            .arg("listen")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(listener.stderr.take().unwrap()).lines();
        let line = lines.find_map(|line| line.ok().filter(|line| line.contains("listening on")));
        let line = line.expect("the listener did not start");
        std::thread::spawn(move || lines.for_each(drop));
        let address = line.split_whitespace().find(|word| word.starts_with("127.")).unwrap();
        let fingerprint = line.split_once("SHA-256 ").map_or("", |(_, sha256)| sha256.trim());
        Self {
            address: address.to_owned(),
            fingerprint: fingerprint.to_owned(),
            listener,
            directory,
        }
    }

    fn command(&self, subcommand: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_testbed"));
        let key = format!("@{}", self.directory.path().join("ops.key").display());
        command.args([subcommand, &self.address, "ops"]).args(arguments);
        command.args(["--key", &key, "--fingerprint", &self.fingerprint]);
        command
    }

    fn push(&self, arguments: &[&str]) -> Output {
        self.command("push", arguments).output().unwrap()
    }

    /// Runs a shell with this standard input.
    fn shell(&self, input: &str) -> Output {
        let mut child = self
            .command("shell", &[])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn assert_ended(output: &Output, code: i32, stdout: &str, stderr: &str) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    assert!(out.contains(stdout), "{out}");
    assert!(err.contains(stderr), "{err}");
}

#[test]
fn pushes_commands_and_patterns() {
    let host = Host::start(false);
    assert_ended(&host.push(&["echo hello"]), 0, "changed: etcha push\n  hello\n", "");
    assert_ended(&host.push(&["echo oops >&2; exit 3"]), 1, "failed: etcha push", "oops");
    assert_ended(&host.push(&["echo hello", "--check"]), 0, "", "");
    let mark = host.directory.path().join("mark");
    let pattern = host.directory.path().join("p.jsonnet");
    std::fs::write(host.directory.path().join("lib.libsonnet"), "{ path: '%s' }").unwrap();
    let command = format!(
        "local lib = import 'lib.libsonnet'; {{ run: [{{ id: 'mark', check: 'test -e ' + lib.path % '{0}', change: 'touch ' + lib.path % '{0}' }}] }}",
        mark.display()
    );
    std::fs::write(&pattern, command).unwrap();
    let pattern = pattern.to_str().unwrap();
    assert_ended(&host.push(&[pattern, "--check"]), 0, "would change: mark", "");
    assert!(!mark.exists());
    assert_ended(&host.push(&[pattern, "--filter", "^nothing$"]), 0, "no changes\n", "");
    assert!(!mark.exists());
    assert_ended(&host.push(&[pattern]), 0, "changed: mark\n", "");
    assert!(mark.exists());
    assert_ended(&host.push(&[pattern]), 0, "no changes\n", "");
    let printed: Value = serde_json::from_slice(&host.push(&[pattern, "--json"]).stdout).unwrap();
    assert_eq!((&printed["error"], &printed["changed"]), (&json!(""), &json!([])));
    assert_ended(&host.push(&["true", "--audience", "another-host"]), 3, "", "audience");
    std::fs::write(pattern, "{ run: [").unwrap();
    assert_ended(&host.push(&[pattern]), 3, "", "/p.jsonnet");
}

#[test]
fn wrong_keys_and_plain_http_are_refused() {
    let host = Host::start(true);
    let key = PrivateKey::generate().reveal();
    for (subcommand, arguments, code) in [("push", &["true"][..], 3), ("shell", &[], 255)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_testbed"));
        command.args([subcommand, &host.address, "ops"]).args(arguments);
        command.args(["--key", &key, "--fingerprint", &host.fingerprint]);
        assert_ended(&command.stdin(Stdio::null()).output().unwrap(), code, "", "status 4");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_testbed"));
    let plain = format!("http://{}", host.address);
    command.args(["push", &plain, "ops", "true", "--key", &key]);
    assert_ended(&command.output().unwrap(), 3, "", "TLS");
}

#[test]
fn a_listener_without_tls_is_recognised() {
    let host = Host::start_with(false, false);
    let key = format!("@{}", host.directory.path().join("ops.key").display());
    let push = |address: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_testbed"));
        command.args(["push", address, "ops", "echo hello", "--key", &key]).args(more);
        command.output().unwrap()
    };
    let output = push(&host.address, &["--insecure", "--json"]);
    assert_ended(&output, 3, "\"error\":", "does not answer with TLS");
    assert_ended(&push(&format!("http://{}", host.address), &[]), 0, "  hello\n", "");
}

#[test]
fn a_shell_is_off_by_default() {
    let host = Host::start(false);
    assert_ended(&host.shell("echo hello\n"), 255, "", "may have no shell");
}

#[test]
fn a_shell_reads_a_pipe_and_passes_on_its_exit_code() {
    let host = Host::start(true);
    assert_ended(&host.shell("echo out; echo err >&2; exit 7\n"), 7, "out\n", "err\n");
    assert_ended(&host.shell("wc -c <<X\nhello\nX\n"), 0, "6\n", "");
    // The end of standard input ends the shell.
    assert_ended(&host.shell("false"), 1, "", "");
    let long = format!("cat <<'X' | wc -c\n{}\nX\n", "x".repeat(300_000));
    assert_ended(&host.shell(&long), 0, "300001\n", "");
    assert_ended(&host.shell("kill -TERM $$\n"), 143, "", "");
}

/// A terminal, with the side of the person and that of the program.
struct Terminal {
    person: File,
    program: File,
}

impl Terminal {
    fn new() -> Self {
        let person =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap().into_string().unwrap();
        let program = File::options().read(true).write(true).open(name).unwrap();
        let terminal = Self { person: File::from(person), program };
        terminal.resize(81, 23);
        terminal
    }

    fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.person, size).unwrap();
    }

    fn is_canonical(&self) -> bool {
        tcgetattr(&self.program).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    fn shell(&self, host: &Host) -> Child {
        let stdio = || Stdio::from(self.program.try_clone().unwrap());
        let mut command = host.command("shell", &[]);
        command.env("TERM", "vt100").stdin(stdio()).stdout(stdio()).stderr(stdio());
        command.spawn().unwrap()
    }

    fn type_text(&mut self, text: &str) {
        self.person.write_all(text.as_bytes()).unwrap();
    }

    /// Reads until the output contains a text.
    fn expect(&mut self, expected: &str) -> String {
        self.read_until(|seen| seen.contains(expected))
    }

    fn read_until(&mut self, found: impl Fn(&str) -> bool) -> String {
        let (mut seen, mut block) = (String::new(), [0; 1024]);
        while !found(&seen) {
            let length = self.person.read(&mut block).unwrap();
            seen.push_str(&String::from_utf8_lossy(&block[..length]));
        }
        seen
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(start.elapsed() < TIMEOUT, "the program did not end");
        std::thread::sleep(POLL_INTERVAL);
    }
}

#[test]
fn a_shell_has_a_terminal_whose_mode_is_restored() {
    let host = Host::start(true);
    let mut terminal = Terminal::new();
    let mut shell = terminal.shell(&host);
    // The echo has the sum, and not its result.
    terminal.type_text("stty size; echo $TERM $((40+2))\r");
    let seen = terminal.expect("vt100 42");
    assert!(seen.contains("23 81"), "{seen}");
    assert!(!terminal.is_canonical());
    terminal.resize(100, 50);
    terminal.type_text(
        "until [ \"$(stty size)\" = '50 100' ]; do sleep 0.1; done; echo new $((40+3))\r",
    );
    terminal.expect("new 43");
    // Ctrl-C ends what runs in the shell, and not the client.
    terminal.type_text(
        "(trap 'echo caught $((40+4)); exit' INT; echo ready $((40+5)); while :; do sleep 1; done)\r",
    );
    terminal.expect("ready 45");
    terminal.type_text("\u{3}");
    terminal.expect("caught 44");
    terminal.type_text("echo after $((40+6)); tty | grep -c /dev/pts; exit 5\r");
    terminal.expect("after 46");
    assert_eq!(wait(&mut shell).code(), Some(5));
    assert!(terminal.is_canonical());
}

#[test]
fn the_escape_and_signals_end_the_connection_and_the_shell() {
    let host = Host::start(true);
    for by_signal in [false, true] {
        let mut terminal = Terminal::new();
        let mut shell = terminal.shell(&host);
        terminal.type_text("nohup sleep 300 >/dev/null 2>&1 & echo pid=$!=\r");
        // The echo of the line has no number.
        let number = |seen: &str| {
            let numbers =
                seen.split("pid=").filter_map(|rest| rest.split_once('=')?.0.parse().ok());
            numbers.last()
        };
        let seen = terminal.read_until(|seen| number(seen).is_some());
        let pid: u32 = number(&seen).unwrap();
        let process = PathBuf::from(format!("/proc/{pid}"));
        assert!(process.exists());
        match by_signal {
            true => {
                let kill = Command::new("kill").args(["-TERM", &shell.id().to_string()]).status();
                assert!(kill.unwrap().success());
            }
            false => terminal.type_text("\r~."),
        }
        let code = wait(&mut shell).code();
        assert_eq!(code, Some(if by_signal { 143 } else { 255 }));
        assert!(terminal.is_canonical());
        let start = Instant::now();
        while process.join("exe").read_link().is_ok() {
            assert!(start.elapsed() < TIMEOUT, "the process {pid} still runs");
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

#[test]
fn a_client_that_is_killed_ends_the_shell() {
    let host = Host::start(true);
    let mut client =
        host.command("shell", &[]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = client.stdin.take().unwrap();
    stdin.write_all(b"trap '' HUP TERM; sleep 300 & echo $!; wait\n").unwrap();
    let mut pid = String::new();
    BufReader::new(client.stdout.take().unwrap()).read_line(&mut pid).unwrap();
    let process = PathBuf::from(format!("/proc/{}", pid.trim()));
    assert!(process.exists());
    client.kill().unwrap();
    client.wait().unwrap();
    let start = Instant::now();
    while process.join("exe").read_link().is_ok() {
        assert!(start.elapsed() < TIMEOUT, "the process {pid} still runs");
        std::thread::sleep(POLL_INTERVAL);
    }
}
