//! Deltas: patches from the artifact of an earlier release.

use serde::{Deserialize, Serialize};

use super::check::{
    BOOT_SIZE_MAX, ReleaseError, check_digest, check_file_name, check_identifier, check_url,
    invalid,
};
use super::file::PublishedFile;

/// A delta, which produces an artifact from the same artifact of an earlier release; see [`crate::delta`].
///
/// Using it is optional. Hosts ignore deltas in a format that they do not support; every later format must keep these
/// fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaFile {
    /// The SHA-256 of the artifact that it applies to, in lower-case hexadecimal.
    pub from: String,
    /// Its format, such as [`crate::delta::FORMAT`].
    pub format: String,
    /// Its file name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// Its URL, absolute or relative to the URL of the manifest.
    pub url: String,
    /// An upper limit for the memory in bytes that applying it takes.
    pub memory: u64,
}

impl DeltaFile {
    /// Returns the file as it is published.
    pub fn file(&self) -> PublishedFile<'_> {
        let Self { name, size, sha256, url, .. } = self;
        PublishedFile { name, size: *size, sha256, url }
    }

    pub(super) fn validate(&self) -> Result<(), ReleaseError> {
        check_digest("source digest of a delta", &self.from)?;
        check_identifier("format of a delta", &self.format)?;
        check_file_name("delta name", &self.name)?;
        check_digest("delta digest", &self.sha256)?;
        check_url("delta url", &self.url)?;
        match (1..=BOOT_SIZE_MAX).contains(&self.size) {
            true => Ok(()),
            false => {
                Err(invalid("delta size", &self.size.to_string(), "expected 1 to 4294967295 bytes"))
            }
        }
    }
}
