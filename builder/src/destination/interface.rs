//! The interface of destinations.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Result;

/// A file to upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upload {
    /// The local file.
    pub from: PathBuf,
    /// The path at the destination.
    pub path: String,
    /// The size in bytes.
    pub size: u64,
    /// The SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

/// A small file that was read, and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The content.
    pub bytes: Vec<u8>,
    /// The version, which [`Destination::replace`] compares.
    pub version: Version,
}

/// The version of a stored file: an entity tag, or a digest. It changes when the content changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version(pub(crate) String);

/// A stored file in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// The path at the destination.
    pub path: String,
    /// The size in bytes.
    pub size: u64,
    /// The time of the last change.
    pub modified: SystemTime,
}

/// The result of an upload that must not overwrite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Created {
    /// The file was stored.
    New,
    /// There was a file at the path, which was not changed.
    Existed,
}

/// Excludes other publishers from a destination until it is dropped.
pub(crate) type Lock = Box<dyn Send>;

/// Another publisher changed a file after it was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "another publisher changed {path} in {destination} at the same time, so this release was not published; run the command again"
)]
pub(crate) struct Conflict {
    /// The path at the destination.
    pub path: String,
    /// The destination, for display.
    pub destination: String,
}

/// A place that stores the files of releases. Threads can use it at the same time.
///
/// A reader sees a file either completely or not at all, and either the old or the new content.
pub(crate) trait Destination: Send + Sync {
    /// Returns the destination for display, without credentials.
    fn describe(&self) -> String;

    /// Excludes other publishers, if the kind of destination can. Removes what interrupted uploads
    /// left.
    ///
    /// An S3 bucket has no lock; there, [`Destination::replace`] finds the conflict.
    ///
    /// # Errors
    /// Fails if another publisher holds the lock.
    fn lock(&self) -> Result<Lock>;

    /// Reads a file of at most `max` bytes; `None` if there is no such file.
    fn read(&self, path: &str, max: u64) -> Result<Option<Stored>>;

    /// Reads a whole file and returns its size and SHA-256; `None` if there is no such file. Stops
    /// after `max` bytes, so that the size of a larger file is more than `max`.
    fn measure(&self, path: &str, max: u64) -> Result<Option<(u64, String)>>;

    /// Copies a file of at most `max` bytes to a new local file.
    fn download(&self, path: &str, max: u64, to: &Path) -> Result<()>;

    /// Stores a file that is never changed, unless there is one at its path.
    fn create(&self, upload: &Upload) -> Result<Created>;

    /// Stores a file in place of a damaged one.
    fn repair(&self, upload: &Upload) -> Result<()>;

    /// Replaces a small file that changes, if it still has the version `expected`; `None` stands for
    /// a file that does not exist.
    ///
    /// # Errors
    /// Fails with [`Conflict`] if the file has another version.
    fn replace(&self, path: &str, bytes: &[u8], expected: Option<&Version>) -> Result<()>;

    /// Returns all files whose path starts with `directory` and a slash, or all files if it is empty.
    /// Files that start with a dot are not part of the result.
    fn list(&self, directory: &str) -> Result<Vec<Listed>>;

    /// Removes a file. A file that does not exist is not an error.
    fn remove(&self, path: &str) -> Result<()>;
}
