//! Downloads of layers.

use std::fs::File;
use std::io::{Read, Seek, Write};

use anyhow::{Context, Error, Result, anyhow, ensure};
use protocol::digest::Hasher;
use ureq::Body;
use ureq::http::Response;

use super::client::{Client, Request, Retry};
use super::manifest::Blob;
use super::reference::Digest;
use crate::log_file::LogFile;

/// The maximum number of requests for one layer: the first one, and those that continue after an interruption.
const ATTEMPTS_MAX: u32 = 4;

/// A layer that is being written to a file.
struct Download<'a> {
    blob: &'a Blob,
    file: &'a mut File,
    hasher: Hasher,
    /// The number of bytes that were written.
    size: u64,
}

/// Downloads a layer to a file, and verifies its size and its digest.
///
/// After an interruption, the download continues where it ended.
pub(super) fn fetch(
    client: &Client<'_>,
    blob: &Blob,
    file: &mut File,
    log: &mut LogFile,
) -> Result<()> {
    let mut download = Download { blob, file, hasher: Hasher::default(), size: 0 };
    let mut attempt = 1;
    loop {
        match download.run(client) {
            Ok(()) => return download.verify(),
            Err((error, Retry::Useful)) if attempt < ATTEMPTS_MAX => {
                let (size, total) = (download.size, blob.size);
                log.line(&format!(
                    "interrupted after {size} of {total} bytes: {error:#}; continuing"
                ));
            }
            Err((error, _)) => {
                let (size, total) = (download.size, blob.size);
                return Err(error.context(format!("fetched {size} of {total} bytes")));
            }
        }
        attempt += 1;
    }
}

impl Download<'_> {
    /// Fetches the rest of the layer.
    fn run(&mut self, client: &Client<'_>) -> Result<(), (Error, Retry)> {
        let useless = |error: Error| (error, Retry::Useless);
        if self.size == self.blob.size {
            return Ok(());
        }
        let path = format!("blobs/{}", self.blob.digest);
        let response = client.get(Request::layer(&path, self.size))?;
        self.check_start(&response).map_err(useless)?;
        let mut body = response.into_body().into_reader();
        let mut block = vec![0; 1 << 16];
        loop {
            let count = match body.read(&mut block) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => return Err((client.interrupted(&error), Retry::Useful)),
            };
            self.write(&block[..count]).map_err(useless)?;
        }
        if self.size < self.blob.size {
            return Err((anyhow!("the answer ended early"), Retry::Useful));
        }
        Ok(())
    }

    /// Checks where the answer starts: at the byte that was asked for, or at the first one.
    fn check_start(&mut self, response: &Response<Body>) -> Result<()> {
        if self.size == 0 {
            return Ok(());
        }
        if response.status() == 206 {
            let range =
                response.headers().get("content-range").and_then(|value| value.to_str().ok());
            let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next());
            ensure!(
                start.is_some_and(|start| start == self.size.to_string()),
                "the registry does not continue at byte {}; try again",
                self.size
            );
            return Ok(());
        }
        self.file.set_len(0).and_then(|()| self.file.rewind()).context("emptying the file")?;
        self.hasher = Hasher::default();
        self.size = 0;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.size += bytes.len() as u64;
        ensure!(
            self.size <= self.blob.size,
            "the registry sends more than {} bytes, the size in the manifest",
            self.blob.size
        );
        self.hasher.update(bytes);
        self.file.write_all(bytes).context("writing the layer")
    }

    fn verify(self) -> Result<()> {
        let found = Digest::of_hasher(self.hasher);
        ensure!(
            found == self.blob.digest,
            "the content has the digest {found}, expected {} as in the manifest",
            self.blob.digest
        );
        Ok(())
    }
}
