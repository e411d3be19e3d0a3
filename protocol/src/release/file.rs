//! What all files of a release have in common.

/// An artifact, a delta or a document of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedFile<'a> {
    /// Its file name.
    pub name: &'a str,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256 in lower-case hexadecimal.
    pub sha256: &'a str,
    /// Its URL, absolute or relative to the URL of the manifest.
    pub url: &'a str,
}
