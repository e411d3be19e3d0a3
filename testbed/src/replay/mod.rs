//! Power cuts without a machine: the recorded writes of a disk are replayed, and what a cut could
//! have left of them is judged.

pub mod disk;
pub mod fat;
pub mod grub;
pub mod judge;

use std::io;
use std::path::PathBuf;

use self::fat::FatError;

/// A replay that could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A file.
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The file system.
    #[error("{}: {source}", path.display())]
    Fat {
        /// On which disk.
        path: PathBuf,
        /// What is wrong.
        source: FatError,
    },
}
