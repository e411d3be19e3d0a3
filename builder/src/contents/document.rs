//! The list of files as a document of a release: JSON, compressed with zstd.

use std::io::Read;

use anyhow::{Context, Result, ensure};
use protocol::Target;

use super::entry::Contents;

/// The maximum size of a compressed document. That of an image of Debian has about 0.5 MB.
pub(crate) const DOCUMENT_MAX: u64 = 16 << 20;
/// The maximum size of a document.
const JSON_MAX: u64 = 64 << 20;
/// The maximum window of the decompressor, as a power of two. It bounds memory.
const WINDOW_LOG_MAX: u32 = 27;
/// The level of the compressor.
const LEVEL: i32 = 12;

/// Returns the file name of the document of a target.
pub(crate) fn name(target: &Target) -> String {
    format!("etchaos_{target}.contents.json.zst")
}

impl Contents {
    /// Returns the document. The same list gives the same bytes.
    pub(crate) fn to_document(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(self)?;
        zstd::bulk::compress(&json, LEVEL).context("compressing the list of files")
    }

    /// Reads a document from outside.
    ///
    /// # Errors
    /// Fails if the document is too large, not a list of files, or has an invalid entry.
    pub(crate) fn from_document(document: &[u8]) -> Result<Self> {
        ensure!(
            document.len() as u64 <= DOCUMENT_MAX,
            "the list of files has {} bytes, expected at most {DOCUMENT_MAX}",
            document.len()
        );
        let failed = || "decompressing the list of files";
        let mut decoder = zstd::stream::read::Decoder::new(document).with_context(failed)?;
        decoder.window_log_max(WINDOW_LOG_MAX).with_context(failed)?;
        let mut json = Vec::new();
        decoder.take(JSON_MAX + 1).read_to_end(&mut json).with_context(failed)?;
        ensure!(
            json.len() as u64 <= JSON_MAX,
            "the list of files has more than {JSON_MAX} bytes after decompression"
        );
        let contents: Self =
            serde_json::from_slice(&json).context("the list of files is not valid")?;
        contents.check()?;
        Ok(contents)
    }
}
