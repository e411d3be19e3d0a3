//! A release that was built, in a local directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use protocol::token::{TOKEN_MAX, verify};
use protocol::{Arch, Claims, KeyRing, Manifest, Release, Target, Verified, digest};

use crate::image;
use crate::published::in_parallel;

/// Returns the arguments that name a target on the command line: `deb`, or `deb --arch arm64` if that is not the
/// architecture of this machine.
pub(crate) fn arguments(target: &Target) -> String {
    let Target { variant, arch } = target;
    match Arch::native() {
        Some(native) if native == *arch => variant.to_string(),
        _ => format!("{variant} --arch {arch}"),
    }
}

/// A signed manifest and its files, in the artifacts directory. The files match the manifest.
#[derive(Debug)]
pub(crate) struct Packaged {
    manifest: Verified<Manifest>,
    /// The directory of the files.
    pub directory: PathBuf,
}

impl Packaged {
    /// Writes a manifest whose files have just been measured.
    pub(crate) fn write(directory: &Path, manifest: &str, trusted: &KeyRing) -> Result<Self> {
        let manifest_of =
            |text: &str| -> Result<Verified<Manifest>> { Ok(verify(text, trusted)?.try_into()?) };
        let verified = manifest_of(manifest)?;
        let path = directory.join(verified.release.target().manifest_name());
        fs::write(&path, manifest).with_context(|| format!("writing {}", path.display()))?;
        Ok(Self { manifest: verified, directory: directory.to_owned() })
    }

    /// Reads a manifest, and verifies it and its files.
    ///
    /// # Errors
    /// Fails if the directory has no release of the target, or if a file does not match.
    pub(crate) fn load(directory: &Path, target: &Target, trusted: &KeyRing) -> Result<Self> {
        let path = directory.join(target.manifest_name());
        let failed = || {
            format!(
                "reading the release in {}; \"builder build {}\" makes one",
                path.display(),
                arguments(target)
            )
        };
        let size = path.metadata().with_context(failed)?.len();
        ensure!(size <= TOKEN_MAX as u64, "{} has more than {TOKEN_MAX} bytes", path.display());
        let text = fs::read_to_string(&path).with_context(failed)?;
        let manifest: Verified<Manifest> =
            verify(&text, trusted).with_context(failed)?.try_into().with_context(failed)?;
        let found = manifest.release.target();
        ensure!(found == *target, "{} is for {found}, expected {target}", path.display());
        let packaged = Self { manifest, directory: directory.to_owned() };
        packaged.check_files()?;
        Ok(packaged)
    }

    /// Returns the release.
    pub(crate) fn release(&self) -> &Release {
        &self.manifest.release
    }

    /// Returns the claims of the manifest.
    pub(crate) fn claims(&self) -> &Claims {
        &self.manifest.claims
    }

    /// Returns a digest of all files, which identifies the content.
    pub(crate) fn content(&self) -> String {
        let lines: String = self
            .release()
            .files()
            .map(|file| format!("{} {} {}\n", file.name, file.size, file.sha256))
            .collect();
        digest::of_bytes(lines.as_bytes())
    }

    fn check_files(&self) -> Result<()> {
        let files: Vec<_> = self.release().all_files().collect();
        in_parallel(&files, |file| {
            let path = self.directory.join(file.name);
            let (size, sha256) = image::digest::of_file(&path)?;
            ensure!(
                size == file.size && sha256 == file.sha256,
                "{} has {size} bytes and the SHA-256 {sha256}, but the manifest says {} bytes and {}; \
                 build the release again",
                path.display(),
                file.size,
                file.sha256
            );
            Ok(())
        })?;
        Ok(())
    }
}
