//! The file system of the ESP: the few operations that an update consists of, and what each of them
//! promises after a power cut.
//!
//! There are two implementations: a directory of the host ([`crate::esp::Esp`]), and a disk in memory
//! that loses power at any moment, which the tests have. So what is written in which order is tried
//! out on the code that does it.

mod directory;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use sha2::{Digest, Sha256};

/// Large enough that system calls do not count, small enough for a host with little memory.
pub const CHUNK: usize = 256 * 1024;
/// See [`FileSystem::flush_every`].
const FLUSH_EVERY: u64 = 16 << 20;

/// What a path leads to. Links are not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A file.
    File {
        /// In bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// Something that FAT does not have: a link, a pipe. A directory that stands for an ESP may.
    Other,
}

/// The size of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// What a file takes is a multiple of this, in bytes.
    pub cluster: u64,
    /// In bytes.
    pub free: u64,
}

/// A file system. Paths are relative to its root; the root is the empty path.
///
/// Nothing is on the disk before it is flushed: the content and the size of a file by
/// [`OpenFile::sync`], what was made in a directory and removed from it by [`FileSystem::sync_directory`].
/// What is not flushed may be there after a power cut or not, in any combination, torn at 512 bytes.
/// There is no rename: on FAT it is not atomic, and a cut may leave both names for the same clusters.
pub trait FileSystem {
    /// What is there, if anything.
    fn metadata(&self, path: &str) -> Result<Option<Entry>, FileError>;
    /// The names in a directory, sorted.
    fn list(&self, directory: &str) -> Result<Vec<String>, FileError>;
    /// A file to be read as the disk has it: what a cache holds is dropped first, as far as it is on
    /// the disk.
    fn open(&self, path: &str) -> Result<Box<dyn Read + '_>, FileError>;
    /// A new file to be written. An error, if there is something.
    fn create(&self, path: &str) -> Result<Box<dyn OpenFile + '_>, FileError>;
    /// A file to be written in place.
    fn edit(&self, path: &str) -> Result<Box<dyn OpenFile + '_>, FileError>;
    /// Makes one directory.
    fn create_directory(&self, path: &str) -> Result<(), FileError>;
    /// Removes a file, or a link.
    fn remove_file(&self, path: &str) -> Result<(), FileError>;
    /// Removes a directory with everything in it. Links in it are removed and never followed.
    fn remove_directory(&self, path: &str) -> Result<(), FileError>;
    /// Flushes a directory.
    fn sync_directory(&self, directory: &str) -> Result<(), FileError>;
    /// What is free.
    fn capacity(&self) -> Result<Capacity, FileError>;
    /// After so many bytes a long file is flushed: a power cut does not cost more of a download.
    fn flush_every(&self) -> u64 {
        FLUSH_EVERY
    }
}

/// A file that is open for writing.
pub trait OpenFile {
    /// Writes at this offset, which is not behind the file's end.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts it.
    fn set_len(&mut self, length: u64) -> io::Result<()>;
    /// Flushes content and size.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file that the system refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {why}{}", path.display(), hint(why))]
pub struct FileError {
    /// What was tried.
    pub doing: &'static str,
    /// With which file.
    pub path: PathBuf,
    /// What the system says.
    pub why: io::Error,
}

/// What to do about errors that do not say it.
pub(crate) fn hint(why: &io::Error) -> &'static str {
    match why.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EROFS) => {
            "; Linux makes a FAT read-only when it finds it damaged (see dmesg), or the disk is write-protected: the next update repairs it if fsck.vfat is installed, or run \"fsck.vfat -a\" on the device while it is not mounted"
        }
        Some(Errno::ENOSPC) => "; the file system is full: remove what is not needed there",
        Some(Errno::EEXIST) => "; it is in the way, and may be removed",
        Some(Errno::EIO) => "; the disk may be failing (see dmesg)",
        _ => "",
    }
}

/// Makes a [`FileError`] of an I/O error.
pub fn at(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> FileError {
    move |why| FileError { doing, path: path.as_ref().to_owned(), why }
}

/// The directory that a path is in.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// Makes a directory and those above it, flushed one by one, if it is not there.
pub fn create_directories(fs: &dyn FileSystem, directory: &str) -> Result<(), FileError> {
    if directory.is_empty() || fs.metadata(directory)? == Some(Entry::Directory) {
        return Ok(());
    }
    create_directories(fs, parent(directory))?;
    fs.create_directory(directory)?;
    fs.sync_directory(directory)?;
    fs.sync_directory(parent(directory))
}

/// Removes a file, or a directory with everything in it, if it is there. Says whether it was.
pub fn remove_if_exists(fs: &dyn FileSystem, path: &str) -> Result<bool, FileError> {
    match fs.metadata(path)? {
        None => return Ok(false),
        Some(Entry::Directory) => fs.remove_directory(path)?,
        Some(Entry::File { .. } | Entry::Other) => fs.remove_file(path)?,
    }
    Ok(true)
}

/// The files in a directory, by their paths; none if there is no such directory. Directories in it are not ours.
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

/// A whole file of at most `max` bytes; `None` if there is no such file.
pub fn read_limited(
    fs: &dyn FileSystem,
    path: &str,
    max: u64,
) -> Result<Option<Vec<u8>>, FileError> {
    let refused = |kind, why: String| Err(at("read", path)(io::Error::new(kind, why)));
    match fs.metadata(path)? {
        None => return Ok(None),
        Some(Entry::File { .. }) => {}
        Some(_) => return refused(io::ErrorKind::Other, "it is not a file".into()),
    }
    let mut bytes = Vec::new();
    fs.open(path)?.take(max + 1).read_to_end(&mut bytes).map_err(at("read", path))?;
    match bytes.len() as u64 > max {
        false => Ok(Some(bytes)),
        true => {
            let why = format!("it is longer than the {max} bytes that are read");
            refused(io::ErrorKind::FileTooLarge, why)
        }
    }
}

/// The SHA-256 of the next `length` bytes, added to what was hashed before. `seen` is told after every
/// piece how many bytes were read.
pub fn hash(
    from: &mut dyn Read,
    length: u64,
    digest: &mut Sha256,
    seen: &dyn Fn(u64),
) -> io::Result<()> {
    let room = |left| usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
    let mut buffer = vec![0; room(length)];
    let mut left = length;
    while left > 0 {
        match from.read(&mut buffer[..room(left)]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                digest.update(&buffer[..read]);
                left -= read as u64;
                seen(length - left);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The SHA-256 of a file of this size as the disk has it.
pub fn measure(fs: &dyn FileSystem, path: &str, size: u64) -> Result<String, FileError> {
    measure_with(fs, path, size, &|_| {})
}

/// The same; `seen` is told after every piece how many bytes were read.
pub fn measure_with(
    fs: &dyn FileSystem,
    path: &str,
    size: u64,
    seen: &dyn Fn(u64),
) -> Result<String, FileError> {
    let mut digest = Sha256::new();
    hash(&mut *fs.open(path)?, size, &mut digest, seen).map_err(at("read", path))?;
    Ok(hex(digest))
}

/// The digest as manifests write it.
pub fn hex(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Overwrites a file in place and flushes it; makes it, and its directory, if it is not there. What is
/// in its place and is no file goes.
///
/// It does not promise that the file is whole after a power cut. It is, if the file was there, had
/// this length, and the bytes that change lie in one sector: then no metadata is written, and a disk
/// writes a sector whole. GRUB writes grubenv in the same way.
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
        // Also if it is to become longer: that frees what a power cut left behind its end, see
        // `install::partial`.
        file.set_len(found.min(length)).map_err(at("cut", path))?;
    }
    file.write_at(bytes, 0).map_err(at("write", path))?;
    file.sync().map_err(at("flush", path))?;
    match found {
        Some(_) => Ok(()),
        None => fs.sync_directory(directory),
    }
}
