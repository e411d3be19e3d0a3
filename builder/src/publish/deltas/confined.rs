//! Runs a program of an earlier release without privileges.
//!
//! A package that was malicious when the release was built may have replaced the program, and a publisher has the
//! signing key and the credentials of destinations in its environment. The program therefore sees only the files in
//! a directory, which is its root directory, and has namespaces of its own: no network, no other process. It runs as
//! another user, or as the user of the builder in a user namespace if that is not root, and cannot get privileges
//! (`PR_SET_NO_NEW_PRIVS`). It ends with the builder: `setpriv` makes the kernel kill the outer `unshare` when the
//! builder ends, and with it the first process of the PID namespace.

use std::fs::{self, File, Permissions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::diff::escape;
use crate::sandbox::PATH;

/// The memory that a program may take, as on a small host. zstd reserves more address space than that for a
/// kernel, so the resident memory counts.
pub(super) const MEMORY: u64 = 1 << 30;
/// The time that a program may take. A host gives up after the same time.
const TIME_MAX: Duration = Duration::from_secs(600);
/// The time between two looks at the memory.
const INTERVAL: Duration = Duration::from_millis(10);
/// What a program may write to standard error, in bytes. A file may have this size, too.
const TEXT_MAX: u64 = 64 << 10;
/// The part of standard error that is read for the last line, in bytes.
const TAIL: i64 = 1024;
/// The command between `prlimit` and `unshare`: it ties the program to the builder and drops the right to get
/// privileges.
const LIFETIME: [&str; 5] = ["setpriv", "--no-new-privs", "--pdeathsig", "KILL", "--"];
const NAMESPACES: [&str; 8] =
    ["unshare", "--fork", "--kill-child", "--pid", "--net", "--ipc", "--uts", "--mount"];
/// How root becomes the user nobody. It takes a second process, because the kernel clears the parent-death signal of
/// one that changes its user (prctl(2)).
const OTHER_USER: [&str; 5] = ["--", "unshare", "--fork", "--setgid=65534", "--setuid=65534"];
/// How another user gets the right to create namespaces. The program does not keep it (capabilities(7)).
const SAME_USER: [&str; 2] = ["--user", "--map-current-user"];

/// The root directory of a program.
pub(super) struct Root {
    directory: TempDir,
}

/// How a program ended.
pub(super) struct Ended {
    /// The status; that of a program that was killed is a failure.
    pub(super) status: ExitStatus,
    /// The peak of its resident memory in bytes.
    pub(super) peak: u64,
    /// Why it was killed, or the last line of its standard error.
    pub(super) message: String,
}

impl Root {
    /// Creates the directory in another one.
    pub(super) fn create(parent: &Path) -> Result<Self> {
        let directory = tempfile::tempdir_in(parent).context("creating a temporary directory")?;
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
        Ok(Self { directory })
    }

    /// Adds a copy of a file, which has to be readable for all users.
    pub(super) fn add(&self, from: &Path, name: &str) -> Result<()> {
        let copied = fs::copy(from, self.directory.path().join(name));
        copied.with_context(|| format!("copying {}", from.display()))?;
        Ok(())
    }

    /// Adds an empty file that the program can write, and returns its path for the builder.
    pub(super) fn add_writable(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.path().join(name);
        File::create_new(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        Ok(path)
    }

    /// Runs a program in the directory, and kills it if it takes too much memory or time, or writes a file of more
    /// than `file_max` bytes.
    pub(super) fn run(&self, arguments: &[&str], file_max: u64) -> Result<Ended> {
        let mut text = tempfile::tempfile().context("creating a temporary file")?;
        let mut command = command(self.directory.path(), file_max.max(TEXT_MAX));
        command.args(arguments).stdout(Stdio::null()).stderr(text.try_clone()?);
        let mut child = command.spawn().context("starting prlimit")?;
        let (peak, killed) = limit(&mut child, TIME_MAX)?;
        let message = killed.map_or_else(|| last_line(&mut text), Ok)?;
        Ok(Ended { status: child.wait()?, peak, message })
    }
}

/// Returns why this machine cannot run programs without privileges, or `None` if it can.
pub(super) fn problem() -> Option<&'static str> {
    static PROBLEM: OnceLock<Option<String>> = OnceLock::new();
    let find = || match command(Path::new("/"), TEXT_MAX).arg("true").output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("starting prlimit: {error}")),
    };
    PROBLEM.get_or_init(find).as_deref()
}

/// Returns whether the user of this process is root.
fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Returns the command line up to the program.
fn command(root: &Path, file_max: u64) -> Command {
    let mut command = Command::new("prlimit");
    command.env_clear().env("PATH", PATH).stdin(Stdio::null());
    command.arg("--core=0").arg(format!("--fsize={file_max}")).arg("--");
    command.args(LIFETIME).args(NAMESPACES);
    match is_root() {
        true => command.args(OTHER_USER),
        false => command.args(SAME_USER),
    };
    command.arg("--root").arg(root).args(["--wd", "/", "--"]);
    command
}

/// Waits for the end of a program. Returns the peak of its resident memory in bytes, and why it was killed.
fn limit(child: &mut Child, time_max: Duration) -> Result<(u64, Option<String>)> {
    let since = Instant::now();
    let (mut peak, mut killed) = (0, None);
    while child.try_wait()?.is_none() {
        peak = peak.max(memory(child.id()).unwrap_or_default());
        if peak > MEMORY {
            killed = Some(format!("it took more than {MEMORY} bytes of memory"));
        } else if since.elapsed() > time_max {
            killed = Some(format!("it took more than {} s", time_max.as_secs()));
        }
        if killed.is_some() {
            child.kill()?;
        }
        thread::sleep(INTERVAL);
    }
    Ok((peak, killed))
}

/// Returns the peak of the resident memory of the program below the `unshare` with this process ID, in bytes.
fn memory(unshare: u32) -> Option<u64> {
    let mut pid = unshare.to_string();
    let depth = if is_root() { 2 } else { 1 };
    for _ in 0..depth {
        // proc_tid_children(5)
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        pid = children.split_whitespace().next()?.to_owned();
    }
    // proc_pid_status(5): the peak of the resident set, in KiB.
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Returns the last line of the text in a file that is not of `unshare`.
fn last_line(file: &mut File) -> Result<String> {
    let length = i64::try_from(file.metadata()?.len())?;
    file.seek(SeekFrom::End(-length.min(TAIL)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let tail = String::from_utf8_lossy(&tail);
    // It adds a line if a signal ended the program.
    let mut lines = tail.lines().rev().filter(|line| !line.starts_with("unshare: child exit"));
    Ok(escape::plain(lines.next().unwrap_or("it printed no error")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::skip;

    /// Starts a program that does not end, and calls a function with it. Returns whether the program has ended: it then
    /// has no open standard error any more.
    fn ends(work: impl Fn(&mut Child)) -> Option<bool> {
        if let Some(problem) = problem() {
            skip(problem);
            return None;
        }
        let mut command = command(Path::new("/"), 0);
        command.args(["sleep", "600"]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        while memory(child.id()).is_none() {
            thread::sleep(INTERVAL);
        }
        let since = Instant::now();
        work(&mut child);
        child.wait().unwrap();
        stderr.read_to_end(&mut Vec::new()).unwrap();
        Some(since.elapsed() < Duration::from_secs(300))
    }

    #[test]
    fn a_program_ends_with_the_builder() {
        // The kernel sends the same signal when the builder ends.
        let Some(ended) = ends(|child| child.kill().unwrap()) else { return };
        assert!(ended);
    }

    #[test]
    fn a_program_that_takes_too_long_is_killed() {
        let limit = |child: &mut Child| {
            let (peak, killed) = limit(child, Duration::from_millis(50)).unwrap();
            assert_eq!(killed.as_deref(), Some("it took more than 0 s"));
            assert!(peak > 0);
        };
        let Some(ended) = ends(limit) else { return };
        assert!(ended);
    }
}
