//! The process of a shell: its terminal or pipes, and its end.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::shell::{Size, Terminal};
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::pipe::{Input, Output};
use crate::host::Host;
use crate::process::{QUERY_TIMEOUT, systemd_stdout};

/// Exists where systemd is the first process (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";
/// The unit of the listener, with which its shells end.
const LISTENER: &str = "etchaos-listen.service";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How often the processes of a session are looked for when it is killed. New ones can appear meanwhile.
const KILL_ROUNDS: usize = 20;
/// Shells report a process that was ended by signal N with the exit code 128 + N.
const SIGNAL_EXIT_BASE: i32 = 128;

/// How a shell is started.
pub(super) struct Launcher {
    /// The program and its arguments.
    command: Vec<OsString>,
    /// The scope of systemd that has all processes of the shell, if there is systemd.
    scope: Option<String>,
}

/// A shell that runs. All of its processes are killed when this is dropped.
pub(super) struct Running {
    child: Child,
    scope: Option<String>,
    /// Its terminal, for a change of its size.
    terminal: Option<OwnedFd>,
}

/// The ends of the pipes of a shell. With a terminal, there is no `error`.
pub(super) struct Streams {
    pub(super) input: Input,
    pub(super) output: Output,
    pub(super) error: Option<Output>,
}

impl Launcher {
    /// Creates a launcher for the shell with this id.
    pub(super) fn new(host: &Host, id: &str) -> Self {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("etchaos-updater"));
        let scope = host.path(SYSTEMD).is_dir().then(|| format!("etchaos-shell-{id}.scope"));
        let mut command: Vec<OsString> = Vec::new();
        if let Some(scope) = &scope {
            // The process stays a child of this one, and moves into the scope before it runs the program.
            let description = format!("Shell {id} of etchaos-listen");
            let unit = format!("--unit={scope}");
            let with_listener = format!("--property=BindsTo={LISTENER}");
            let arguments = [
                "systemd-run",
                "--scope",
                "--quiet",
                "--collect",
                &unit,
                &with_listener,
                "--description",
                &description,
                "--",
            ];
            command.extend(arguments.map(OsString::from));
        }
        command.extend([program.into_os_string(), "shell-child".into()]);
        Self { command, scope }
    }

    /// Returns a launcher of another program, for tests.
    #[cfg(test)]
    pub(super) fn of(command: &[&str]) -> Self {
        Self { command: command.iter().map(OsString::from).collect(), scope: None }
    }

    /// Starts the shell.
    pub(super) fn start(&self, terminal: Option<&Terminal>) -> io::Result<(Running, Streams)> {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).env_clear().current_dir(home());
        command.envs([("HOME", "/root"), ("USER", "root"), ("LOGNAME", "root"), ("PATH", PATH)]);
        command.env("LANG", "C.UTF-8");
        let term = terminal.map_or("dumb", |terminal| terminal.term.as_str());
        command.env("TERM", if term.is_empty() { "dumb" } else { term });
        let (streams, terminal) = match terminal {
            Some(terminal) => {
                let (streams, fd) = with_terminal(&mut command, terminal.size)?;
                (streams, Some(fd))
            }
            None => (with_pipes(&mut command)?, None),
        };
        let child = command.spawn()?;
        Ok((Running { child, scope: self.scope.clone(), terminal }, streams))
    }
}

fn home() -> &'static Path {
    let root = Path::new("/root");
    if root.is_dir() { root } else { Path::new("/") }
}

fn with_terminal(command: &mut Command, size: Size) -> io::Result<(Streams, OwnedFd)> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = OsString::from_vec(ptsname(&ours, Vec::new())?.into_bytes());
    tcsetwinsize(&ours, winsize(size))?;
    let flags = i32::try_from(OFlags::NOCTTY.bits()).map_err(io::Error::other)?;
    let theirs = OpenOptions::new().read(true).write(true).custom_flags(flags).open(name)?;
    command.stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(theirs);
    let streams = Streams {
        input: Input::new(ours.try_clone()?)?,
        output: Output::new(ours.try_clone()?)?,
        error: None,
    };
    Ok((streams, ours))
}

fn with_pipes(command: &mut Command) -> io::Result<Streams> {
    let (stdin, input) = io::pipe()?;
    let (output, stdout) = io::pipe()?;
    let (error, stderr) = io::pipe()?;
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    Ok(Streams {
        input: Input::new(input.into())?,
        output: Output::new(output.into())?,
        error: Some(Output::new(error.into())?),
    })
}

fn winsize(size: Size) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Running {
    /// Sets the size of the terminal, if there is one.
    pub(super) fn resize(&self, size: Size) {
        if let Some(terminal) = &self.terminal {
            // A shell that has just ended has no terminal any more.
            let _ = tcsetwinsize(terminal, winsize(size));
        }
    }

    /// Returns the exit code if the shell has ended.
    pub(super) fn exit_code(&mut self) -> io::Result<Option<u8>> {
        Ok(self.child.try_wait()?.map(exit_code))
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| Some(SIGNAL_EXIT_BASE + status.signal()?));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

impl Drop for Running {
    /// Kills all processes of the shell: those of its session, and those of its scope, which also has the ones
    /// that made a session of their own. Blocks for a moment.
    fn drop(&mut self) {
        let session = Pid::from_raw(self.child.id().cast_signed());
        for _ in 0..KILL_ROUNDS {
            let processes = processes_of(session);
            if processes.is_empty() {
                break;
            }
            for process in processes {
                let _ = kill(process, Signal::SIGKILL);
            }
        }
        let _ = self.child.kill();
        if let Some(scope) = &self.scope {
            // The scope is gone if nothing runs in it.
            let command = ["systemctl", "kill", "--signal=SIGKILL", scope];
            if let Err(error) = systemd_stdout(&command, QUERY_TIMEOUT) {
                log::debug!("{error}");
            }
        }
        let _ = self.child.wait();
    }
}

/// Returns the processes of a session that run. A session keeps its number as long as it has processes.
fn processes_of(session: Pid) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name());
    let pids = names.filter_map(|name| name.to_str()?.parse::<i32>().ok());
    pids.filter(|pid| session_of(*pid) == Some(session.as_raw())).map(Pid::from_raw).collect()
}

/// Returns the session of a process that is not a zombie (proc_pid_stat(5)). Its name, in parentheses, may contain
/// anything.
fn session_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let session = fields.nth(2)?.parse().ok()?;
    (!["Z", "X"].contains(&state)).then_some(session)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn kills_the_processes_of_its_session() {
        // The session is a new one: that of this process has the number 0 if it is from another PID namespace.
        let (running, _streams) = Launcher::of(&["setsid", "sleep", "60"]).start(None).unwrap();
        let session = Pid::from_raw(running.child.id().cast_signed());
        let deadline = Instant::now() + Duration::from_secs(10);
        while processes_of(session).is_empty() && Instant::now() < deadline {
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(processes_of(session), [session]);
        assert_eq!(session_of(i32::MAX), None);
        drop(running);
        assert_eq!(processes_of(session), []);
    }
}
