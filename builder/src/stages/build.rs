//! The inputs of a build, which all stages share.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use protocol::Target;

use crate::cache::Cache;
use crate::cdn::Cdn;
use crate::sandbox::Engine;
use crate::signing::Signing;
use crate::variant::VariantFile;

/// The inputs of a build.
#[derive(Debug)]
pub(crate) struct Build {
    /// The target to build.
    pub target: Target,
    /// The description of the variant.
    pub variant: VariantFile,
    /// The directory of the variants and of the files that are copied into images.
    pub variants: PathBuf,
    /// This workspace, which contains the updater's source.
    pub workspace: PathBuf,
    /// The directories that the build writes to.
    pub directories: Directories,
    /// Results of earlier builds.
    pub cache: Cache,
    /// The signing key, and the keys that the image trusts.
    pub signing: Signing,
    /// The kind of sandbox.
    pub engine: Engine,
    /// The URL of the distribution's mirror; the bootstrap tool's default if absent.
    pub mirror: Option<String>,
    /// The directory that releases are published in.
    pub cdn: Cdn,
    /// A file with the updater's configuration in the image.
    pub host_config: Option<PathBuf>,
    /// The acceleration of the testbed's virtual machines.
    pub accel: testbed::AccelPreference,
}

/// The directories of a build, below the output directory.
#[derive(Debug)]
pub(crate) struct Directories {
    /// Downloads and results of stages, kept between builds.
    pub cache: PathBuf,
    /// The artifacts and the manifest.
    pub artifacts: PathBuf,
    /// One log for each stage.
    pub logs: PathBuf,
    /// Shared with the sandbox; each build empties it.
    pub work: PathBuf,
}

impl Directories {
    /// Creates the directories of a target below `out`.
    pub(crate) fn create(out: &Path, target: &Target) -> Result<Self> {
        let artifacts = out.join(target.to_string());
        let directories = Self {
            cache: out.join("cache"),
            logs: artifacts.join("logs"),
            work: artifacts.join("work"),
            artifacts,
        };
        for directory in [&directories.cache, &directories.logs, &directories.work] {
            fs::create_dir_all(directory)
                .with_context(|| format!("creating {}", directory.display()))?;
        }
        Ok(directories)
    }

    /// Locks the directories; the lock is held until the returned file is closed.
    ///
    /// # Errors
    /// Fails if another build holds the lock.
    pub(crate) fn lock(&self) -> Result<File> {
        let path = self.artifacts.join("lock");
        let lock = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        lock.try_lock().with_context(|| {
            format!(
                "another build uses {}; wait until it ends, or choose another directory with --out",
                self.artifacts.display()
            )
        })?;
        Ok(lock)
    }
}

/// The result of a stage, in one line for display.
pub(super) trait Describe {
    /// Returns the line.
    fn describe(&self) -> String;
}
