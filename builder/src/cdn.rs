//! The directory that releases are published in. A web server serves it, or a copy of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use protocol::token::{TOKEN_MAX, verify};
use protocol::{Artifact, KeyRing, Manifest, Target, Verified};

use crate::command::Tool;
use crate::image::digest;
use crate::log_file::LogFile;
use crate::partial_file::PartialFile;

/// A directory of manifests and artifacts.
#[derive(Debug, Clone)]
pub(crate) struct Cdn(PathBuf);

impl Cdn {
    /// Opens the directory, and creates it if it does not exist.
    pub(crate) fn open(directory: &Path) -> Result<Self> {
        ensure!(
            !directory.to_string_lossy().contains("://"),
            "the CDN {} is a URL, expected a directory; serve or copy the directory after the build",
            directory.display()
        );
        fs::create_dir_all(directory).with_context(|| {
            format!(
                "creating the CDN directory {}; choose a writable directory with --cdn",
                directory.display()
            )
        })?;
        Ok(Self(directory.to_owned()))
    }

    /// Returns the published manifest of a target, if there is one.
    ///
    /// # Errors
    /// Fails if its signature is not valid: either it was tampered with, or the key was changed
    /// and `--trusted-key` does not name the old one.
    pub(crate) fn manifest(
        &self,
        target: &Target,
        trusted: &KeyRing,
    ) -> Result<Option<Verified<Manifest>>> {
        let path = self.0.join(target.manifest_name());
        let failed = || format!("reading the published manifest {}", path.display());
        let size = match path.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata.with_context(failed)?.len(),
        };
        ensure!(
            size <= TOKEN_MAX as u64,
            "{} has {size} bytes, expected at most {TOKEN_MAX} for a manifest",
            path.display()
        );
        let text = fs::read_to_string(&path).with_context(failed)?;
        let claims = verify(&text, trusted).with_context(|| {
            format!(
                "the published manifest {} is not trusted; after a change of keys, name the old \
                 key with --trusted-key",
                path.display()
            )
        })?;
        Ok(Some(claims.try_into().with_context(failed)?))
    }

    /// Copies an artifact into the directory and verifies the copy.
    pub(crate) fn upload(&self, from: &Path, artifact: &Artifact, log: &mut LogFile) -> Result<()> {
        let to = self.0.join(&artifact.url);
        self.place(from, &to, log)?;
        let (size, sha256) = digest::of_file(&to)?;
        ensure!(
            size == artifact.size && sha256 == artifact.sha256,
            "{} reads back as {size} bytes with SHA-256 {sha256}, expected {} bytes with {}; is the \
             disk full or faulty?",
            to.display(),
            artifact.size,
            artifact.sha256
        );
        Ok(())
    }

    /// Copies the manifest into the directory, which makes the release visible to hosts.
    pub(crate) fn publish(
        &self,
        manifest: &Path,
        target: &Target,
        log: &mut LogFile,
    ) -> Result<()> {
        self.place(manifest, &self.0.join(target.manifest_name()), log)
    }

    /// Replaces a file; readers see the old file or the new one. Runs of zeros become holes, because
    /// disk images are mostly empty.
    fn place(&self, from: &Path, to: &Path, log: &mut LogFile) -> Result<()> {
        let failed = || format!("writing {}", to.display());
        let mut partial = PartialFile::create(to)?;
        Tool::new("cp")
            .args(["--sparse=always", "--"])
            .args([from, partial.path()])
            .run(log)
            .with_context(failed)?;
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        partial.file().set_permissions(readable).with_context(failed)?;
        partial.persist()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::skip;
    use crate::progress::Bar;
    use protocol::Role;

    #[test]
    fn upload_verifies_the_copy() {
        if !nix::unistd::geteuid().is_root() {
            return skip("the command runner needs root");
        }
        let directory = tempfile::tempdir().unwrap();
        let cdn = Cdn::open(&directory.path().join("cdn")).unwrap();
        let file = directory.path().join("x");
        // Disk images end with a hole.
        fs::write(&file, [vec![7; 10], vec![0; 3 << 20]].concat()).unwrap();
        let (size, sha256) = digest::of_file(&file).unwrap();
        let name = "x.raw".to_owned();
        let mut artifact = Artifact { role: Role::Disk, url: name.clone(), name, size, sha256 };
        let mut log = LogFile::create(&directory.path().join("log"), Bar::start("test")).unwrap();
        cdn.upload(&file, &artifact, &mut log).unwrap();
        artifact.size += 1;
        let error = cdn.upload(&file, &artifact, &mut log).unwrap_err().to_string();
        assert!(error.contains("reads back"), "{error}");
    }

    #[test]
    fn rejects_manifest_of_unknown_key_with_hint() {
        let directory = tempfile::tempdir().unwrap();
        let cdn = Cdn::open(directory.path()).unwrap();
        let target: Target = "deb_amd64".parse().unwrap();
        let (ours, unknown) = (protocol::PrivateKey::generate(), protocol::PrivateKey::generate());
        let ring: KeyRing = ours.public().clone().into();
        assert!(cdn.manifest(&target, &ring).unwrap().is_none());
        let token = protocol::token::sign(&unknown, &protocol::Claims::default()).unwrap();
        fs::write(directory.path().join(target.manifest_name()), token).unwrap();
        let error = format!("{:#}", cdn.manifest(&target, &ring).unwrap_err());
        assert!(error.contains("--trusted-key") && error.contains(unknown.id()), "{error}");
    }
}
