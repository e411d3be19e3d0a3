//! The files of a store, on any file system.
//!
//! A record is never overwritten: a new one goes to a file of another name, and the old file is removed when
//! the new one is on the disk. FAT has no other way to survive a power cut; see [`FileSystem`]. File names are
//! digests of the names of sources, because FAT does not distinguish upper and lower case.

use std::collections::BTreeMap;

use protocol::digest;
use protocol::esp::DIRECTORY;

use super::kept::{FILE_MAX, Kept, KeptError};
use crate::files::{
    FileError, FileSystem, at, create_directories, files_in, read_limited, remove_if_exists,
};

/// How many characters of the digest of a name are the name of a file.
const NAME_LENGTH: usize = 16;
/// The ends of the names of the two files that a source can have.
const ENDS: [&str; 2] = ["0", "1"];

/// How much a store may take of its file system, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// One record.
    pub record: u64,
    /// All records together.
    pub total: u64,
}

/// A record that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The record is larger than the limit.
    #[error("it has {size} bytes, and at most {max} fit there")]
    TooLarge {
        /// The size of the record.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The disk does not return what was written.
    #[error("the disk does not keep what is written: {0}")]
    ReadBack(KeptError),
}

/// Returns the path of the directory, relative to the root of the file system.
fn directory() -> String {
    format!("{DIRECTORY}/sources")
}

fn stem(source: &str) -> String {
    format!("{}/{:.NAME_LENGTH$}", directory(), digest::of_bytes(source.as_bytes()))
}

fn paths(source: &str) -> [String; 2] {
    ENDS.map(|end| format!("{}.{end}", stem(source)))
}

/// Reads all records, by the names of their sources. `report` gets the files that cannot be read, with the
/// reasons; they count as missing.
pub fn read_all(fs: &dyn FileSystem, report: &mut dyn FnMut(String)) -> BTreeMap<String, Kept> {
    let mut found = BTreeMap::<String, Kept>::new();
    let paths = files_in(fs, &directory()).unwrap_or_else(|error| {
        report(error.to_string());
        Vec::new()
    });
    for path in paths {
        match read(fs, &path) {
            Ok(kept) => {
                let is_older = |other: &Kept| other.sequence >= kept.sequence;
                if !found.get(&kept.source).is_some_and(is_older) {
                    found.insert(kept.source.clone(), kept);
                }
            }
            Err(reason) => report(format!("{path}: {reason}")),
        }
    }
    found
}

fn read(fs: &dyn FileSystem, path: &str) -> Result<Kept, String> {
    let bytes = read_limited(fs, path, FILE_MAX).map_err(|error| error.to_string())?;
    let kept = Kept::from_bytes(&bytes.unwrap_or_default()).map_err(|error| error.to_string())?;
    match paths(&kept.source).iter().any(|expected| expected == path) {
        true => Ok(kept),
        false => Err("it has the record of another source".to_owned()),
    }
}

/// Writes a record in the place of an older one. After a power cut, the file system has one of both.
///
/// # Errors
/// Fails if the record is too large, or cannot be written. The older record stays then.
pub fn write(fs: &dyn FileSystem, kept: &Kept, limits: Limits) -> Result<(), WriteError> {
    let (bytes, directory) = (kept.to_bytes(), directory());
    let size = bytes.len() as u64;
    let [first, second] = paths(&kept.source);
    let is_first_newer = match (read(fs, &first), read(fs, &second)) {
        (Ok(first), Ok(second)) => first.sequence >= second.sequence,
        (first, _) => first.is_ok(),
    };
    let (new, old) = if is_first_newer { (second, first) } else { (first, second) };
    let max = limits.record.min(limits.total.saturating_sub(others(fs, &kept.source)?));
    if size > max {
        return Err(WriteError::TooLarge { size, max });
    }
    create_directories(fs, &directory)?;
    if let Err(error) = write_new(fs, &new, &bytes) {
        // A full disk needs the space. The error that is returned is the first one.
        let _ = remove_if_exists(fs, &new);
        return Err(error);
    }
    if remove_if_exists(fs, &old)? {
        fs.sync_directory(&directory)?;
    }
    Ok(())
}

/// Writes a file that must not exist after a power cut unless it is complete, and reads it again.
fn write_new(fs: &dyn FileSystem, path: &str, bytes: &[u8]) -> Result<(), WriteError> {
    let directory = directory();
    if remove_if_exists(fs, path)? {
        fs.sync_directory(&directory)?;
    }
    let mut file = fs.create(path)?;
    file.write_at(bytes, 0).map_err(at("write", path))?;
    file.sync().map_err(at("flush", path))?;
    drop(file);
    fs.sync_directory(&directory)?;
    let written = read_limited(fs, path, FILE_MAX)?.unwrap_or_default();
    Kept::from_bytes(&written).map_err(WriteError::ReadBack)?;
    Ok(())
}

/// Removes the record of a source, if there is one.
///
/// # Errors
/// Fails if a file cannot be removed.
pub fn remove(fs: &dyn FileSystem, source: &str) -> Result<(), FileError> {
    let mut was_there = false;
    for path in paths(source) {
        was_there |= remove_if_exists(fs, &path)?;
    }
    if was_there { fs.sync_directory(&directory()) } else { Ok(()) }
}

/// Returns the size of the records of other sources.
fn others(fs: &dyn FileSystem, source: &str) -> Result<u64, FileError> {
    let (own, mut total) = (paths(source), 0);
    for path in files_in(fs, &directory())? {
        if !own.contains(&path)
            && let Some(crate::files::Entry::File { size }) = fs.metadata(&path)?
        {
            total += size;
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::esp::{Access, Esp};
    use crate::host::Host;
    use serde_json::json;

    const LIMITS: Limits = Limits { record: 10_000, total: 15_000 };

    fn file_system() -> (tempfile::TempDir, Esp) {
        let directory = tempfile::tempdir().unwrap();
        let esp = Esp::open(&Host::new("/nonexistent"), Some(directory.path()), Access::Read);
        (directory, esp.unwrap().unwrap())
    }

    fn kept(source: &str, sequence: u64, size: usize) -> Kept {
        let mut kept = Kept { sequence, ..Kept::new(source) };
        kept.commands.replace(Some(vec![json!({"id": "x".repeat(size)})]));
        kept
    }

    fn all(fs: &dyn FileSystem) -> (Vec<(String, u64)>, Vec<String>) {
        let mut problems = Vec::new();
        let found = read_all(fs, &mut |problem| problems.push(problem));
        (found.into_values().map(|kept| (kept.source, kept.sequence)).collect(), problems)
    }

    #[test]
    fn replaces_and_removes_records() {
        let (directory, fs) = file_system();
        assert_eq!(all(&fs), (vec![], vec![]));
        for sequence in 1..4 {
            write(&fs, &kept("web", sequence, 10), LIMITS).unwrap();
            write(&fs, &kept("WEB", sequence + 10, 10), LIMITS).unwrap();
            let found = vec![("WEB".to_owned(), sequence + 10), ("web".to_owned(), sequence)];
            assert_eq!(all(&fs), (found, vec![]));
            let files = std::fs::read_dir(directory.path().join("etchaos/sources")).unwrap();
            assert_eq!(files.count(), 2);
        }
        remove(&fs, "web").unwrap();
        remove(&fs, "never").unwrap();
        assert_eq!(all(&fs).0, [("WEB".to_owned(), 13)]);
    }

    #[test]
    fn limits_the_size_of_a_record_and_of_all() {
        let (_directory, fs) = file_system();
        let error = write(&fs, &kept("a", 1, 10_000), LIMITS).unwrap_err().to_string();
        assert!(error.contains("at most 10000 fit"), "{error}");
        write(&fs, &kept("a", 1, 8000), LIMITS).unwrap();
        // The record itself does not count, because it is replaced.
        write(&fs, &kept("a", 2, 9000), LIMITS).unwrap();
        assert!(write(&fs, &kept("b", 1, 8000), LIMITS).is_err());
        assert_eq!(all(&fs).0, [("a".to_owned(), 2)]);
    }

    #[test]
    fn damaged_files_are_reported_and_replaced() {
        let (directory, fs) = file_system();
        write(&fs, &kept("web", 1, 10), LIMITS).unwrap();
        let [first, second] = paths("web").map(|path| directory.path().join(path));
        std::fs::copy(&first, &second).unwrap();
        std::fs::write(&first, "torn").unwrap();
        let (found, problems) = all(&fs);
        assert_eq!(found, [("web".to_owned(), 1)]);
        assert!(problems[0].contains("is damaged"), "{problems:?}");
        // The valid one is replaced last.
        write(&fs, &kept("web", 2, 10), LIMITS).unwrap();
        assert_eq!(all(&fs), (vec![("web".to_owned(), 2)], vec![]));
        // A record under the name of another source counts for none.
        std::fs::rename(&first, directory.path().join(&paths("other")[0])).unwrap();
        let (found, problems) = all(&fs);
        assert!(found.is_empty() && problems[0].contains("another source"), "{problems:?}");
        std::fs::remove_dir_all(directory.path().join("etchaos/sources")).unwrap();
        std::fs::write(directory.path().join("etchaos/sources"), "a file").unwrap();
        assert_eq!(all(&fs).0, []);
        assert!(write(&fs, &kept("web", 3, 10), LIMITS).is_err());
    }
}
