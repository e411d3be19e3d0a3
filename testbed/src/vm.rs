//! A running VM: QEMU, its TPM, its console, its monitor.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use crate::console::{Console, Sink};
use crate::machine::{Machine, QMP_SOCKET, TPM_SOCKET, TPM_STATE, VARIABLES};
use crate::process::{Process, StartError};
use crate::qmp::{Qmp, QmpError};

/// QEMU and swtpm open their sockets within a second; a loaded host may take longer.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(30);
/// A QEMU that hung up ends within milliseconds.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a socket is looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A VM that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// A program.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A file.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// A program that ended at once.
    #[error("{0}")]
    Ended(String),
    /// A program that does not open its socket.
    #[error("{program} did not open {socket:?} within {} s", SOCKET_TIMEOUT.as_secs())]
    Socket {
        /// The program.
        program: &'static str,
        /// The name of the socket in the VM's directory.
        socket: &'static str,
    },
    /// The monitor.
    #[error(transparent)]
    Qmp(#[from] QmpError),
}

/// A running VM. It is killed when this is dropped.
pub struct Vm {
    // Dropped in this order: QEMU goes first, or it would complain about its TPM.
    qemu: Process,
    _swtpm: Option<Process>,
    console: Console,
    debug_log: PathBuf,
    qmp: Qmp,
    port: Option<u16>,
}

impl Vm {
    /// Starts a machine. `dir` is a new directory of its own; in `logs` there will be
    /// `console-NAME.log` and the programs' own words.
    pub fn start(
        machine: &Machine,
        dir: &Path,
        logs: &Path,
        sink: Option<Sink>,
    ) -> Result<Self, VmError> {
        let logs = file("find the directory", logs, fs::canonicalize(logs))?;
        let log = |kind: &str| logs.join(format!("{kind}-{}.log", machine.name));
        file("make the directory", dir, fs::create_dir(dir))?;
        if let Some(flash) = machine.firmware.flash(machine.accel) {
            let copy = fs::copy(&flash.variables, dir.join(VARIABLES));
            file("copy the firmware's variables", flash.variables.as_ref(), copy)?;
        }
        let swtpm = machine.tpm.then(|| start_tpm(dir, &log("swtpm"))).transpose()?;

        let (console_log, debug_log) = (log("console"), log("firmware"));
        // An older run's file must not be taken for this console.
        file("write", &console_log, File::create(&console_log))?;
        let console = Console::follow(&console_log, sink);
        let console = file("follow the console", &console_log, console)?;
        let arguments = machine.arguments(&console_log, &debug_log);
        let qemu = Process::start("qemu-system-x86_64", &arguments, dir, &log("qemu"))?;
        let stream = connect("QEMU", dir, QMP_SOCKET, &qemu)?;
        let (qmp, port) = monitor(stream, machine).map_err(|error| {
            // QEMU opens its socket before it knows whether the accelerator works.
            qemu.wait(EXIT_TIMEOUT);
            qemu.exit_report().map_or(error.into(), VmError::Ended)
        })?;
        Ok(Self { qemu, _swtpm: swtpm, console, debug_log, qmp, port })
    }

    /// Its console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// QEMU's monitor.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// The port of our loopback that leads to the guest's, if one was asked for.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// What went wrong with it, if anything: QEMU ended, or the console says so.
    pub fn problem(&self) -> Option<String> {
        self.qemu.exit_report().or_else(|| self.console.problem())
    }

    /// Waits for QEMU to end; says how it did, if it did. A guest that powers off is a success.
    pub fn wait(&self, timeout: Duration) -> Option<ExitStatus> {
        self.qemu.wait(timeout)
    }

    /// How QEMU ended and the last of what it said, if it has ended.
    pub fn exit_report(&self) -> Option<String> {
        self.qemu.exit_report()
    }

    /// The last lines of the console for an error; of the firmware's log, if the console is empty.
    pub fn console_tail(&self, lines: usize) -> String {
        let tail = self.console.tail(lines);
        if !tail.is_empty() {
            return section("the console's last lines", self.console.path(), &tail);
        }
        let log = fs::read(&self.debug_log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let all: Vec<String> = log.lines().map(str::to_owned).collect();
        let tail = &all[all.len().saturating_sub(lines)..];
        let title = "the console is empty; the firmware's last lines";
        section(title, &self.debug_log, tail)
    }
}

fn section(title: &str, path: &Path, lines: &[String]) -> String {
    let lines: String = lines.iter().map(|line| format!("\n  | {line}")).collect();
    format!("{title} ({}):{lines}", path.display())
}

fn monitor(stream: UnixStream, machine: &Machine) -> Result<(Qmp, Option<u16>), QmpError> {
    let mut qmp = Qmp::new(stream)?;
    let port = machine.forward.map(|port| qmp.forwarded_port(port)).transpose()?;
    Ok((qmp, port))
}

fn start_tpm(dir: &Path, log: &Path) -> Result<Process, VmError> {
    file("make the directory", &dir.join(TPM_STATE), fs::create_dir(dir.join(TPM_STATE)))?;
    let arguments = [
        "socket".to_owned(),
        "--tpm2".into(),
        "--terminate".into(),
        "--tpmstate".into(),
        format!("dir={TPM_STATE}"),
        "--ctrl".into(),
        format!("type=unixio,path={TPM_SOCKET}"),
    ];
    let swtpm = Process::start("swtpm", &arguments.map(Into::into), dir, log)?;
    let start = Instant::now();
    while !dir.join(TPM_SOCKET).exists() {
        wait_for_socket("swtpm", TPM_SOCKET, &swtpm, start)?;
    }
    Ok(swtpm)
}

/// Connects to a socket in `dir` that a program is about to open.
fn connect(
    program: &'static str,
    dir: &Path,
    socket: &'static str,
    process: &Process,
) -> Result<UnixStream, VmError> {
    let directory = file("open the directory", dir, File::open(dir))?;
    // The path of a socket has 108 bytes at most; this one is short however deep the directory lies.
    let path = format!("/proc/self/fd/{}/{socket}", directory.as_raw_fd());
    let start = Instant::now();
    loop {
        match UnixStream::connect(&path) {
            Ok(stream) => return Ok(stream),
            Err(_) => wait_for_socket(program, socket, process, start)?,
        }
    }
}

fn wait_for_socket(
    program: &'static str,
    socket: &'static str,
    process: &Process,
    start: Instant,
) -> Result<(), VmError> {
    if let Some(exit_report) = process.exit_report() {
        return Err(VmError::Ended(exit_report));
    }
    if start.elapsed() > SOCKET_TIMEOUT {
        return Err(VmError::Socket { program, socket });
    }
    thread::sleep(POLL_INTERVAL);
    Ok(())
}

fn file<T>(doing: &'static str, path: &Path, result: io::Result<T>) -> Result<T, VmError> {
    result.map_err(|source| VmError::File { doing, path: path.into(), source })
}
