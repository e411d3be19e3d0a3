//! Files that must be on the disk when we say so.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use sha2::{Digest, Sha256};

/// Large enough that system calls do not count, small enough for a host with little memory.
pub const CHUNK: usize = 256 * 1024;

/// A file that the system refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {why}", path.display())]
pub struct FileError {
    /// What was tried.
    pub doing: &'static str,
    /// With which file.
    pub path: PathBuf,
    /// What the system says.
    pub why: io::Error,
}

/// Makes a [`FileError`] of an I/O error.
pub fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError + use<> {
    let path = path.to_owned();
    move |why| FileError { doing, path, why }
}

/// Flushes a folder: what was made in it and removed from it is so after a power cut.
pub fn sync_folder(folder: &Path) -> Result<(), FileError> {
    File::open(folder).and_then(|file| file.sync_all()).map_err(at("flush the folder", folder))
}

/// Makes a folder and those above it, flushed one by one, if it is not there.
pub fn make_folder(folder: &Path) -> Result<(), FileError> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(Path::new("/"));
    make_folder(parent)?;
    std::fs::create_dir(folder).map_err(at("make the folder", folder))?;
    sync_folder(folder)?;
    sync_folder(parent)
}

/// Removes a file, or a folder with everything in it, if it is there. Says whether it was. A link is
/// removed and never followed.
pub fn remove_whatever(path: &Path) -> Result<bool, FileError> {
    match std::fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => {
            std::fs::remove_dir_all(path).map_err(at("remove the folder", path))?;
            Ok(true)
        }
        // What is there and cannot be looked at fails in a moment, and says so.
        Ok(_) | Err(_) => remove(path),
    }
}

/// Removes a file, if it is there. Says whether it was.
pub fn remove(path: &Path) -> Result<bool, FileError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at("remove", path)(error)),
    }
}

/// Size and SHA-256 of a file as the disk has it: what the page cache holds is dropped first, as far
/// as it is on the disk.
pub fn measure(path: &Path) -> Result<(u64, String), FileError> {
    measure_with(path, &|_| {})
}

/// The same; `seen` is told after every piece how many bytes were read.
pub fn measure_with(path: &Path, seen: &dyn Fn(u64)) -> Result<(u64, String), FileError> {
    let mut file = File::open(path).map_err(at("open", path))?;
    // Advice: a file system that has no disk below it may ignore it.
    let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    let mut digest = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((size, hex(digest))),
            Ok(length) => {
                digest.update(&buffer[..length]);
                size += length as u64;
                seen(size);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(at("read", path)(error)),
        }
    }
}

/// The digest as manifests write it.
pub fn hex(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Overwrites a file in place and flushes it; makes it, and its folder, if it is not there.
///
/// It does not promise that the file is whole after a power cut. It is, if the file was there, had
/// this length, and the bytes that change lie in one sector: then no metadata is written, and a disk
/// writes a sector whole. GRUB writes grubenv in the same way.
pub fn overwrite(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let is_new = !path.exists();
    if let Some(folder) = path.parent()
        && is_new
    {
        make_folder(folder)?;
    }
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
    let file = file.map_err(at("open", path))?;
    file.write_all_at(bytes, 0).map_err(at("write", path))?;
    let length = file.metadata().map_err(at("look at", path))?.len();
    if length != bytes.len() as u64 {
        file.set_len(bytes.len() as u64).map_err(at("cut", path))?;
    }
    file.sync_all().map_err(at("flush", path))?;
    match path.parent() {
        Some(folder) if is_new => sync_folder(folder),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_overwritten_made_and_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        for before in [None, Some("12345678"), Some("1")] {
            let _ = before.map(|text| std::fs::write(&path, text));
            overwrite(&path, b"abcd").unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"abcd");
        }
        let (size, digest) = measure(&path).unwrap();
        assert_eq!(size, 4);
        assert_eq!(digest, "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589");
    }

    #[test]
    fn a_file_is_made_with_its_folders() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/x");
        overwrite(&path, b"abcd").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"abcd");
        std::fs::write(folder.path().join("file"), "").unwrap();
        let error = overwrite(&folder.path().join("file/x"), b"").unwrap_err().to_string();
        assert!(error.contains("cannot make the folder"), "{error}");
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("kept/in")).unwrap();
        std::fs::create_dir_all(at("gone/in")).unwrap();
        std::fs::write(at("kept/x"), "").unwrap();
        for link in ["gone/link", "gone/in/link", "link"] {
            std::os::unix::fs::symlink(at("kept"), at(link)).unwrap();
        }
        assert!(remove_whatever(&at("gone")).unwrap());
        assert!(remove_whatever(&at("link")).unwrap());
        assert!(!remove_whatever(&at("link")).unwrap());
        assert!(!at("gone").exists() && at("kept/x").exists() && at("kept/in").exists());
    }

    #[test]
    fn an_error_says_what_and_where() {
        let error = measure(Path::new("/nonexistent/x")).unwrap_err().to_string();
        assert!(error.starts_with("cannot open /nonexistent/x: "), "{error}");
    }
}
