//! The file system of the ESP: the operations that an update consists of, and what each of them
//! guarantees after a power cut.
//!
//! There are two implementations: a directory of the host ([`crate::esp::Esp`]), and the tests' disk in
//! memory, which can lose power at any moment. The tests thus check the order of writes of the real code.

mod directory;

use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use protocol::digest::Hasher;

use crate::io_hint::hint;

/// The size of a read buffer: large enough to make the cost of system calls negligible, small enough for
/// a host with little memory.
pub(crate) const CHUNK: usize = 256 * 1024;
/// The default of [`FileSystem::flush_every`].
const FLUSH_EVERY: u64 = 16 << 20;

/// The type of a directory entry. Links are not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File {
        /// The size in bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// Anything else, such as a link or a pipe. FAT has none, but a directory of `--esp` may.
    Other,
}

/// The free space of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// The allocation unit in bytes.
    pub cluster: u64,
    /// The free space in bytes.
    pub free: u64,
}

/// A file system. Paths are relative to its root, which is the empty path.
///
/// A change is on the disk only after a flush: the content and the size of a file after
/// [`OpenFile::sync`], new and removed names after [`FileSystem::sync_directory`]. After a power cut, any
/// combination of the changes that were not flushed may be on the disk, torn at 512 bytes. There is no
/// rename: on FAT it is not atomic, and a power cut may leave both names with the same clusters.
pub trait FileSystem {
    /// Returns the type of an entry, or `None` if it does not exist.
    fn metadata(&self, path: &str) -> Result<Option<Entry>, FileError>;
    /// Returns the names in a directory, sorted.
    fn list(&self, directory: &str) -> Result<Vec<String>, FileError>;
    /// Opens a file for reading from the disk: its clean pages are dropped from the cache first.
    fn open(&self, path: &str) -> Result<Box<dyn ReadSeek + '_>, FileError>;
    /// Creates a file for writing. Fails if the path exists.
    fn create(&self, path: &str) -> Result<Box<dyn OpenFile + '_>, FileError>;
    /// Opens a file for writing in place.
    fn edit(&self, path: &str) -> Result<Box<dyn OpenFile + '_>, FileError>;
    /// Creates one directory.
    fn create_directory(&self, path: &str) -> Result<(), FileError>;
    /// Removes a file, or a link.
    fn remove_file(&self, path: &str) -> Result<(), FileError>;
    /// Removes a directory with its content. Links are removed and not followed.
    fn remove_directory(&self, path: &str) -> Result<(), FileError>;
    /// Flushes a directory.
    fn sync_directory(&self, directory: &str) -> Result<(), FileError>;
    /// Returns the free space.
    fn capacity(&self) -> Result<Capacity, FileError>;
    /// Returns after how many bytes a long file is flushed. A power cut loses at most this much of a
    /// download.
    fn flush_every(&self) -> u64 {
        FLUSH_EVERY
    }
}

/// A file that is open for reading.
pub trait ReadSeek: Read + Seek {}

impl<T: Read + Seek> ReadSeek for T {}

/// A file that is open for writing.
pub trait OpenFile {
    /// Writes at an offset, which must not be beyond the end of the file.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Truncates the file.
    fn set_len(&mut self, length: u64) -> io::Result<()>;
    /// Flushes the content and the size.
    fn sync(&mut self) -> io::Result<()>;
}

/// A failed operation on a file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {error}{}", path.display(), hint(error))]
pub struct FileError {
    /// The operation, as a verb.
    pub operation: &'static str,
    /// The path that it was applied to.
    pub path: PathBuf,
    /// The error.
    pub error: io::Error,
}

/// Returns a function that turns an I/O error into a [`FileError`].
pub fn at(operation: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> FileError {
    move |error| FileError { operation, path: path.as_ref().to_owned(), error }
}

/// Returns the directory part of a path.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// Creates a directory and its parents if they are missing, and flushes each of them.
pub fn create_directories(fs: &dyn FileSystem, directory: &str) -> Result<(), FileError> {
    if directory.is_empty() || fs.metadata(directory)? == Some(Entry::Directory) {
        return Ok(());
    }
    create_directories(fs, parent(directory))?;
    fs.create_directory(directory)?;
    fs.sync_directory(directory)?;
    fs.sync_directory(parent(directory))
}

/// Removes a file, or a directory with its content. Returns whether it existed.
pub fn remove_if_exists(fs: &dyn FileSystem, path: &str) -> Result<bool, FileError> {
    match fs.metadata(path)? {
        None => return Ok(false),
        Some(Entry::Directory) => fs.remove_directory(path)?,
        Some(Entry::File { .. } | Entry::Other) => fs.remove_file(path)?,
    }
    Ok(true)
}

/// Returns the paths of the files in a directory; none if it does not exist. Subdirectories are ignored,
/// because the updater creates none.
pub fn files_in(fs: &dyn FileSystem, directory: &str) -> Result<Vec<String>, FileError> {
    if !directory.is_empty() && fs.metadata(directory)? != Some(Entry::Directory) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for name in fs.list(directory)? {
        let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
        if fs.metadata(&path)? != Some(Entry::Directory) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Reads a file. Returns `None` if it does not exist, and an error if it has more than `max` bytes.
pub fn read_limited(
    fs: &dyn FileSystem,
    path: &str,
    max: u64,
) -> Result<Option<Vec<u8>>, FileError> {
    let error = |kind, reason: String| Err(at("read", path)(io::Error::new(kind, reason)));
    match fs.metadata(path)? {
        None => return Ok(None),
        Some(Entry::File { .. }) => {}
        Some(_) => return error(io::ErrorKind::Other, "it is not a file".into()),
    }
    let mut bytes = Vec::new();
    fs.open(path)?.take(max + 1).read_to_end(&mut bytes).map_err(at("read", path))?;
    match bytes.len() as u64 > max {
        false => Ok(Some(bytes)),
        true => {
            let reason = format!("it is longer than {max} bytes, the maximum");
            error(io::ErrorKind::FileTooLarge, reason)
        }
    }
}

/// Reads the next `length` bytes into a digest. `report` is called with the number of bytes read so far.
pub fn hash(
    from: &mut dyn Read,
    length: u64,
    digest: &mut Hasher,
    report: &dyn Fn(u64),
) -> io::Result<()> {
    let next_size = |left| usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
    let mut buffer = vec![0; next_size(length)];
    let mut left = length;
    while left > 0 {
        match from.read(&mut buffer[..next_size(left)]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                digest.update(&buffer[..read]);
                left -= read as u64;
                report(length - left);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns the SHA-256 of the first `size` bytes of a file, read from the disk.
pub fn measure(fs: &dyn FileSystem, path: &str, size: u64) -> Result<String, FileError> {
    measure_with(fs, path, size, &|_| {})
}

/// Does the same as [`measure`]. `report` is called with the number of bytes read so far.
pub fn measure_with(
    fs: &dyn FileSystem,
    path: &str,
    size: u64,
    report: &dyn Fn(u64),
) -> Result<String, FileError> {
    let mut digest = Hasher::default();
    hash(&mut *fs.open(path)?, size, &mut digest, report).map_err(at("read", path))?;
    Ok(digest.finish())
}

/// Overwrites a file in place and flushes it. Creates the file and its directory if they are missing,
/// and removes an entry of another type.
///
/// This is atomic after a power cut only if the file existed with the same length and all changed bytes
/// lie in one sector: then no metadata is written, and a disk writes a sector completely or not at all.
/// GRUB writes grubenv in the same way.
pub fn overwrite(fs: &dyn FileSystem, path: &str, bytes: &[u8]) -> Result<(), FileError> {
    let (length, directory) = (bytes.len() as u64, parent(path));
    let found = match fs.metadata(path)? {
        Some(Entry::File { size }) => Some(size),
        Some(_) => {
            remove_if_exists(fs, path)?;
            fs.sync_directory(directory)?;
            None
        }
        None => None,
    };
    let mut file = match found {
        Some(_) => fs.edit(path)?,
        None => {
            create_directories(fs, directory)?;
            fs.create(path)?
        }
    };
    if let Some(found) = found
        && found != length
    {
        // A file that becomes longer is truncated to its own length, which frees clusters that a power
        // cut left beyond its end; see `install::partial`.
        file.set_len(found.min(length)).map_err(at("truncate", path))?;
    }
    file.write_at(bytes, 0).map_err(at("write", path))?;
    file.sync().map_err(at("flush", path))?;
    match found {
        Some(_) => Ok(()),
        None => fs.sync_directory(directory),
    }
}
