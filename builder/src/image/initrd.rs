//! The initrd: one uncompressed cpio archive in the format "newc" (kernel document
//! `driver-api/early-userspace/buffer-format.rst`).
//!
//! Nearly all of it is `/usr`, a SquashFS that is already compressed. Compressing it again would gain
//! nothing.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use cpio::newc::{Builder, ModeFileType, trailer};
use walkdir::{DirEntry, WalkDir};

/// The directory of the root skeleton in the archive. The early init copies it to the real root.
pub(crate) const SKELETON: &str = "sysroot";
/// The name of the SquashFS of `/usr` in the archive.
pub(crate) const USR: &str = "usr.squashfs";

/// The contents of an initrd.
#[derive(Debug)]
pub(crate) struct Initrd<'a> {
    /// The tree of the early init, which becomes the root of the archive.
    pub early: &'a Path,
    /// The root tree; its `/usr` is skipped.
    pub root: &'a Path,
    /// The SquashFS of `/usr`.
    pub usr: &'a Path,
    /// The maximum modification time of entries, in Unix seconds.
    pub epoch: u32,
}

impl Initrd<'_> {
    /// Writes the archive.
    ///
    /// The same input gives the same bytes: entries are sorted, times are clamped, inodes are numbered
    /// from 1.
    pub(crate) fn write(&self, to: &Path) -> Result<()> {
        let file = File::create(to).with_context(|| format!("creating {}", to.display()))?;
        let mut archive = Archive { out: BufWriter::new(file), inode: 0, epoch: self.epoch };
        archive.tree(self.early, "", |_| true)?;
        archive.tree(self.root, SKELETON, |name| name != Path::new("usr"))?;
        let mount_point = archive.header(&Path::new(SKELETON).join("usr"), 0o755)?;
        archive.write(mount_point, ModeFileType::Directory, &[])?;
        archive.file(self.usr, USR.as_ref())?;
        let mut out = trailer(archive.out).context("writing the end of the archive")?;
        out.flush().with_context(|| format!("writing {}", to.display()))
    }
}

struct Archive<W: Write> {
    out: W,
    inode: u32,
    epoch: u32,
}

impl<W: Write> Archive<W> {
    /// Adds a tree below `prefix`. `keep` decides by the path relative to the tree.
    fn tree(&mut self, tree: &Path, prefix: &str, keep: fn(&Path) -> bool) -> Result<()> {
        let relative = |entry: &DirEntry| entry.path().strip_prefix(tree).map(Path::to_owned);
        let walk = WalkDir::new(tree).sort_by_file_name().into_iter();
        for entry in walk.filter_entry(|entry| relative(entry).is_ok_and(|name| keep(&name))) {
            let entry = entry.with_context(|| format!("reading {}", tree.display()))?;
            // Collecting components removes the slash that joining an empty path adds.
            let name: PathBuf = Path::new(prefix).join(relative(&entry)?).components().collect();
            if !name.as_os_str().is_empty() {
                self.entry(&entry, &name)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &DirEntry, name: &Path) -> Result<()> {
        let kind = entry.file_type();
        if kind.is_file() {
            return self.file(entry.path(), name);
        }
        let header = self.metadata(entry.path(), name)?;
        if kind.is_dir() {
            self.write(header, ModeFileType::Directory, &[])
        } else if kind.is_symlink() {
            let target = fs::read_link(entry.path())?;
            self.write(header, ModeFileType::Symlink, target.as_os_str().as_bytes())
        } else if kind.is_char_device() || kind.is_block_device() {
            // The running system mounts its own /dev.
            Ok(())
        } else {
            bail!(
                "adding {} to the initrd: expected a file, a directory or a symbolic link",
                entry.path().display()
            )
        }
    }

    fn file(&mut self, path: &Path, name: &Path) -> Result<()> {
        let failed = || format!("adding {} to the initrd", path.display());
        let header = self.metadata(path, name)?.set_mode_file_type(ModeFileType::Regular);
        let mut file = File::open(path).with_context(failed)?;
        let size = file.metadata()?.len();
        let size = u32::try_from(size)
            .with_context(failed)
            .context("a file in a cpio archive must be smaller than 4 GiB")?;
        let mut writer = header.write(&mut self.out, size);
        let written = io::copy(&mut file, &mut writer).with_context(failed)?;
        ensure!(written == u64::from(size), "{} changed while it was read", path.display());
        writer.finish().with_context(failed)?;
        Ok(())
    }

    fn write(&mut self, header: Builder, kind: ModeFileType, content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len())?;
        let mut writer = header.set_mode_file_type(kind).write(&mut self.out, size);
        writer.write_all(content)?;
        writer.finish()?;
        Ok(())
    }

    /// Returns a header with owner, mode and clamped time of a file.
    fn metadata(&mut self, path: &Path, name: &Path) -> Result<Builder> {
        let metadata =
            path.symlink_metadata().with_context(|| format!("reading {}", path.display()))?;
        let mtime = u32::try_from(metadata.mtime()).unwrap_or(self.epoch).min(self.epoch);
        let header = self.header(name, metadata.mode() & 0o7777)?;
        Ok(header.uid(metadata.uid()).gid(metadata.gid()).mtime(mtime))
    }

    fn header(&mut self, name: &Path, mode: u32) -> Result<Builder> {
        self.inode += 1;
        let name = name.to_str().with_context(|| format!("{name:?} is not UTF-8"))?;
        Ok(Builder::new(name).ino(self.inode).nlink(1).mode(mode).mtime(self.epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::judge;

    fn write(directory: &Path, name: &str) -> PathBuf {
        let (early, root) = (directory.join("early"), directory.join("root"));
        for path in [early.join("bin"), root.join("etc"), root.join("usr/bin")] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(early.join("init"), "#!/bin/sh\n").unwrap();
        fs::write(root.join("etc/hostname"), "etchaos\n").unwrap();
        fs::write(root.join("usr/bin/left-out"), "").unwrap();
        if !root.join("bin").is_symlink() {
            std::os::unix::fs::symlink("usr/bin", root.join("bin")).unwrap();
        }
        let usr = directory.join("usr.squashfs");
        fs::write(&usr, "not really").unwrap();
        let to = directory.join(name);
        Initrd { early: &early, root: &root, usr: &usr, epoch: 1_700_000_000 }.write(&to).unwrap();
        to
    }

    #[test]
    fn cpio_lists_all_entries_except_usr() {
        let directory = tempfile::tempdir().unwrap();
        let initrd = write(directory.path(), "initrd");
        let Some(list) = judge("cpio", &["-i", "-t", "--quiet", "-F", initrd.to_str().unwrap()])
        else {
            return;
        };
        let names: Vec<&str> = list.lines().collect();
        assert_eq!(
            names,
            [
                "bin",
                "init",
                "sysroot",
                "sysroot/bin",
                "sysroot/etc",
                "sysroot/etc/hostname",
                "sysroot/usr",
                "usr.squashfs"
            ]
        );
    }

    #[test]
    fn same_trees_give_same_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let first = fs::read(write(directory.path(), "first")).unwrap();
        assert_eq!(first, fs::read(write(directory.path(), "second")).unwrap());
    }
}
