//! An earlier release: its files, and the updater that hosts with this release apply deltas with.

use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use protocol::release::{DeltaFile, PublishedFile};
use protocol::{Arch, Artifact, Release, Role};
use tempfile::TempDir;

use crate::delta::file_of_initrd;
use crate::image::digest;
use crate::publish::site::Site;
use crate::published;

/// The path of the updater in the SquashFS of `/usr`.
const UPDATER: &str = "/bin/etchaos-updater";
/// The memory that the updater may take, as on a small host. zstd reserves more address space than that for
/// a kernel, so the resident memory counts.
const MEMORY: u64 = 1 << 30;
/// The time between two looks at the memory.
const INTERVAL: Duration = Duration::from_millis(10);

/// An earlier release at a site.
pub(super) struct Earlier<'a> {
    site: &'a Site,
    pub(super) release: Release,
    directory: TempDir,
}

impl<'a> Earlier<'a> {
    /// Returns a release whose files are fetched to `directory` when they are needed.
    pub(super) fn new(site: &'a Site, release: Release, directory: &Path) -> Result<Self> {
        let directory =
            tempfile::tempdir_in(directory).context("creating a temporary directory")?;
        Ok(Self { site, release, directory })
    }

    /// Returns the path of an artifact. Fetches it if it was not fetched yet.
    pub(super) fn file(&self, artifact: &Artifact) -> Result<PathBuf> {
        let to = self.directory.path().join(&artifact.name);
        if !to.exists() {
            let Artifact { name, size, sha256, url, .. } = artifact;
            let file = PublishedFile { name, size: *size, sha256, url };
            // A damaged file must not be used, nor be in the way of another one.
            let partial = tempfile::tempdir_in(self.directory.path())?;
            let path = partial.path().join(name);
            let fetched = published::fetch(self.site.location(), url, file, &path);
            fetched.context("fetching the old file")?;
            fs::rename(&path, &to).context("keeping the old file")?;
        }
        Ok(to)
    }

    /// Applies a delta with the updater that is in this release, and compares the result with the new artifact.
    /// Does nothing if the release has no updater, or one for another architecture.
    ///
    /// # Errors
    /// Fails if that updater does not know deltas, or does not give the new file.
    pub(super) fn check(
        &self,
        delta: &DeltaFile,
        path: &Path,
        old: &Artifact,
        new: &Artifact,
    ) -> Result<()> {
        let Some(updater) = self.updater()? else { return Ok(()) };
        let to = self.directory.path().join("result");
        let memory = delta.memory;
        let mut command = Command::new(&updater);
        command.env_clear().arg("apply-delta").arg(path).arg(self.file(old)?).arg(&to);
        command.arg(format!("--memory={memory}")).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().context("starting the updater")?;
        let peak = limit_memory(&mut child)?;
        let mut text = String::new();
        child
            .stderr
            .take()
            .context("the updater has no standard error")?
            .read_to_string(&mut text)?;
        ensure!(
            child.wait()?.success(),
            "the updater of build {} cannot apply it within {MEMORY} bytes of memory, of which it took {peak}: {}",
            self.release.build,
            text.lines().last().unwrap_or("it was killed")
        );
        let (_, sha256) = digest::of_file(&to)?;
        fs::remove_file(&to)?;
        ensure!(
            sha256 == new.sha256,
            "the updater of build {} makes a file with the SHA-256 {sha256} of it, expected {}",
            self.release.build,
            new.sha256
        );
        Ok(())
    }

    /// Returns the path of the updater, if this machine can run it.
    fn updater(&self) -> Result<Option<PathBuf>> {
        let Some(initrd) = self.release.artifact(Role::Initrd) else { return Ok(None) };
        if Arch::native() != Some(self.release.arch) {
            return Ok(None);
        }
        let path = self.directory.path().join("updater");
        if !path.exists() {
            let initrd = fs::read(self.file(initrd)?)?;
            let Some(program) = file_of_initrd(&initrd, UPDATER)? else { return Ok(None) };
            fs::write(&path, program)?;
            fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        }
        Ok(Some(path))
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
