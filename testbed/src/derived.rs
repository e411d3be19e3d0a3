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
    /// Its path in the initrd, without a leading slash; its directory must be there. What is below
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
    /// A directory with this mode.
    #[cfg(test)]
    Directory(u32),
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
/// [`MARKER`], and with `changes`. Its manifest is signed by `key`, and its files are in a new directory
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
    fs::create_dir(&dir).map_err(failed("make the directory", &dir))?;
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
            #[cfg(test)]
            Content::Directory(mode) => (ModeFileType::Directory, *mode, [].as_slice()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::tests::{good, verified};
    use std::io::Read;

    /// Name, mode and content of every entry, and how many bytes come after the last one.
    fn entries(mut bytes: &[u8]) -> (Vec<(String, u32, Vec<u8>)>, usize) {
        let mut entries = Vec::new();
        loop {
            let mut entry = cpio::newc::Reader::new(bytes).unwrap();
            if entry.entry().is_trailer() {
                return (entries, entry.finish().unwrap().len());
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let (name, mode) = (entry.entry().name().to_owned(), entry.entry().mode());
            entries.push((name, mode, content));
            bytes = entry.finish().unwrap();
        }
    }

    #[test]
    fn a_derived_release_is_the_same_and_a_little_more() {
        let directory = good(|_| {});
        let base = verified(&directory);
        let extra = vec![
            Extra::file("etc/x", 0o755, "#!/bin/sh\n"),
            Extra::link("etc/y", "x"),
            Extra { path: "z".into(), content: Content::Directory(0o700) },
        ];
        let changes = Changes { extra, ..Changes::default() };
        let key = PrivateKey::generate();
        let dir = directory.0.path();
        let derived = derive(&base, 9, &changes, &key, dir).unwrap();
        let initrd = fs::read(&derived.served[1].file).unwrap();
        let old = fs::read(&base.initrd).unwrap();
        let begin = old.len().next_multiple_of(ALIGNMENT);
        assert!(initrd.starts_with(&old) && initrd[old.len()..begin].iter().all(|b| *b == 0));
        let (found, rest) = entries(&initrd[begin..]);
        let entry = |name: &str, mode, content: &str| (name.to_owned(), mode, content.into());
        assert_eq!(
            found,
            [
                entry("sysroot/etc/etchaos-testbed-build", 0o100_644, "9\n"),
                entry("sysroot/etc/x", 0o100_755, "#!/bin/sh\n"),
                entry("sysroot/etc/y", 0o120_777, "x"),
                entry("z", 0o040_700, ""),
            ]
        );
        assert_eq!(rest, 0);
        assert_eq!(fs::read(&derived.served[0].file).unwrap(), fs::read(&base.kernel).unwrap());

        let place = dir.join("offered.jwt");
        derived.publish(&place).unwrap();
        let claims =
            token::verify(&fs::read_to_string(place).unwrap(), &key.public().clone().into());
        let release = claims.unwrap().into_inner().etchaos_release.unwrap();
        assert_eq!(release, derived.release);
        release.validate().unwrap();
        assert_eq!((release.build, &release.version), (9, &base.release.version));
        for (artifact, served) in release.artifacts.iter().zip(&derived.served) {
            assert_eq!(
                (&artifact.url, &derived.place(artifact.role)),
                (&served.path, &served.path)
            );
            let (size, sha256) = measure(&served.file).unwrap();
            assert_eq!((artifact.size, &artifact.sha256), (size, &sha256));
        }
    }

    #[test]
    fn a_broken_release_is_broken_as_asked_for() {
        let directory = good(|_| {});
        let base = verified(&directory);
        let changes = Changes {
            kernel: Some(b"no kernel".to_vec()),
            initrd_bytes: Some(7),
            ..Changes::default()
        };
        let key = PrivateKey::generate();
        let derived = derive(&base, 2, &changes, &key, directory.0.path()).unwrap();
        assert_eq!(fs::read(&derived.served[0].file).unwrap(), b"no kernel");
        assert_eq!(fs::read(&derived.served[1].file).unwrap(), b"this is");
        assert_eq!(derived.release.artifact(Role::Initrd).unwrap().size, 7);
        // The same build twice is a mistake.
        assert!(derive(&base, 2, &changes, &key, directory.0.path()).is_err());
    }
}
