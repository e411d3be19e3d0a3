//! Why an installation fails.

use protocol::Role;
use protocol::url::UrlError;

use super::space::SpaceError;
use crate::cdn::{CdnError, FetchError};
use crate::files::FileError;

/// A failed installation. The release that was good before still boots.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// There is not enough space.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// An artifact has a URL that must not be followed.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// A request for an artifact failed.
    #[error(transparent)]
    Cdn(#[from] CdnError),
    /// The server announces another size than the manifest.
    #[error(
        "the CDN announces {found} bytes for the {role}, but the manifest says {expected}: was the release published completely?"
    )]
    Length {
        /// The role of the artifact.
        role: Role,
        /// The size in the manifest.
        expected: u64,
        /// The size that the server announces.
        found: u64,
    },
    /// An artifact could not be downloaded completely.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A signal ended the installation of an artifact.
    #[error(
        "interrupted: {bytes} of the {size} bytes of the {role} are written; the next update continues after them"
    )]
    Interrupted {
        /// The role of the artifact.
        role: Role,
        /// The number of bytes on the disk.
        bytes: u64,
        /// The size in the manifest.
        size: u64,
    },
    /// An operation on the disk failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file differs from what was written.
    #[error(
        "{path} was written but reads back with the SHA-256 {found}, expected {expected}: the disk is failing"
    )]
    ReadBack {
        /// The path of the file.
        path: String,
        /// The digest of what was written.
        expected: String,
        /// The digest of what was read.
        found: String,
    },
}
