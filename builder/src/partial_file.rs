//! Files that appear under their name only when they are complete.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The suffix of the names of incomplete files.
const SUFFIX: &str = ".partial";
/// The lock file of a directory with partial files.
const LOCK: &str = ".lock";

/// A file that is written as `.NAME.partial` and renamed to `NAME` when it is complete.
///
/// Dropping it removes the partial file. If the process is killed before that, the next
/// [`PartialFile::create`] in the directory removes it. A directory has at most one partial file at a
/// time: a lock makes other processes wait.
#[derive(Debug)]
pub(crate) struct PartialFile {
    file: File,
    partial: PathBuf,
    to: PathBuf,
    directory: PathBuf,
    _lock: File,
}

impl PartialFile {
    /// Creates the partial file of `to`. Removes the files that killed processes left in its directory.
    pub(crate) fn create(to: &Path) -> Result<Self> {
        let failed = || format!("creating a partial file for {}", to.display());
        let directory = to.parent().with_context(failed)?.to_owned();
        let name = to.file_name().with_context(failed)?.to_string_lossy();
        let lock = File::create(directory.join(LOCK)).with_context(failed)?;
        lock.lock().with_context(failed)?;
        for entry in directory.read_dir().with_context(failed)? {
            let entry = entry.with_context(failed)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') && name.ends_with(SUFFIX) {
                fs::remove_file(entry.path()).with_context(failed)?;
            }
        }
        let partial = directory.join(format!(".{name}{SUFFIX}"));
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create_new(true).open(&partial).with_context(failed)?;
        Ok(Self { file, partial, to: to.to_owned(), directory, _lock: lock })
    }

    /// Returns the file, for writing.
    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Returns the path of the partial file.
    pub(crate) fn path(&self) -> &Path {
        &self.partial
    }

    /// Renames the file without flushing it to the disk, for files that are verified when they are read.
    ///
    /// After a power cut, the file can be incomplete.
    pub(crate) fn persist_unflushed(self) -> Result<()> {
        fs::rename(&self.partial, &self.to)
            .with_context(|| format!("writing {}", self.to.display()))
    }

    /// Flushes the file to the disk and renames it.
    ///
    /// Readers see the old file or the new one. On a FAT file system they might see neither after a
    /// power cut.
    pub(crate) fn persist(self) -> Result<()> {
        let failed = || format!("writing {}", self.to.display());
        self.file.sync_all().with_context(failed)?;
        fs::rename(&self.partial, &self.to).with_context(failed)?;
        File::open(&self.directory).and_then(|directory| directory.sync_all()).with_context(failed)
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        // After a rename there is nothing to remove.
        let _ = fs::remove_file(&self.partial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(directory: &Path) -> Vec<String> {
        let entries = directory.read_dir().unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn persists_complete_files_and_removes_partial_ones() {
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("a");
        let mut file = PartialFile::create(&to).unwrap();
        file.file().write_all(b"x").unwrap();
        assert_eq!(names(directory.path()), [".a.partial", ".lock"]);
        file.persist().unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"x");
        drop(PartialFile::create(&to).unwrap());
        assert_eq!(names(directory.path()), [".lock", "a"]);
    }

    #[test]
    fn removes_partial_files_of_killed_processes() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(".old.partial"), "x").unwrap();
        PartialFile::create(&directory.path().join("new")).unwrap().persist().unwrap();
        assert_eq!(names(directory.path()), [".lock", "new"]);
    }
}
