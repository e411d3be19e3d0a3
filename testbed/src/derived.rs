//! Other releases, made from the one that is tested: newer ones to update to, and broken ones.
//!
//! The kernel unpacks what is concatenated (kernel document
//! `driver-api/early-userspace/buffer-format.rst`), so an initrd gets other files by a small archive
//! at its end, and a release in seconds.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cpio::newc::{Builder, ModeFileType, trailer};
use protocol::token::{self, TokenError};
use protocol::{Artifact, Claims, PrivateKey, Release, Role};

use crate::artifacts::{Artifacts, measure};
use crate::cdn::Served;

/// How long a manifest is valid: longer than any scenario takes.
const VALID: Duration = Duration::from_secs(86_400);
/// Archives within an initrd begin at multiples of this.
const ALIGNMENT: usize = 4;
/// Where the file is that a derived release says its build in, below the root of the running system.
pub const MARKER: &str = "etc/etchaos-testbed-build";
/// Where the root's skeleton is in the initrd.
const SKELETON: &str = "sysroot";

/// A release that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DeriveError {
    /// A file.
    #[error("cannot {doing} {} for a derived release: {source}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The manifest could not be signed.
    #[error("cannot sign the manifest of a derived release: {0}")]
    Sign(#[from] TokenError),
}

/// A file that is added to the initrd, or replaces one in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// Its path in the initrd, without a leading slash; its folder must be there. What is below
    /// `sysroot` comes into the running system, but not below `sysroot/usr`.
    pub path: String,
    /// What it is.
    pub content: Content,
}

/// What an [`Extra`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file with these bytes and this mode (`0o644`).
    File(Vec<u8>, u32),
    /// A symbolic link to this.
    Link(String),
    /// A folder with this mode.
    Folder(u32),
}

impl Extra {
    /// A file of the running system; `path` is below its root and not below `usr`.
    pub fn file(path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        let content = Content::File(bytes.into(), mode);
        Self { path: format!("{SKELETON}/{path}"), content }
    }

    /// A symbolic link of the running system.
    pub fn link(path: &str, to: &str) -> Self {
        Self { path: format!("{SKELETON}/{path}"), content: Content::Link(to.to_owned()) }
    }
}

/// In what a release differs from the one that it is made of, besides its build.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Files that are laid over the initrd's.
    pub extra: Vec<Extra>,
    /// Another kernel: these bytes, whether they boot or not.
    pub kernel: Option<Vec<u8>>,
    /// The initrd ends after this many bytes.
    pub initrd_bytes: Option<u64>,
}

/// A release that was made of another one.
#[derive(Debug)]
pub struct Derived {
    /// What its manifest says.
    pub release: Release,
    /// Its manifest. It is not served before it is published: see [`Derived::publish`].
    manifest: PathBuf,
    /// Its kernel and initrd, and where a CDN serves them.
    pub served: Vec<Served>,
}

impl Derived {
    /// Makes it what a host is offered: the manifest replaces the one at `place`, which is served.
    pub fn publish(&self, place: &Path) -> Result<(), DeriveError> {
        // A host may be reading it: it gets the old or the new one.
        let next = place.with_extension("next");
        let copied = fs::copy(&self.manifest, &next).and_then(|_| fs::rename(&next, place));
        copied.map_err(failed("publish", place))
    }

    /// The path under which a CDN serves the artifact with this role.
    pub fn place(&self, role: Role) -> String {
        self.release.artifact(role).map_or(String::new(), |artifact| artifact.url.clone())
    }
}

/// Makes a release of `base`: with another build, so that a host takes it for another release, with
/// [`MARKER`], and with `changes`. Its manifest is signed by `key`, and its files are in a new folder
/// within `dir`.
///
/// The version stays what it was: os-release says it, and that is in `/usr`.
pub fn derive(
    base: &Artifacts,
    build: u64,
    changes: &Changes,
    key: &PrivateKey,
    dir: &Path,
) -> Result<Derived, DeriveError> {
    let dir = dir.join(format!("release-{build}"));
    fs::create_dir(&dir).map_err(failed("make the folder", &dir))?;
    let (kernel, initrd) = (dir.join("vmlinuz"), dir.join("initrd"));
    match &changes.kernel {
        Some(bytes) => fs::write(&kernel, bytes),
        None => fs::copy(&base.kernel, &kernel).map(drop),
    }
    .map_err(failed("write", &kernel))?;
    let marker = Extra::file(MARKER, 0o644, format!("{build}\n"));
    let extra: Vec<Extra> = [marker].into_iter().chain(changes.extra.clone()).collect();
    make_initrd(&base.initrd, &extra, changes.initrd_bytes, &initrd)
        .map_err(failed("write", &initrd))?;

    let mut release = Release { build, artifacts: Vec::new(), ..base.release.clone() };
    let mut served = Vec::new();
    for (role, file) in [(Role::Kernel, kernel), (Role::Initrd, initrd)] {
        let (size, sha256) = measure(&file).map_err(failed("read", &file))?;
        let name = release.target().artifact_name(role);
        let url = format!("{build}/{name}");
        served.push(Served { path: url.clone(), file });
        release.artifacts.push(Artifact { role, name, size, sha256, url });
    }
    let manifest = dir.join("release.jwt");
    let token = token::sign(key, &claims(release.clone()))?;
    fs::write(&manifest, token).map_err(failed("write", &manifest))?;
    Ok(Derived { release, manifest, served })
}

fn claims(release: Release) -> Claims {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Claims {
        iat: Some(now),
        exp: Some(now + VALID.as_secs()),
        etchaos_release: Some(release),
        ..Claims::default()
    }
}

fn make_initrd(base: &Path, extra: &[Extra], end: Option<u64>, to: &Path) -> io::Result<()> {
    fs::copy(base, to)?;
    let mut file = File::options().append(true).open(to)?;
    let unaligned = file.metadata()?.len() as usize % ALIGNMENT;
    file.write_all(&[0; ALIGNMENT][..(ALIGNMENT - unaligned) % ALIGNMENT])?;
    file.write_all(&archive(extra)?)?;
    match end {
        Some(end) => file.set_len(end),
        None => Ok(()),
    }
}

/// A cpio archive in the format "newc".
fn archive(extra: &[Extra]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for (number, Extra { path, content }) in extra.iter().enumerate() {
        let (kind, mode, content) = match content {
            Content::File(bytes, mode) => (ModeFileType::Regular, *mode, bytes.as_slice()),
            Content::Link(to) => (ModeFileType::Symlink, 0o777, to.as_bytes()),
            Content::Folder(mode) => (ModeFileType::Directory, *mode, [].as_slice()),
        };
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let inode = u32::try_from(number + 1).map_err(io::Error::other)?;
        let header = Builder::new(path).ino(inode).nlink(1).mode(mode).set_mode_file_type(kind);
        let mut writer = header.write(&mut bytes, size);
        writer.write_all(content)?;
        writer.finish()?;
    }
    trailer(bytes)
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DeriveError + use<> {
    let path = path.to_owned();
    move |source| DeriveError::File { doing, path, source }
}
