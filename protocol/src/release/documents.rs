//! Documents: files that are published with a release, and that hosts do not download.

use serde::{Deserialize, Serialize};

use super::check::{
    DISK_SIZE_MAX, ReleaseError, check_digest, check_file_name, check_identifier, check_url,
    invalid,
};
use super::file::PublishedFile;

/// A file that is published with a release, and that hosts do not download.
///
/// These files are not [artifacts](Artifact), because a host refuses a release that has an artifact
/// of an unknown role. A new kind of document changes nothing for hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Its kind, such as `sbom`; see [`document`].
    pub kind: String,
    /// Its file name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// Its URL, absolute or relative to the URL of the manifest.
    pub url: String,
}

/// The kinds of documents that the builder publishes.
pub mod kind {
    /// The block map of the disk image, for `bmaptool`.
    pub const BLOCK_MAP: &str = "bmap";
    /// The disk image for disks with sectors of 4096 bytes, compressed with zstd.
    pub const DISK_4K: &str = "disk4k";
    /// The block map of that disk image.
    pub const BLOCK_MAP_4K: &str = "bmap4k";
    /// A tar file with the boot loader, the kernel and the initrd for network boot.
    pub const NETWORK_BOOT: &str = "netboot";
    /// The SPDX document that lists the packages and crates.
    pub const SBOM: &str = "sbom";
    /// The list of the files in the image.
    pub const CONTENTS: &str = "contents";
    /// The differences from the release that was published before.
    pub const NOTES: &str = "notes";
    /// The checksums of all other files, in the format of `sha256sum`.
    pub const CHECKSUMS: &str = "checksums";
}

impl Document {
    /// Returns the file as it is published.
    pub fn file(&self) -> PublishedFile<'_> {
        let Self { name, size, sha256, url, .. } = self;
        PublishedFile { name, size: *size, sha256, url }
    }

    pub(super) fn validate(&self) -> Result<(), ReleaseError> {
        check_identifier("document kind", &self.kind)?;
        check_digest("document digest", &self.sha256)?;
        check_file_name("document name", &self.name)?;
        if self.size == 0 || self.size > DISK_SIZE_MAX {
            let found = self.size.to_string();
            return Err(invalid("document size", &found, "expected 1 byte to 8 GiB"));
        }
        check_url("document url", &self.url)
    }
}
