//! The release under test: a verified manifest and its artifacts.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use protocol::claims::TimeError;
use protocol::digest;
use protocol::manifest::ManifestError;
use protocol::release::ReleaseError;
use protocol::release::document as kind;
use protocol::token::{self, TOKEN_MAX, TokenError};
use protocol::url::{UrlError, artifact_url};
use protocol::{Claims, KeyRing, Manifest, Release, Role, Target, Verified};

use crate::cdn::Served;
use crate::sector_size::SectorSize;

/// The origin of the CDN, for the resolution of URLs. It is removed again afterwards.
const ORIGIN: &str = "http://cdn/";

/// A failed verification of a release.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The manifest is not a token that is signed by a trusted key.
    #[error("cannot verify the manifest {}: {source}", path.display())]
    Token {
        /// The manifest.
        path: PathBuf,
        /// The problem.
        source: TokenError,
    },
    /// The token does not contain a valid manifest.
    #[error("invalid manifest {}: {source}", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// The problem.
        source: ManifestError,
    },
    /// The manifest has expired or is not valid yet.
    #[error("the manifest {} is not valid now: {source}", path.display())]
    Time {
        /// The manifest.
        path: PathBuf,
        /// The problem.
        source: TimeError,
    },
    /// The manifest is for another target.
    #[error("the manifest {} is for {found}, not for {expected}", path.display())]
    Target {
        /// The manifest.
        path: PathBuf,
        /// The requested target.
        expected: Target,
        /// The target of the manifest.
        found: Target,
    },
    /// The release has no artifact of a required role.
    #[error(transparent)]
    Missing(#[from] ReleaseError),
    /// The updater would refuse to download an artifact from the manifest's CDN.
    #[error("the updater would refuse to download the {role}: {source}")]
    Url {
        /// The role of the artifact.
        role: Role,
        /// The problem.
        source: UrlError,
    },
    /// The size or digest of an artifact differs from the manifest.
    #[error(
        "{} does not match the manifest: expected {expected}, found {found}; package the release again",
        path.display()
    )]
    Content {
        /// The artifact.
        path: PathBuf,
        /// The size and digest in the manifest.
        expected: String,
        /// The size and digest of the file.
        found: String,
    },
    /// The release has no document of a required kind.
    #[error("the release has no document of the kind {0:?}; build it with a newer builder")]
    MissingDocument(&'static str),
    /// The release has no disk image for disks with sectors of 4096 bytes.
    #[error(
        "the release has no disk image for sectors of 4096 bytes; build it with \"disk4k: true\" in the variant or in a drop-in"
    )]
    MissingDisk4k,
}

/// A release whose manifest and artifacts are verified.
#[derive(Debug)]
pub(crate) struct Artifacts {
    /// The release in the manifest.
    pub release: Release,
    /// The compressed disk image for the sectors of the machine.
    pub disk: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initrd.
    pub initrd: PathBuf,
    /// The files for the CDN, and their paths there.
    pub served: Vec<Served>,
}

/// The disk image of a release that is published already.
#[derive(Debug)]
pub(crate) struct Previous {
    /// The release in the manifest.
    pub release: Release,
    /// The disk image.
    pub disk: PathBuf,
}

/// Verifies the manifest of `target` in `dir` and the disk image that it names for `sector_size`. The
/// manifest may have expired.
pub(crate) fn verify_previous(
    dir: &Path,
    target: &Target,
    keys: &KeyRing,
    sector_size: SectorSize,
) -> Result<Previous, ArtifactError> {
    let path = dir.join(target.manifest_name());
    let manifest: Manifest = parse(&path, read_token(&path, keys)?)?.into_inner();
    let release = check_target(&path, manifest.release, target)?;
    let disk = match sector_size {
        SectorSize::B512 => {
            let disk = release.artifact(Role::Disk);
            let disk = disk.ok_or(ReleaseError::MissingRole(Role::Disk))?;
            let path = dir.join(&disk.name);
            check_content(&path, disk.size, &disk.sha256)?;
            path
        }
        SectorSize::B4096 => disk_4k(dir, &release)?,
    };
    Ok(Previous { release, disk })
}

/// Verifies the manifest of `target` in `dir` with `keys`, and the size and digest of every artifact, and
/// of the disk image for `sector_size`.
pub(crate) fn verify(
    dir: &Path,
    target: &Target,
    keys: &KeyRing,
    sector_size: SectorSize,
) -> Result<Artifacts, ArtifactError> {
    let path = dir.join(target.manifest_name());
    let release = check_target(&path, read_manifest(&path, keys)?.into_inner().release, target)?;
    let mut served = vec![Served { path: target.manifest_name(), file: path }];
    let mut files = [const { PathBuf::new() }; 3];
    for (file, role) in files.iter_mut().zip([Role::Kernel, Role::Initrd, Role::Disk]) {
        let artifact = release.artifact(role).ok_or(ReleaseError::MissingRole(role))?;
        *file = dir.join(&artifact.name);
        check_content(file, artifact.size, &artifact.sha256)?;
        served.push(Served { path: cdn_path(target, role, &artifact.url)?, file: file.clone() });
        for delta in &artifact.deltas {
            let file = dir.join(&delta.name);
            // A copy of a release may lack its deltas. Hosts then download the whole files.
            if file.exists() {
                check_content(&file, delta.size, &delta.sha256)?;
                served.push(Served { path: cdn_path(target, role, &delta.url)?, file });
            }
        }
    }
    let [kernel, initrd, disk] = files;
    let disk = match sector_size {
        SectorSize::B512 => disk,
        SectorSize::B4096 => disk_4k(dir, &release)?,
    };
    Ok(Artifacts { release, disk, kernel, initrd, served })
}

fn check_target(path: &Path, release: Release, target: &Target) -> Result<Release, ArtifactError> {
    if release.target() != *target {
        let (expected, found) = (target.clone(), release.target());
        return Err(ArtifactError::Target { path: path.into(), expected, found });
    }
    Ok(release)
}

/// Returns the path of the disk image for disks with sectors of 4096 bytes.
fn disk_4k(dir: &Path, release: &Release) -> Result<PathBuf, ArtifactError> {
    document(dir, release, kind::DISK_4K).map_err(|error| match error {
        ArtifactError::MissingDocument(_) => ArtifactError::MissingDisk4k,
        error => error,
    })
}

/// Returns the path of a document of `release` in `dir`, after a check of its size and digest.
pub(crate) fn document(
    dir: &Path,
    release: &Release,
    kind: &'static str,
) -> Result<PathBuf, ArtifactError> {
    let document = release.document(kind).ok_or(ArtifactError::MissingDocument(kind))?;
    let path = dir.join(&document.name);
    check_content(&path, document.size, &document.sha256)?;
    Ok(path)
}

fn read_manifest(path: &Path, keys: &KeyRing) -> Result<Verified<Manifest>, ArtifactError> {
    let token = read_token(path, keys)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    token.check_time(now).map_err(|source| ArtifactError::Time { path: path.into(), source })?;
    parse(path, token)
}

fn read_token(path: &Path, keys: &KeyRing) -> Result<Verified<Claims>, ArtifactError> {
    let file_error = |source| ArtifactError::File { path: path.into(), source };
    let mut text = String::new();
    // One byte above the limit, so that the verification rejects a larger file.
    let limit = TOKEN_MAX as u64 + 1;
    let file = File::open(path).map_err(file_error)?;
    file.take(limit).read_to_string(&mut text).map_err(file_error)?;
    token::verify(&text, keys).map_err(|source| ArtifactError::Token { path: path.into(), source })
}

fn parse(path: &Path, token: Verified<Claims>) -> Result<Verified<Manifest>, ArtifactError> {
    token.try_into().map_err(|source| ArtifactError::Manifest { path: path.into(), source })
}

/// Returns the path on the CDN at which the updater looks for a file. `url` is its URL in the manifest, and `role` that
/// of its artifact.
pub(crate) fn cdn_path(target: &Target, role: Role, url: &str) -> Result<String, ArtifactError> {
    let manifest = format!("{ORIGIN}{}", target.manifest_name());
    let refused = |source| ArtifactError::Url { role, source };
    let url = artifact_url(&manifest, url, &[]).map_err(refused)?;
    Ok(url.strip_prefix(ORIGIN).unwrap_or(&url).to_owned())
}

/// Checks the size and the digest of a file.
fn check_content(path: &Path, expected_size: u64, digest: &str) -> Result<(), ArtifactError> {
    let file_error = |source| ArtifactError::File { path: path.into(), source };
    let size = fs::metadata(path).map_err(file_error)?.len();
    let expected = format!("{expected_size} bytes, SHA-256 {digest}");
    if size != expected_size {
        let found = format!("{size} bytes");
        return Err(ArtifactError::Content { path: path.into(), expected, found });
    }
    let (_, sha256) = measure(path).map_err(file_error)?;
    if sha256 != digest {
        let found = format!("{size} bytes, SHA-256 {sha256}");
        return Err(ArtifactError::Content { path: path.into(), expected, found });
    }
    Ok(())
}

/// Returns the size and the SHA-256 of a file.
///
/// # Errors
/// Fails if the file cannot be read.
pub(crate) fn measure(path: &Path) -> io::Result<(u64, String)> {
    digest::of_reader(File::open(path)?)
}

#[cfg(test)]
pub(crate) mod tests;
