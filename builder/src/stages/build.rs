//! The inputs of a build, which all stages share.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use protocol::{PublicKey, Target};
use rustix::io::Errno;

use crate::cache::Cache;
use crate::lock::lock_or_wait;
use crate::mirror::Mirror;
use crate::proxy::Proxies;
use crate::publish::deltas::Predecessors;
use crate::sandbox::Engine;
use crate::signing::Signing;
use crate::variant::VariantFile;

/// The name of the lock in the artifacts directory.
pub(super) const LOCK: &str = "lock";

/// The name of the lock of the builders that publish, in the directory of the cache.
const PUBLISH_LOCK: &str = "publish.lock";

/// The inputs of a build.
#[derive(Debug)]
pub(crate) struct Build<'a> {
    /// The target to build.
    pub target: Target,
    /// The description of the variant.
    pub variant: VariantFile,
    /// The directory with the files of EtchaOS that are copied into images.
    pub variants: PathBuf,
    /// This workspace, which contains the updater's source.
    pub workspace: PathBuf,
    /// The directories that the build writes to.
    pub directories: &'a Directories,
    /// Results of earlier builds.
    pub cache: Cache,
    /// Signs the manifests.
    pub signing: &'a Signing,
    /// The keys that the image trusts.
    pub image_keys: &'a [PublicKey],
    /// The manifest inside a disk image that is built again. If its claims are the same, its signature
    /// is used; absent if the manifest is signed with `signing`.
    pub image_manifest: Option<&'a str>,
    /// The kind of sandbox.
    pub engine: Engine,
    /// The URL of the distribution's mirror; the bootstrap tool's default if absent.
    pub mirror: Option<Mirror>,
    /// Whether to build from a mirror that has no security archive.
    pub without_security: bool,
    /// The proxies of the build host.
    pub proxies: Proxies,
    /// The newest build number that is published. The release gets a higher one.
    pub newest: u64,
    /// The release that is published, from which the test updates by deltas; absent if none is to be made.
    pub predecessors: Option<Predecessors<'a>>,
    /// A file with the updater's configuration in the image.
    pub host_config: Option<PathBuf>,
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

    /// Creates the work directory again, without the files of the previous build.
    ///
    /// Nothing is mounted there: mounts end with their namespace. Files in it do not inherit a group, a
    /// set-group-ID bit or an ACL, which the output directory may have and which would reach the image.
    pub(crate) fn create_work(&self) -> Result<()> {
        let failed = || format!("creating {}", self.work.display());
        fs::create_dir(&self.work).with_context(failed)?;
        for acl in ["system.posix_acl_default", "system.posix_acl_access"] {
            match rustix::fs::removexattr(&self.work, acl) {
                Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
                Err(error) => return Err(error).with_context(failed),
            }
        }
        chown(&self.work, Some(0), Some(0)).with_context(failed)?;
        fs::set_permissions(&self.work, Permissions::from_mode(0o755)).with_context(failed)
    }

    /// Locks the directories; the lock is held until the returned file is closed.
    ///
    /// # Errors
    /// Fails if another build holds the lock.
    pub(crate) fn lock(&self) -> Result<File> {
        let path = self.artifacts.join(LOCK);
        let lock = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        lock.try_lock().with_context(|| {
            format!(
                "another build uses {}; wait until it ends, or choose another directory with --out",
                self.artifacts.display()
            )
        })?;
        Ok(lock)
    }

    /// Waits until no other target of the output directory is being published; the next one waits until the
    /// returned file is closed. Calls `wait` if it has to wait.
    ///
    /// A destination refuses a second publisher. Targets that are built side by side publish one after the other
    /// instead.
    pub(crate) fn turn_to_publish(&self, wait: impl FnOnce()) -> Result<File> {
        lock_or_wait(&self.cache.join(PUBLISH_LOCK), wait)
    }
}

/// The result of a stage, in one line for display.
pub(crate) trait Describe {
    /// Returns the line.
    fn describe(&self) -> String;
}
