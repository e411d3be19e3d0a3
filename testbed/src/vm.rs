//! A running VM: QEMU, its TPM, its console, and its monitor.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use crate::console::{Console, Sink};
use crate::disk::{self, CopyError};
use crate::machine::{Machine, QMP_SOCKET, TPM_SOCKET, TPM_STATE, VARIABLES};
use crate::process::{Process, StartError};
use crate::qmp::{Qmp, QmpError};

/// The limit for opening a socket. QEMU and swtpm take less than a second; a busy host takes longer.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(30);
/// The limit for QEMU to exit after it has closed its monitor. It takes milliseconds.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two checks for a socket.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A VM that could not be started or controlled.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// A program could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A file operation failed.
    #[error("cannot {operation} {}: {source}", path.display())]
    File {
        /// The operation.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The firmware's variables could not be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A program exited during the start. Contains its exit report.
    #[error("{0}")]
    Exited(String),
    /// A program did not open its socket.
    #[error("{program} did not open {socket:?} within {} s", SOCKET_TIMEOUT.as_secs())]
    Socket {
        /// The program.
        program: &'static str,
        /// The name of the socket in the VM's directory.
        socket: &'static str,
    },
    /// A command to the monitor failed.
    #[error(transparent)]
    Qmp(#[from] QmpError),
}

/// A running VM. Dropping it kills QEMU and swtpm.
pub(crate) struct Vm {
    // Fields are dropped in this order. QEMU has to exit before swtpm, or it reports a lost TPM.
    qemu: Process,
    _swtpm: Option<Process>,
    console: Console,
    firmware_log: Console,
    qmp: Qmp,
    port: Option<u16>,
    power_on: Instant,
}

impl Vm {
    /// Starts a machine.
    ///
    /// Creates `dir` for its sockets and state, and writes `console-NAME.log`, `firmware-NAME.log` and
    /// the output of the programs to `logs`. `sink` receives the console output as well.
    pub(crate) fn start(
        machine: &Machine,
        dir: &Path,
        logs: &Path,
        sink: Option<Sink>,
    ) -> Result<Self, VmError> {
        let logs = file("find the directory", logs, fs::canonicalize(logs))?;
        let log = |kind: &str| logs.join(format!("{kind}-{}.log", machine.name));
        file("create the directory", dir, fs::create_dir(dir))?;
        if let Some(flash) = machine.firmware.flash(machine.arch, machine.accel) {
            // The image for arm64 has 64 MiB, most of which are holes in the copy.
            disk::copy_sparse(flash.variables.as_ref(), &dir.join(VARIABLES))?;
        }
        let swtpm = machine.tpm.then(|| start_tpm(dir, &log("swtpm"))).transpose()?;

        let console = follow(&log("console"), sink)?;
        let firmware_log = follow(&log("firmware"), None)?;
        let arguments = machine.arguments(console.path(), firmware_log.path());
        let power_on = Instant::now();
        let qemu = Process::start(machine.program(), &arguments, dir, &log("qemu"))?;
        let stream = connect("QEMU", dir, QMP_SOCKET, &qemu)?;
        let (qmp, port) = open_monitor(stream, machine).map_err(|error| {
            // QEMU opens its socket before it initializes the accelerator, which may fail.
            qemu.wait(EXIT_TIMEOUT);
            qemu.exit_report().map_or(error.into(), VmError::Exited)
        })?;
        Ok(Self { qemu, _swtpm: swtpm, console, firmware_log, qmp, port, power_on })
    }

    /// Returns the console.
    pub(crate) fn console(&self) -> &Console {
        &self.console
    }

    /// Returns the connection to QEMU's monitor.
    pub(crate) fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// Returns the time since power-on.
    pub(crate) fn age(&self) -> Duration {
        self.power_on.elapsed()
    }

    /// Returns the time from power-on until the firmware started a boot loader, if it has logged that.
    pub(crate) fn firmware_time(&self) -> Option<Duration> {
        let logs = [&self.console, &self.firmware_log];
        let start = logs.into_iter().find_map(Console::boot_loader_start);
        start.map(|start| start.saturating_duration_since(self.power_on))
    }

    /// Returns the loopback port of the host that is forwarded to [`Machine::forward`], if that is
    /// set.
    pub(crate) fn port(&self) -> Option<u16> {
        self.port
    }

    /// Returns the exit report if QEMU has exited, or else the first fatal error on the console.
    pub(crate) fn problem(&self) -> Option<String> {
        self.qemu.exit_report().or_else(|| self.console.problem())
    }

    /// Waits up to `timeout` for QEMU to exit, and returns its status if it did. The status is a
    /// success if the guest has powered off.
    pub(crate) fn wait(&self, timeout: Duration) -> Option<ExitStatus> {
        self.qemu.wait(timeout)
    }

    /// Returns QEMU's exit status and the end of its output, or `None` while it runs.
    pub(crate) fn exit_report(&self) -> Option<String> {
        self.qemu.exit_report()
    }

    /// Returns the last lines of the console, or of the firmware's log if the console is empty.
    pub(crate) fn console_tail(&self, lines: usize) -> String {
        let tail = self.console.tail(lines);
        if !tail.is_empty() {
            return section("the console's last lines", self.console.path(), &tail);
        }
        let title = "the console is empty; the last lines of the firmware's log";
        section(title, self.firmware_log.path(), &self.firmware_log.tail(lines))
    }
}

/// Creates or truncates a log, so that an earlier run's is not read, and follows it.
fn follow(log: &Path, sink: Option<Sink>) -> Result<Console, VmError> {
    file("write", log, File::create(log))?;
    file("follow", log, Console::follow(log, sink))
}

/// Formats `lines` below a title with the path of their file.
fn section(title: &str, path: &Path, lines: &[String]) -> String {
    let lines: String = lines.iter().map(|line| format!("\n  | {line}")).collect();
    format!("{title} ({}):{lines}", path.display())
}

/// Connects to the monitor and finds the forwarded port.
fn open_monitor(stream: UnixStream, machine: &Machine) -> Result<(Qmp, Option<u16>), QmpError> {
    let mut qmp = Qmp::new(stream)?;
    let port = machine.forward.map(|port| qmp.forwarded_port(port)).transpose()?;
    Ok((qmp, port))
}

fn start_tpm(dir: &Path, log: &Path) -> Result<Process, VmError> {
    file("create the directory", &dir.join(TPM_STATE), fs::create_dir(dir.join(TPM_STATE)))?;
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

/// Waits until `program` opens the socket `socket` in `dir`, and connects to it.
fn connect(
    program: &'static str,
    dir: &Path,
    socket: &'static str,
    process: &Process,
) -> Result<UnixStream, VmError> {
    let directory = file("open the directory", dir, File::open(dir))?;
    // A socket's path is limited to 108 bytes (unix(7)). This path is short for any directory.
    let path = format!("/proc/self/fd/{}/{socket}", directory.as_raw_fd());
    let start = Instant::now();
    loop {
        match UnixStream::connect(&path) {
            Ok(stream) => return Ok(stream),
            Err(_) => wait_for_socket(program, socket, process, start)?,
        }
    }
}

/// Waits one interval for a socket.
///
/// # Errors
/// Fails if the program has exited or if the time since `start` exceeds [`SOCKET_TIMEOUT`].
fn wait_for_socket(
    program: &'static str,
    socket: &'static str,
    process: &Process,
    start: Instant,
) -> Result<(), VmError> {
    if let Some(exit_report) = process.exit_report() {
        return Err(VmError::Exited(exit_report));
    }
    if start.elapsed() > SOCKET_TIMEOUT {
        return Err(VmError::Socket { program, socket });
    }
    thread::sleep(POLL_INTERVAL);
    Ok(())
}

/// Adds the operation and the path to an I/O error.
fn file<T>(operation: &'static str, path: &Path, result: io::Result<T>) -> Result<T, VmError> {
    result.map_err(|source| VmError::File { operation, path: path.into(), source })
}
