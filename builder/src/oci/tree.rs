//! A root file system that is being unpacked. No operation reaches a file outside of it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid,
};
use rustix::io::Errno;

/// The directory that a tree is unpacked to.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
}

/// Properties of a file.
#[derive(Debug)]
pub(super) struct Metadata {
    /// The permissions.
    pub(super) mode: u32,
    /// The owner.
    pub(super) user: u32,
    /// The owning group.
    pub(super) group: u32,
    /// The time of the last change of the content, in Unix seconds.
    pub(super) modified: i64,
}

impl Tree {
    /// Opens a directory, which must be empty: everything in it could be changed.
    pub(super) fn open(root: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
        Ok(Self { root })
    }

    /// Opens a directory of the tree. Symbolic links are resolved as if the tree were the root directory.
    fn open_directory(&self, path: &Path, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve =
            resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        loop {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                // Another process renamed something elsewhere; the kernel cannot rule out an escape.
                Err(Errno::AGAIN) => {}
                result => return result,
            }
        }
    }

    /// Opens the directory of a new file, and returns the name of the file in it. Creates directories that are
    /// missing.
    fn parent<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr)> {
        let name = path.file_name().context("the tree itself is a directory")?;
        let parent = path.parent().unwrap_or(Path::new(""));
        match self.open_directory(parent, ResolveFlags::empty()) {
            Err(Errno::NOENT) => Ok((self.create_directories(parent)?, name)),
            result => Ok((result.map_err(describe)?, name)),
        }
    }

    fn create_directories(&self, path: &Path) -> Result<OwnedFd> {
        let mut prefix = PathBuf::new();
        let mut directory =
            self.open_directory(&prefix, ResolveFlags::empty()).map_err(describe)?;
        for name in path {
            prefix.push(name);
            directory = match self.open_directory(&prefix, ResolveFlags::empty()) {
                Err(Errno::NOENT) => {
                    rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755))
                        .map_err(describe)
                        .context("creating a directory that no layer has")?;
                    self.open_directory(&prefix, ResolveFlags::empty()).map_err(describe)?
                }
                result => result.map_err(describe)?,
            };
        }
        Ok(directory)
    }

    /// Removes a name from a directory, if it is there.
    ///
    /// A directory behind a symbolic link is not changed: if this layer replaces a link by a directory, the
    /// removal concerns what was in place of the link.
    pub(super) fn remove(&self, directory: &Path, name: &OsStr) -> Result<()> {
        match self.open_directory(directory, ResolveFlags::NO_SYMLINKS) {
            Ok(directory) => remove_any(&directory, name).context("removing it"),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(error) => Err(describe(error)),
        }
    }

    /// Removes everything from a directory, if there is one.
    pub(super) fn clear(&self, directory: &Path) -> Result<()> {
        let directory = match self.open_directory(directory, ResolveFlags::NO_SYMLINKS) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(error) => return Err(describe(error)),
        };
        for entry in fs::read_dir(magic_link(&directory, OsStr::new("")))? {
            remove_any(&directory, &entry?.file_name()).context("removing it")?;
        }
        Ok(())
    }

    /// Creates a directory, or changes the properties of one.
    pub(super) fn directory(&self, path: &Path, metadata: &Metadata) -> Result<()> {
        if path.as_os_str().is_empty() {
            return set_mode(&self.root, OsStr::new("."), metadata);
        }
        let (parent, name) = self.parent(path)?;
        if kind(&parent, name)? != Some(FileType::Directory) {
            remove_any(&parent, name)?;
            rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700)).map_err(describe)?;
        }
        set_mode(&parent, name, metadata)
    }

    /// Creates a file in place of what is there.
    pub(super) fn file(
        &self,
        path: &Path,
        metadata: &Metadata,
        content: &mut impl Read,
    ) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        remove_any(&parent, name)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let mut file =
            File::from(rustix::fs::openat(&parent, name, flags, mode).map_err(describe)?);
        io::copy(content, &mut file).context("writing its content")?;
        set_owner(&parent, name, metadata)?;
        // A change of the owner clears the set-user-ID bit.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(metadata.mode)).map_err(describe)?;
        set_time(&parent, name, metadata)
    }

    /// Creates a symbolic link in place of what is there. Its target can be any text.
    pub(super) fn symlink(&self, path: &Path, target: &OsStr, metadata: &Metadata) -> Result<()> {
        ensure!(!target.is_empty(), "the target of the symbolic link is empty");
        let (parent, name) = self.parent(path)?;
        remove_any(&parent, name)?;
        rustix::fs::symlinkat(target, &parent, name).map_err(describe)?;
        set_owner(&parent, name, metadata)?;
        set_time(&parent, name, metadata)
    }

    /// Creates a hard link to a file of the tree, in place of what is there.
    pub(super) fn hard_link(&self, path: &Path, target: &Path) -> Result<()> {
        let missing = || format!("the hard link's target {target:?} is not in the image");
        let target_name = target.file_name().with_context(missing)?;
        let directory = target.parent().unwrap_or(Path::new(""));
        let directory =
            self.open_directory(directory, ResolveFlags::empty()).with_context(missing)?;
        match kind(&directory, target_name)?.with_context(missing)? {
            FileType::RegularFile | FileType::Symlink => {}
            _ => bail!("the hard link's target {target:?} is not a file"),
        }
        let (parent, name) = self.parent(path)?;
        if is_same(&directory, target_name, &parent, name)? {
            return Ok(());
        }
        remove_any(&parent, name)?;
        // Without AT_SYMLINK_FOLLOW, the target of a symbolic link is not followed.
        rustix::fs::linkat(&directory, target_name, &parent, name, AtFlags::empty())
            .map_err(describe)
    }

    /// Creates directories that are missing, for file systems to be mounted on them.
    ///
    /// # Errors
    /// Fails if one of them is something else, such as a symbolic link: the mount would be elsewhere.
    pub(super) fn require_directories(&self, names: &[&str]) -> Result<()> {
        for name in names {
            match kind(&self.root, OsStr::new(name))? {
                Some(FileType::Directory) => {}
                None => rustix::fs::mkdirat(&self.root, *name, Mode::from_raw_mode(0o755))
                    .with_context(|| format!("creating /{name}"))?,
                Some(other) => bail!("/{name} of the image is a {other:?}, expected a directory"),
            }
        }
        Ok(())
    }
}

/// Returns the type of a file without following a symbolic link; `None` if there is none.
fn kind(directory: &OwnedFd, name: &OsStr) -> Result<Option<FileType>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(describe(error)),
    }
}

/// Returns whether two names are the same directory entry, or links to the same file.
fn is_same(one: &OwnedFd, one_name: &OsStr, other: &OwnedFd, other_name: &OsStr) -> Result<bool> {
    if kind(other, other_name)?.is_none() {
        return Ok(false);
    }
    let stat = |directory, name| rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    let (one, other) = (stat(one, one_name)?, stat(other, other_name)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Removes a file, or a directory with everything in it, if it is there. Does not follow symbolic links.
fn remove_any(directory: &OwnedFd, name: &OsStr) -> Result<()> {
    match kind(directory, name)? {
        None => Ok(()),
        Some(FileType::Directory) => {
            fs::remove_dir_all(magic_link(directory, name)).context("removing a directory")
        }
        Some(_) => rustix::fs::unlinkat(directory, name, AtFlags::empty()).map_err(describe),
    }
}

/// Returns a path of a file in an open directory.
fn magic_link(directory: &OwnedFd, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name)
}

/// Sets owner and permissions of a directory.
fn set_mode(parent: &OwnedFd, name: &OsStr, metadata: &Metadata) -> Result<()> {
    set_owner(parent, name, metadata)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(parent, name, flags, Mode::empty()).map_err(describe)?;
    rustix::fs::fchmod(directory.as_fd(), Mode::from_raw_mode(metadata.mode)).map_err(describe)
}

fn set_owner(parent: &OwnedFd, name: &OsStr, metadata: &Metadata) -> Result<()> {
    let (user, group) = (Uid::from_raw(metadata.user), Gid::from_raw(metadata.group));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(parent, name, Some(user), Some(group), flags)
        .map_err(describe)
        .context("setting its owner")
}

fn set_time(parent: &OwnedFd, name: &OsStr, metadata: &Metadata) -> Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: metadata.modified, tv_nsec: 0 },
    };
    rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(describe)
        .context("setting its time")
}

/// Explains an error of the kernel that a layer can cause.
fn describe(error: Errno) -> anyhow::Error {
    let what = match error {
        Errno::LOOP => "too many symbolic links, or a link to a file outside",
        Errno::NOTDIR => "a part of the path is not a directory",
        Errno::XDEV => "the path leads to another file system",
        Errno::NOSYS => "the kernel has no openat2, which Linux has since version 5.6",
        Errno::PERM => "the builder lacks a right; build as root",
        _ => return error.into(),
    };
    anyhow::Error::from(error).context(what)
}
