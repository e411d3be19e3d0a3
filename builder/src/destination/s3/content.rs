//! The content and the headers of files to store.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result, ensure};
use object_store::{Attribute, Attributes};
use protocol::digest;

use super::client::{Client, PART_SIZE};
use super::read;
use crate::destination::headers;
use crate::destination::interface::Upload;

/// Returns the headers to store with a file.
pub(super) fn attributes(path: &str, cache_control: &'static str) -> Attributes {
    let content_type = (Attribute::ContentType, headers::content_type(path));
    Attributes::from_iter([content_type, (Attribute::CacheControl, cache_control)])
}

/// Reads a file of at most [`PART_SIZE`] bytes and checks its content.
pub(super) fn read_whole(upload: &Upload) -> Result<Vec<u8>> {
    let (from, mut bytes) = (&upload.from, Vec::new());
    let read = File::open(from).and_then(|file| file.take(PART_SIZE + 1).read_to_end(&mut bytes));
    read.with_context(|| format!("reading {}", from.display()))?;
    check_content(upload, bytes.len() as u64, &digest::of_bytes(&bytes))?;
    Ok(bytes)
}

/// Checks what was read of the local file.
pub(super) fn check_content(upload: &Upload, size: u64, sha256: &str) -> Result<()> {
    ensure!(
        size == upload.size && sha256 == upload.sha256,
        "{} has {size} bytes and the SHA-256 {sha256}, expected {} bytes and {}; was the file \
         changed, or is the disk faulty?",
        upload.from.display(),
        upload.size,
        upload.sha256
    );
    Ok(())
}

/// Checks the size of a file that was stored.
pub(super) async fn check_size(client: &Client, upload: &Upload) -> Result<()> {
    let found = read::stat(client, &upload.path).await?.map(|(size, _)| size);
    ensure!(
        found == Some(upload.size),
        "{} has {} after it was written, expected {} bytes; run the command again",
        client.url(&upload.path),
        found.map_or("no content".to_owned(), |size| format!("{size} bytes")),
        upload.size
    );
    Ok(())
}
