//! Derives releases from the release under test: newer ones to update to, and faulty ones.
//!
//! The kernel unpacks all archives of an initrd (kernel document
//! `driver-api/early-userspace/buffer-format.rst`), so a small archive at its end adds or replaces files.
//! This takes seconds instead of a build.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::iter;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cpio::newc::{Builder, ModeFileType, trailer};
use protocol::delta::{Codec, Delta, FORMAT, Operation, Recompress, Segment, memory_of};
use protocol::release::DeltaFile;
use protocol::token::{self, TokenError};
use protocol::{Artifact, Claims, PrivateKey, Release, Role};

use crate::artifacts::{Artifacts, measure};
use crate::cdn::Served;

/// The validity of a manifest, which is longer than any scenario.
const VALIDITY: Duration = Duration::from_secs(86_400);
/// The alignment of archives within an initrd.
const ALIGNMENT: usize = 4;
/// The path, below the root of the running system, of the file with the build of a derived release.
pub(crate) const MARKER: &str = "etc/etchaos-testbed-build";
/// The directory in the initrd that is copied to the root of the running system.
const SKELETON: &str = "sysroot";

/// A failed derivation of a release.
#[derive(Debug, thiserror::Error)]
pub enum DeriveError {
    /// A file operation failed.
    #[error("cannot {doing} {} for a derived release: {source}", path.display())]
    File {
        /// The operation.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The manifest could not be signed.
    #[error("cannot sign the manifest of a derived release: {0}")]
    Sign(#[from] TokenError),
}

/// A file that is added to the initrd or replaces one in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extra {
    /// The path in the initrd, without a leading slash. Its directory must exist. Files below `sysroot`,
    /// except below `sysroot/usr`, are copied to the running system.
    pub path: String,
    /// The type and the content.
    pub content: Content,
}

/// The type and the content of an [`Extra`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// A file with these bytes and this mode (`0o644`).
    File(Vec<u8>, u32),
    /// A symbolic link to this path.
    Link(String),
    /// A directory with this mode.
    #[cfg(test)]
    Directory(u32),
}

impl Extra {
    /// Returns a file of the running system. `path` is relative to its root and not below `usr`.
    pub(crate) fn file(path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        let content = Content::File(bytes.into(), mode);
        Self { path: format!("{SKELETON}/{path}"), content }
    }

    /// Returns a symbolic link of the running system.
    pub(crate) fn link(path: &str, to: &str) -> Self {
        Self { path: format!("{SKELETON}/{path}"), content: Content::Link(to.to_owned()) }
    }
}

/// The differences of a derived release from its base, besides the build.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    /// Files that are added to the initrd or replace files in it.
    pub extra: Vec<Extra>,
    /// The bytes of another kernel, which need not boot.
    pub kernel: Option<Vec<u8>>,
    /// The size to which the initrd is truncated.
    pub initrd_bytes: Option<u64>,
    /// Whether the CDN has deltas from the initrds of the base and of the earlier releases.
    pub deltas: bool,
}

/// A release that is derived from another one.
#[derive(Debug)]
pub(crate) struct Derived {
    /// The release in the manifest.
    pub release: Release,
    /// The manifest, which [`Derived::publish`] offers to hosts.
    manifest: PathBuf,
    /// The kernel, the initrd and its deltas, and their paths on the CDN.
    pub served: Vec<Served>,
}

impl Derived {
    /// Offers the release to hosts: its manifest replaces the one at `path`, which the CDN serves.
    pub(crate) fn publish(&self, path: &Path) -> Result<(), DeriveError> {
        // The replacement is atomic, because a host may be downloading the manifest.
        let next = path.with_extension("next");
        let copied = fs::copy(&self.manifest, &next).and_then(|_| fs::rename(&next, path));
        copied.map_err(failed("publish", path))
    }
}

/// Derives a release from `base` with another build, a [`MARKER`] file and `changes`. Signs its manifest
/// with `key` and writes its files to a new directory in `dir`. `earlier` are releases that were derived from the
/// same base.
///
/// The release keeps the version of `base`, because os-release, which contains the version, is in the
/// unchanged `/usr`.
pub(crate) fn derive(
    base: &Artifacts,
    earlier: &[Derived],
    build: u64,
    changes: &Changes,
    key: &PrivateKey,
    dir: &Path,
) -> Result<Derived, DeriveError> {
    let dir = dir.join(format!("release-{build}"));
    fs::create_dir(&dir).map_err(failed("create the directory", &dir))?;
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
        release.artifacts.push(Artifact { role, name, size, sha256, url, deltas: Vec::new() });
    }
    if changes.deltas {
        // All initrds begin with that of the base.
        let common = fs::metadata(&base.initrd).map_err(failed("read", &base.initrd))?.len();
        let sources =
            iter::once(&base.release).chain(earlier.iter().map(|derived| &derived.release));
        for source in sources.filter_map(|release| release.artifact(Role::Initrd)) {
            let file = dir.join(format!("{}.delta", release.artifacts[1].deltas.len()));
            let delta =
                write_delta(source, &release.artifacts[1], common, &served[1].file, build, &file)?;
            served.push(Served { path: delta.url.clone(), file });
            release.artifacts[1].deltas.push(delta);
        }
    }
    let manifest = dir.join("release.jwt");
    let token = token::sign(key, &claims(release.clone()))?;
    fs::write(&manifest, token).map_err(failed("write", &manifest))?;
    Ok(Derived { release, manifest, served })
}

/// Writes a delta from the initrd `source` to the initrd `target` in `file`. Both begin with `common` equal bytes,
/// unless they were truncated.
fn write_delta(
    source: &Artifact,
    target: &Artifact,
    common: u64,
    file: &Path,
    build: u64,
    to: &Path,
) -> Result<DeltaFile, DeriveError> {
    let common = common.min(source.size).min(target.size);
    let end = read_from(file, common).map_err(failed("read", file))?;
    let literal = end.len() as u64;
    let delta = Delta {
        source: source.size,
        target: target.size,
        recompress: Recompress::here(Codec::Block, 1),
        extents: Vec::new(),
        segments: vec![
            Segment::Copy { offset: 0, length: common },
            Segment::Plain { length: literal },
        ],
        operations: vec![Operation { position: 0, add: 0, literal }],
        differences: Vec::new(),
        literals: end,
    };
    let bytes = delta.to_bytes().map_err(failed("write", to))?;
    fs::write(to, &bytes).map_err(failed("write", to))?;
    let (size, sha256) = measure(to).map_err(failed("read", to))?;
    let memory = memory_of(&bytes).map_err(|error| failed("read", to)(io::Error::other(error)))?;
    let name = format!("initrd.{}.delta", &source.sha256[..8]);
    let (from, url) = (source.sha256.clone(), format!("{build}/{name}"));
    Ok(DeltaFile { from, format: FORMAT.to_owned(), name, size, sha256, url, memory })
}

/// Reads a file from an offset to its end.
fn read_from(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn claims(release: Release) -> Claims {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Claims {
        iat: Some(now),
        exp: Some(now + VALIDITY.as_secs()),
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

/// Returns a cpio archive in the format "newc".
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
    use crate::artifacts::tests::{signed_release, verified};
    use protocol::delta::{Limits, apply};

    /// Returns the name, mode and content of every entry, and the number of bytes after the last one.
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
    fn appends_extra_files_to_the_initrd() {
        let directory = signed_release(|_| {});
        let base = verified(&directory);
        let extra = vec![
            Extra::file("etc/x", 0o755, "#!/bin/sh\n"),
            Extra::link("etc/y", "x"),
            Extra { path: "z".into(), content: Content::Directory(0o700) },
        ];
        let changes = Changes { extra, ..Changes::default() };
        let key = PrivateKey::generate();
        let dir = directory.0.path();
        let derived = derive(&base, &[], 9, &changes, &key, dir).unwrap();
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

        let published = dir.join("published.jwt");
        derived.publish(&published).unwrap();
        let claims =
            token::verify(&fs::read_to_string(published).unwrap(), &key.public().clone().into());
        let release = claims.unwrap().into_inner().etchaos_release.unwrap();
        assert_eq!(release, derived.release);
        release.validate().unwrap();
        assert_eq!((release.build, &release.version), (9, &base.release.version));
        for (artifact, served) in release.artifacts.iter().zip(&derived.served) {
            assert_eq!(artifact.url, served.path);
            let (size, sha256) = measure(&served.file).unwrap();
            assert_eq!((artifact.size, &artifact.sha256), (size, &sha256));
        }
    }

    #[test]
    fn makes_deltas_from_the_base_and_from_earlier_releases() {
        let directory = signed_release(|_| {});
        let base = verified(&directory);
        let changes = Changes { deltas: true, ..Changes::default() };
        let (key, dir) = (PrivateKey::generate(), directory.0.path());
        let earlier = [derive(&base, &[], 3, &changes, &key, dir).unwrap()];
        let derived = derive(&base, &earlier, 4, &changes, &key, dir).unwrap();
        derived.release.validate().unwrap();
        let [_, initrd, deltas @ ..] = &derived.served[..] else { panic!() };
        let target = fs::read(&initrd.file).unwrap();
        let sources = [&base.initrd, &earlier[0].served[1].file];
        assert_eq!(deltas.len(), sources.len());
        for ((source, served), delta) in
            sources.into_iter().zip(deltas).zip(&derived.release.artifacts[1].deltas)
        {
            assert_eq!(served.path, delta.url);
            let (size, sha256) = measure(source).unwrap();
            assert_eq!(delta.from, sha256);
            let limits = Limits { source: size, target: target.len() as u64, memory: delta.memory };
            let mut made = Vec::new();
            let mut write = |piece: &[u8]| made.write_all(piece);
            let delta = fs::read(&served.file).unwrap();
            apply(&delta, File::open(source).unwrap(), &limits, &mut write).unwrap();
            assert!(made == target);
        }
    }

    #[test]
    fn replaces_the_kernel_and_truncates_the_initrd() {
        let directory = signed_release(|_| {});
        let base = verified(&directory);
        let changes = Changes {
            kernel: Some(b"no kernel".to_vec()),
            initrd_bytes: Some(7),
            ..Changes::default()
        };
        let key = PrivateKey::generate();
        let derived = derive(&base, &[], 2, &changes, &key, directory.0.path()).unwrap();
        assert_eq!(fs::read(&derived.served[0].file).unwrap(), b"no kernel");
        assert_eq!(fs::read(&derived.served[1].file).unwrap(), b"this is");
        assert_eq!(derived.release.artifact(Role::Initrd).unwrap().size, 7);
        // A build can be derived only once.
        assert!(derive(&base, &[], 2, &changes, &key, directory.0.path()).is_err());
    }
}
