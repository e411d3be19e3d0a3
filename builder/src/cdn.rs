//! Where releases are published: a directory that a web server, or a copy of it, serves.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use protocol::token::{TOKEN_MAX, verify};
use protocol::{Artifact, KeyRing, Manifest, Target, Verified};
use testbed::disk::copy_blocks;

use crate::image::digest;

/// A directory of manifests and artifacts.
#[derive(Debug, Clone)]
pub struct Cdn(PathBuf);

impl Cdn {
    /// The directory; made if it is not there.
    pub fn open(directory: &Path) -> Result<Self> {
        ensure!(
            !directory.to_string_lossy().contains("://"),
            "the CDN {} is a URL; --cdn takes a directory, which is then served or copied",
            directory.display()
        );
        fs::create_dir_all(directory).with_context(|| {
            format!(
                "cannot reach the CDN {}: name a directory that can be written with --cdn",
                directory.display()
            )
        })?;
        Ok(Self(directory.to_owned()))
    }

    /// The manifest that is published for a target, if any. One that does not verify is an error:
    /// it is either an attack or a forgotten `--trusted-key` after a change of keys.
    pub fn manifest(
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
            "{} has {size} bytes, too many for a manifest",
            path.display()
        );
        let text = fs::read_to_string(&path).with_context(failed)?;
        let claims = verify(&text, trusted).with_context(|| {
            format!(
                "the published manifest {} is not trusted; after a change of keys, name the old one \
                 with --trusted-key",
                path.display()
            )
        })?;
        Ok(Some(claims.try_into().with_context(failed)?))
    }

    /// Puts an artifact there and reads it back.
    pub fn upload(&self, from: &Path, artifact: &Artifact) -> Result<()> {
        let to = self.0.join(&artifact.url);
        self.place(from, &to)?;
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

    /// Puts the manifest there: from now on, hosts see the release.
    pub fn publish(&self, manifest: &Path, target: &Target) -> Result<()> {
        self.place(manifest, &self.0.join(target.manifest_name()))
    }

    /// Readers see the old file or the new one: written under another name, synced, renamed. (On a
    /// FAT file system they might see neither after a power cut; a CDN is none.)
    fn place(&self, from: &Path, to: &Path) -> Result<()> {
        let failed = || format!("writing {}", to.display());
        let mut temporary = tempfile::NamedTempFile::new_in(&self.0).with_context(failed)?;
        let mut source = File::open(from).with_context(|| format!("reading {}", from.display()))?;
        let size = copy_blocks(&mut source, temporary.as_file_mut()).with_context(failed)?;
        temporary.as_file().set_len(size).with_context(failed)?;
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        temporary.as_file().set_permissions(readable).with_context(failed)?;
        temporary.as_file().sync_all().with_context(failed)?;
        temporary.persist(to).with_context(failed)?;
        File::open(&self.0).and_then(|directory| directory.sync_all()).with_context(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Role;

    #[test]
    fn what_was_uploaded_reads_back_or_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let cdn = Cdn::open(&directory.path().join("cdn")).unwrap();
        let file = directory.path().join("x");
        // A hole at the end, as disk images have.
        fs::write(&file, [vec![7; 10], vec![0; 3 << 20]].concat()).unwrap();
        let (size, sha256) = digest::of_file(&file).unwrap();
        let name = "x.raw".to_owned();
        let mut artifact = Artifact { role: Role::Disk, url: name.clone(), name, size, sha256 };
        cdn.upload(&file, &artifact).unwrap();
        artifact.size += 1;
        let error = cdn.upload(&file, &artifact).unwrap_err().to_string();
        assert!(error.contains("reads back"), "{error}");
    }

    #[test]
    fn a_manifest_of_a_stranger_is_an_error_that_names_the_way_out() {
        let directory = tempfile::tempdir().unwrap();
        let cdn = Cdn::open(directory.path()).unwrap();
        let target: Target = "deb_amd64".parse().unwrap();
        let (ours, stranger) = (protocol::PrivateKey::generate(), protocol::PrivateKey::generate());
        let ring: KeyRing = ours.public().clone().into();
        assert!(cdn.manifest(&target, &ring).unwrap().is_none());
        let token = protocol::token::sign(&stranger, &protocol::Claims::default()).unwrap();
        fs::write(directory.path().join(target.manifest_name()), token).unwrap();
        let error = format!("{:#}", cdn.manifest(&target, &ring).unwrap_err());
        assert!(error.contains("--trusted-key") && error.contains(stranger.id()), "{error}");
    }
}
