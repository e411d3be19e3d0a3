//! The updater of an earlier release, which has to apply deltas on hosts.

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use protocol::release::DeltaFile;
use protocol::{Artifact, digest};

use crate::image;

/// The memory that the updater may take, as on a small host. zstd reserves more address space than that for
/// a kernel, so the resident memory counts.
const MEMORY: u64 = 1 << 30;
/// The time between two looks at the memory.
const INTERVAL: Duration = Duration::from_millis(10);

/// An updater.
#[derive(Debug)]
pub(super) struct Updater {
    path: PathBuf,
    pub(super) sha256: String,
    /// The build of its release.
    build: u64,
    /// Whether it can apply deltas.
    pub(super) knows_deltas: bool,
}

impl Updater {
    /// Writes the program to `path`.
    pub(super) fn write(path: &Path, program: &[u8], build: u64) -> Result<Self> {
        fs::write(path, program).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(path, Permissions::from_mode(0o755))?;
        let mut help = Command::new(path);
        help.env_clear().args(["apply-delta", "--help"]).stdin(Stdio::null());
        let output = help.output().context("starting the updater")?;
        let (path, sha256) = (path.to_owned(), digest::of_bytes(program));
        Ok(Self { path, sha256, build, knows_deltas: output.status.success() })
    }

    /// Applies a delta to the file `old`, and compares the result with the new artifact.
    ///
    /// # Errors
    /// Fails if the updater does not give the new file.
    pub(super) fn check(
        &self,
        delta: &DeltaFile,
        path: &Path,
        old: &Path,
        new: &Artifact,
    ) -> Result<()> {
        let result =
            tempfile::NamedTempFile::new_in(old.parent().context("a file has no directory")?)?;
        let memory = delta.memory;
        let mut command = Command::new(&self.path);
        command.env_clear().arg("apply-delta").arg(path).arg(old).arg(result.path());
        command.arg(format!("--memory={memory}")).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().context("starting the updater")?;
        let peak = limit_memory(&mut child)?;
        let mut text = String::new();
        let mut stderr = child.stderr.take().context("the updater has no standard error")?;
        stderr.read_to_string(&mut text)?;
        let build = self.build;
        ensure!(
            child.wait()?.success(),
            "the updater of build {build} cannot apply it within {MEMORY} bytes of memory, of which it took {peak}: {}",
            text.lines().last().unwrap_or("it was killed")
        );
        let (_, sha256) = image::digest::of_file(result.path())?;
        let expected = &new.sha256;
        ensure!(
            sha256 == *expected,
            "the updater of build {build} makes a file with the SHA-256 {sha256} of it, expected {expected}"
        );
        Ok(())
    }
}

/// Waits for the end of a process, and kills it if it takes more than [`MEMORY`]. Returns the peak of its
/// resident memory in bytes.
fn limit_memory(child: &mut Child) -> Result<u64> {
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait()?.is_none() {
        // proc_pid_status(5): the peak of the resident set, in KiB.
        let text = fs::read_to_string(&path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(kib.unwrap_or(0_u64) * 1024);
        if peak > MEMORY {
            child.kill()?;
        }
        thread::sleep(INTERVAL);
    }
    Ok(peak)
}
