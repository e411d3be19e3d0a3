//! A directory as a destination. A web server serves it, or a copy of it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use protocol::digest;
use tempfile::NamedTempFile;
use walkdir::WalkDir;

use super::interface::{
    Conflict, Created, Destination, Listed, Location, Lock, Stored, Upload, Version,
};

/// The lock file.
const LOCK: &str = ".lock";
/// The directory of incomplete files. It is in the destination, because a rename needs both names on
/// one file system.
const PARTIAL: &str = ".partial";
/// The mode of published files.
const MODE: u32 = 0o644;

/// The lock of a directory. It is released explicitly: a child process that was just started, by another
/// thread, has the file open too, until it runs its program.
struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        // If it fails, closing the file releases the lock.
        let _ = self.0.unlock();
    }
}

/// A directory of manifests and releases.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
}

impl Directory {
    /// Opens the directory, and creates it if it does not exist.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        fs::create_dir_all(root).with_context(|| {
            format!(
                "creating the directory {} for releases; choose a writable one with --to",
                root.display()
            )
        })?;
        Ok(Self { root: root.to_owned() })
    }

    /// Returns the file at a path.
    fn at(&self, path: &str) -> Result<PathBuf> {
        ensure!(
            path.split('/').all(protocol::release::is_file_name),
            "{path:?} is not a path of plain file names"
        );
        Ok(self.root.join(path))
    }

    /// Writes a temporary file with the bytes of `from`, and flushes it to the disk.
    fn write_partial(&self, from: &mut impl Read) -> Result<NamedTempFile> {
        let directory = self.root.join(PARTIAL);
        let failed = || format!("writing to {}", directory.display());
        fs::create_dir_all(&directory).with_context(failed)?;
        let mut partial = NamedTempFile::new_in(&directory).with_context(failed)?;
        io::copy(from, &mut partial).with_context(failed)?;
        partial.flush().with_context(failed)?;
        partial.as_file().set_permissions(fs::Permissions::from_mode(MODE)).with_context(failed)?;
        partial.as_file().sync_all().with_context(failed)?;
        Ok(partial)
    }

    /// Copies an upload into a temporary file and checks its content.
    fn write_upload(&self, upload: &Upload) -> Result<NamedTempFile> {
        let from = &upload.from;
        let mut file = File::open(from).with_context(|| format!("reading {}", from.display()))?;
        let partial = self.write_partial(&mut file)?;
        let (size, sha256) = digest::of_reader(partial.reopen()?)?;
        ensure!(
            size == upload.size && sha256 == upload.sha256,
            "the copy of {} in {} has {size} bytes and the SHA-256 {sha256}, expected {} bytes and \
             {}; was the file changed, or is the disk faulty?",
            from.display(),
            self.root.display(),
            upload.size,
            upload.sha256
        );
        Ok(partial)
    }

    /// Creates the directory of a file. Flushes every directory that is new in its parent.
    fn create_parent(&self, file: &Path) -> Result<()> {
        let parent = file.parent().unwrap_or(&self.root);
        if !parent.is_dir() {
            self.create_parent(parent)?;
            match fs::create_dir(parent) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("creating {}", parent.display()));
                }
                _ => sync_directory(parent.parent().unwrap_or(parent))?,
            }
        }
        Ok(())
    }

    fn open_file(&self, path: &str) -> Result<Option<File>> {
        let at = self.at(path)?;
        match File::open(&at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            file => Ok(Some(file.with_context(|| format!("reading {}", at.display()))?)),
        }
    }
}

/// Flushes the entries of a directory to the disk.
fn sync_directory(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.with_context(|| format!("flushing {}", directory.display()))
}

fn version(bytes: &[u8]) -> Version {
    Version(digest::of_bytes(bytes))
}

impl Location for Directory {
    fn describe(&self) -> String {
        self.root.display().to_string()
    }

    fn read(&self, path: &str, max: u64) -> Result<Option<Stored>> {
        let Some(file) = self.open_file(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let read = file.take(max + 1).read_to_end(&mut bytes);
        read.with_context(|| format!("reading {path} in {}", self.root.display()))?;
        ensure!(
            bytes.len() as u64 <= max,
            "{path} in {} has more than {max} bytes",
            self.root.display()
        );
        let version = version(&bytes);
        Ok(Some(Stored { bytes, version }))
    }

    fn measure(&self, path: &str, max: u64) -> Result<Option<(u64, String)>> {
        let Some(file) = self.open_file(path)? else { return Ok(None) };
        let measured = digest::of_reader(file.take(max + 1));
        Ok(Some(measured.with_context(|| format!("reading {path} in {}", self.root.display()))?))
    }

    fn download(&self, path: &str, max: u64, to: &Path) -> Result<()> {
        let file = self.open_file(path)?;
        let file = file.with_context(|| format!("{} has no file {path}", self.root.display()))?;
        let mut target =
            File::create_new(to).with_context(|| format!("creating {}", to.display()))?;
        let copied = io::copy(&mut file.take(max + 1), &mut target);
        let copied = copied.with_context(|| format!("copying {path} to {}", to.display()))?;
        ensure!(copied <= max, "{path} in {} has more than {max} bytes", self.root.display());
        Ok(())
    }
}

impl Destination for Directory {
    fn lock(&self) -> Result<Lock> {
        let path = self.root.join(LOCK);
        // A symbolic link is refused, and the file is not truncated: whoever can write to the directory
        // could otherwise destroy a file elsewhere.
        let mut options = File::options();
        options.write(true).create(true).truncate(false).custom_flags(nix::libc::O_NOFOLLOW);
        let lock = options.open(&path).with_context(|| format!("creating {}", path.display()))?;
        match lock.try_lock() {
            Err(fs::TryLockError::WouldBlock) => bail!(
                "another publisher is publishing to {}; wait until it ends, and run the command \
                 again",
                self.root.display()
            ),
            locked => locked.with_context(|| format!("locking {}", path.display()))?,
        }
        // No other publisher runs, so nothing is being uploaded.
        let partial = self.root.join(PARTIAL);
        if partial.exists() {
            fs::remove_dir_all(&partial)
                .with_context(|| format!("removing {}", partial.display()))?;
        }
        Ok(Box::new(Locked(lock)))
    }

    fn create(&self, upload: &Upload) -> Result<Created> {
        let to = self.at(&upload.path)?;
        if to.exists() {
            return Ok(Created::Existed);
        }
        let partial = self.write_upload(upload)?;
        self.create_parent(&to)?;
        match partial.persist_noclobber(&to) {
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                return Ok(Created::Existed);
            }
            stored => stored.with_context(|| format!("writing {}", to.display()))?,
        };
        sync_directory(to.parent().unwrap_or(&self.root))?;
        Ok(Created::New)
    }

    fn repair(&self, upload: &Upload) -> Result<()> {
        let to = self.at(&upload.path)?;
        let partial = self.write_upload(upload)?;
        self.create_parent(&to)?;
        partial.persist(&to).with_context(|| format!("writing {}", to.display()))?;
        sync_directory(to.parent().unwrap_or(&self.root))
    }

    fn replace(&self, path: &str, bytes: &[u8], expected: Option<&Version>) -> Result<()> {
        let to = self.at(path)?;
        // The caller holds the lock, so no other publisher writes between this check and the rename.
        let found = self.read(path, u64::MAX - 1)?.map(|stored| stored.version);
        if found.as_ref() != expected {
            return Err(Conflict { path: path.to_owned(), destination: self.describe() }.into());
        }
        let partial = self.write_partial(&mut &bytes[..])?;
        self.create_parent(&to)?;
        partial.persist(&to).with_context(|| format!("writing {}", to.display()))?;
        sync_directory(to.parent().unwrap_or(&self.root))
    }

    fn list(&self, directory: &str) -> Result<Vec<Listed>> {
        let top = if directory.is_empty() { self.root.clone() } else { self.at(directory)? };
        if !top.exists() {
            return Ok(Vec::new());
        }
        let mut listed = Vec::new();
        let visible = |entry: &walkdir::DirEntry| {
            entry.depth() == 0 || !entry.file_name().as_encoded_bytes().starts_with(b".")
        };
        for entry in WalkDir::new(&top).sort_by_file_name().into_iter().filter_entry(visible) {
            let failed = || format!("listing {}", top.display());
            let entry = entry.with_context(failed)?;
            let metadata = entry.metadata().with_context(failed)?;
            if metadata.is_file() {
                let path = entry.path().strip_prefix(&self.root)?.to_string_lossy().into_owned();
                let modified = metadata.modified().with_context(failed)?;
                listed.push(Listed { path, size: metadata.len(), modified });
            }
        }
        Ok(listed)
    }

    fn remove(&self, path: &str) -> Result<()> {
        let at = self.at(path)?;
        match fs::remove_file(&at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.with_context(|| format!("removing {}", at.display()))?,
        }
        // Directories that are empty now are removed, too; the others stay.
        for directory in at.ancestors().skip(1).take_while(|directory| *directory != self.root) {
            if fs::remove_dir(directory).is_err() {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination() -> (tempfile::TempDir, Directory) {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(&temporary.path().join("cdn")).unwrap();
        (temporary, directory)
    }

    fn upload(directory: &Path, path: &str, content: &str) -> Upload {
        let from = directory.join("upload");
        fs::write(&from, content).unwrap();
        let sha256 = digest::of_bytes(content.as_bytes());
        Upload { from, path: path.to_owned(), size: content.len() as u64, sha256 }
    }

    #[test]
    fn creates_files_once_and_repairs_them() {
        let (temporary, cdn) = destination();
        let first = upload(temporary.path(), "a/b/x", "one");
        assert_eq!(cdn.create(&first).unwrap(), Created::New);
        assert_eq!(cdn.create(&first).unwrap(), Created::Existed);
        let other = upload(temporary.path(), "a/b/x", "two");
        assert_eq!(cdn.create(&other).unwrap(), Created::Existed);
        assert_eq!(cdn.measure("a/b/x", 9).unwrap().unwrap().1, first.sha256);
        cdn.repair(&other).unwrap();
        assert_eq!(cdn.measure("a/b/x", 9).unwrap().unwrap().1, other.sha256);
        let mode = fs::metadata(temporary.path().join("cdn/a/b/x")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
    }

    #[test]
    fn rejects_upload_whose_content_changed() {
        let (temporary, cdn) = destination();
        let upload = upload(temporary.path(), "x", "one");
        fs::write(&upload.from, "two").unwrap();
        let error = cdn.create(&upload).unwrap_err().to_string();
        assert!(error.contains("was the file changed"), "{error}");
        assert_eq!(cdn.list("").unwrap(), []);
    }

    #[test]
    fn replaces_only_the_expected_version() {
        let (_temporary, cdn) = destination();
        cdn.replace("m.jwt", b"1", None).unwrap();
        let first = cdn.read("m.jwt", 9).unwrap().unwrap().version;
        cdn.replace("m.jwt", b"2", Some(&first)).unwrap();
        for expected in [None, Some(&first)] {
            let error = cdn.replace("m.jwt", b"3", expected).unwrap_err();
            assert!(error.is::<Conflict>(), "{error:#}");
        }
        assert_eq!(cdn.read("m.jwt", 9).unwrap().unwrap().bytes, b"2");
    }

    #[test]
    fn second_publisher_is_refused_and_partial_files_are_removed() {
        let (temporary, cdn) = destination();
        let partial = temporary.path().join("cdn/.partial/x");
        fs::create_dir_all(partial.parent().unwrap()).unwrap();
        fs::write(&partial, "x").unwrap();
        let lock = cdn.lock().unwrap();
        assert!(!partial.exists());
        let error = cdn.lock().err().unwrap().to_string();
        assert!(error.contains("another publisher"), "{error}");
        drop(lock);
        assert!(cdn.lock().is_ok());
    }

    #[test]
    fn lists_and_removes_files_with_their_directories() {
        let (temporary, cdn) = destination();
        for path in ["t/1/x", "t/2/x", "m.jwt"] {
            cdn.create(&upload(temporary.path(), path, "one")).unwrap();
        }
        let paths = |directory| -> Vec<String> {
            cdn.list(directory).unwrap().into_iter().map(|listed| listed.path).collect()
        };
        assert_eq!(paths("t"), ["t/1/x", "t/2/x"]);
        assert_eq!(paths(""), ["m.jwt", "t/1/x", "t/2/x"]);
        cdn.remove("t/1/x").unwrap();
        cdn.remove("t/1/x").unwrap();
        assert_eq!(paths("t"), ["t/2/x"]);
        assert!(!temporary.path().join("cdn/t/1").exists());
    }

    #[test]
    fn rejects_paths_that_leave_the_directory() {
        let (_temporary, cdn) = destination();
        for path in ["../x", "/etc/passwd", "a//b", ".lock", ""] {
            assert!(cdn.read(path, 9).is_err(), "{path:?}");
        }
    }
}
