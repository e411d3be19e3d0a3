//! The updater of an earlier release, which has to apply deltas on hosts.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use protocol::release::DeltaFile;
use protocol::{Artifact, digest};

use super::confined::{MEMORY, Root};
use crate::image;

/// The name of the updater in its root directory.
const NAME: &str = "updater";
/// The exit codes of `unshare` if it cannot start a program, as those of shells.
const NOT_STARTED: [i32; 2] = [126, 127];

/// An updater.
#[derive(Debug)]
pub(super) struct Updater {
    path: PathBuf,
    pub(super) sha256: String,
    /// The build of its release.
    build: u64,
    /// Whether it can apply deltas.
    pub(super) supports_deltas: bool,
}

impl Updater {
    /// Writes the program to `path`.
    ///
    /// # Errors
    /// Fails if the program cannot be started.
    pub(super) fn write(path: &Path, program: &[u8], build: u64) -> Result<Self> {
        fs::write(path, program).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(path, Permissions::from_mode(0o755))?;
        let (path, sha256) = (path.to_owned(), digest::of_bytes(program));
        let updater = Self { path, sha256, build, supports_deltas: false };
        let program = format!("/{NAME}");
        let ended = updater.root()?.run(&[&program, "apply-delta", "--help"], 0)?;
        if ended.status.code().is_some_and(|code| NOT_STARTED.contains(&code)) {
            bail!("starting the updater of build {build}: {}", ended.message);
        }
        Ok(Self { supports_deltas: ended.status.success(), ..updater })
    }

    /// Applies a delta to the file `old`, and compares the result with the new artifact.
    ///
    /// # Errors
    /// Fails if the updater does not make the new file.
    pub(super) fn check(
        &self,
        delta: &DeltaFile,
        path: &Path,
        old: &Path,
        new: &Artifact,
    ) -> Result<()> {
        let root = self.root()?;
        root.add(path, "delta")?;
        root.add(old, "old")?;
        let result = root.add_writable("new")?;
        let (program, memory) = (format!("/{NAME}"), format!("--memory={}", delta.memory));
        let arguments = [&program, "apply-delta", "/delta", "/old", "/new", &memory];
        let ended = root.run(&arguments, new.size)?;
        let (build, peak) = (self.build, ended.peak);
        ensure!(
            ended.status.success(),
            "the updater of build {build} failed to apply the delta: {} (it took {peak} of at most {MEMORY} bytes of \
             memory)",
            ended.message
        );
        // Without root, the program can put something else in its place, such as a pipe.
        ensure!(
            result.symlink_metadata()?.is_file(),
            "the updater of build {build} did not leave a regular file as its result"
        );
        let (_, sha256) = image::digest::of_file(&result)?;
        let expected = &new.sha256;
        ensure!(
            sha256 == *expected,
            "the updater of build {build} makes a file with the SHA-256 {sha256}, expected {expected}"
        );
        Ok(())
    }

    /// Returns a root directory with the program.
    fn root(&self) -> Result<Root> {
        let root = Root::create(self.path.parent().context("the updater has no directory")?)?;
        root.add(&self.path, NAME)?;
        Ok(root)
    }
}
