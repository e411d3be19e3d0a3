//! The file system of a mounted ESP, or of a directory that stands in for it.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::statvfs::statvfs;

use super::{Capacity, Entry, FileError, FileSystem, OpenFile, ReadSeek, at};
use crate::esp::Esp;

impl FileSystem for Esp {
    fn metadata(&self, path: &str) -> Result<Option<Entry>, FileError> {
        let path = self.path(path);
        match std::fs::symlink_metadata(&path) {
            Ok(data) if data.is_file() => Ok(Some(Entry::File { size: data.len() })),
            Ok(data) if data.is_dir() => Ok(Some(Entry::Directory)),
            Ok(_) => Ok(Some(Entry::Other)),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                Ok(None)
            }
            Err(error) => Err(at("read the metadata of", path)(error)),
        }
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, FileError> {
        let directory = self.path(directory);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(at("list", &directory))? {
            let name = entry.map_err(at("list", &directory))?.file_name();
            // Names on FAT are Unicode. A name that is not valid UTF-8 was not created by the updater.
            names.extend(name.into_string());
        }
        names.sort();
        Ok(names)
    }

    fn open(&self, path: &str) -> Result<Box<dyn ReadSeek + '_>, FileError> {
        let path = self.path(path);
        let file = File::open(&path).map_err(at("open", path))?;
        // This is advice, which a file system without a disk may ignore.
        let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        Ok(Box::new(file))
    }

    fn create(&self, path: &str) -> Result<Box<dyn OpenFile + '_>, FileError> {
        let path = self.path(path);
        let file = File::options().write(true).create_new(true).open(&path);
        Ok(Box::new(file.map_err(at("create", path))?))
    }

    fn edit(&self, path: &str) -> Result<Box<dyn OpenFile + '_>, FileError> {
        let path = self.path(path);
        let open = || OpenOptions::new().write(true).open(&path);
        let file = match open() {
            // FAT's read-only attribute. GRUB ignores it as well.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                make_writable(&path).and_then(|()| open())
            }
            result => result,
        };
        Ok(Box::new(file.map_err(at("open", &path))?))
    }

    fn create_directory(&self, path: &str) -> Result<(), FileError> {
        let path = self.path(path);
        std::fs::create_dir(&path).map_err(at("create the directory", path))
    }

    fn remove_file(&self, path: &str) -> Result<(), FileError> {
        let path = self.path(path);
        std::fs::remove_file(&path).map_err(at("remove", path))
    }

    fn remove_directory(&self, path: &str) -> Result<(), FileError> {
        let path = self.path(path);
        std::fs::remove_dir_all(&path).map_err(at("remove the directory", path))
    }

    fn sync_directory(&self, directory: &str) -> Result<(), FileError> {
        let directory = self.path(directory);
        let synced = File::open(&directory).and_then(|file| file.sync_all());
        synced.map_err(at("flush the directory", directory))
    }

    fn capacity(&self) -> Result<Capacity, FileError> {
        let root = self.path("");
        let stat =
            statvfs(&root).map_err(|error| at("read the free space of", &root)(error.into()))?;
        let cluster = stat.fragment_size().max(1);
        Ok(Capacity { cluster, free: stat.blocks_available().saturating_mul(cluster) })
    }
}

impl OpenFile for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&mut self, length: u64) -> io::Result<()> {
        File::set_len(self, length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

fn make_writable(path: &Path) -> io::Result<()> {
    let mode = std::fs::metadata(path)?.permissions().mode();
    std::fs::set_permissions(path, Permissions::from_mode(mode | 0o200))
}

#[cfg(test)]
mod tests {
    use crate::esp::Access;
    use crate::files::{measure, overwrite, read_limited, remove_if_exists};
    use crate::host::Host;

    use super::*;

    fn esp(directory: &Path) -> Esp {
        Esp::open(&Host::new("/nonexistent"), Some(directory), Access::Read).unwrap().unwrap()
    }

    #[test]
    fn overwrite_creates_and_truncates_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let (path, esp) = (directory.path().join("x"), esp(directory.path()));
        for before in [None, Some("12345678"), Some("1")] {
            let _ = before.map(|text| std::fs::write(&path, text));
            overwrite(&esp, "x", b"abcd").unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"abcd");
        }
        let digest = measure(&esp, "x", 4).unwrap();
        assert_eq!(digest, "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589");
        assert!(measure(&esp, "x", 5).is_err());
    }

    #[test]
    fn overwrite_creates_missing_directories() {
        let directory = tempfile::tempdir().unwrap();
        let esp = esp(directory.path());
        overwrite(&esp, "a/b/x", b"abcd").unwrap();
        assert_eq!(std::fs::read(directory.path().join("a/b/x")).unwrap(), b"abcd");
        std::fs::write(directory.path().join("file"), "").unwrap();
        let error = overwrite(&esp, "file/x", b"").unwrap_err().to_string();
        assert!(error.contains("cannot create the directory"), "{error}");
    }

    #[test]
    fn remove_does_not_follow_links() {
        let directory = tempfile::tempdir().unwrap();
        let (at, esp) = (|name: &str| directory.path().join(name), esp(directory.path()));
        std::fs::create_dir_all(at("kept/sub")).unwrap();
        std::fs::create_dir_all(at("gone/sub")).unwrap();
        std::fs::write(at("kept/x"), "").unwrap();
        for link in ["gone/link", "gone/sub/link", "link"] {
            std::os::unix::fs::symlink(at("kept"), at(link)).unwrap();
        }
        assert!(remove_if_exists(&esp, "gone").unwrap());
        assert!(remove_if_exists(&esp, "link").unwrap());
        assert!(!remove_if_exists(&esp, "link").unwrap());
        assert!(!at("gone").exists() && at("kept/x").exists() && at("kept/sub").exists());
    }

    #[test]
    fn overwrite_replaces_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let esp = esp(directory.path());
        std::fs::create_dir_all(directory.path().join("x/deep")).unwrap();
        assert!(read_limited(&esp, "x", 9).unwrap_err().to_string().contains("not a file"));
        overwrite(&esp, "x", b"1").unwrap();
        assert_eq!(read_limited(&esp, "x", 1).unwrap().unwrap(), b"1");
        assert!(read_limited(&esp, "x", 0).unwrap_err().to_string().contains("longer than"));
    }

    #[test]
    fn error_names_operation_path_and_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("no/x");
        let error = measure(&esp(directory.path()), "no/x", 1).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot open {}: ", path.display())), "{error}");
        let error = at("write", "x")(nix::errno::Errno::EROFS.into()).to_string();
        assert!(error.contains("write-protected") && error.contains("fsck.vfat -a"), "{error}");
    }
}
