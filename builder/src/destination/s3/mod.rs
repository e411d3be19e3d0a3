//! A bucket of an S3-compatible store as a destination.
//!
//! - [`environment`] and [`settings`] find the credentials and the endpoint, [`address`] checks URLs
//! - [`client`] prepares the connection; [`read`], [`write`](self::write) and [`parts`] send the
//!   requests; [`content`] checks what is sent
//! - [`failure`] explains what the store answered
//!
//! S3 has no lock. Two publishers at the same time are safe because [`Destination::replace`] is a
//! conditional write. The parts of an upload that was killed are never visible, but they cost space:
//! `object_store` cannot list them, so the bucket needs a lifecycle rule that aborts incomplete
//! uploads after a day.

mod address;
mod client;
mod content;
mod environment;
mod failure;
mod parts;
mod read;
mod settings;
mod write;

#[cfg(test)]
#[path = "../../../tests/s3/mod.rs"]
mod server;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use protocol::digest::Hasher;

use super::interface::{Created, Destination, Listed, Location, Lock, Stored, Upload, Version};
use client::Client;
pub(crate) use environment::Environment;

/// A bucket, or a directory in it.
pub(crate) struct S3 {
    client: Client,
}

impl S3 {
    /// Opens `s3://BUCKET[/PREFIX]`. Sends no request to the bucket yet.
    ///
    /// # Errors
    /// Fails if the URL or the environment has the wrong form, or if there are no credentials.
    pub(crate) fn open(url: &str, environment: &Environment) -> Result<Self> {
        let address = address::Address::parse(url)?;
        let settings =
            settings::Settings::collect(environment).with_context(|| format!("opening {url}"))?;
        Ok(Self { client: Client::new(address, settings)? })
    }
}

/// Shows no settings, because they contain secrets.
impl fmt::Debug for S3 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("S3").field(&self.describe()).finish()
    }
}

impl Location for S3 {
    fn describe(&self) -> String {
        self.client.url("")
    }

    fn read(&self, path: &str, max: u64) -> Result<Option<Stored>> {
        self.client.runtime.block_on(read::read(&self.client, path, max))
    }

    fn measure(&self, path: &str, max: u64) -> Result<Option<(u64, String)>> {
        let mut hasher = Hasher::default();
        let sink = |block: &[u8]| {
            hasher.update(block);
            Ok(())
        };
        let streamed = read::stream(&self.client, path, max.saturating_add(1), sink);
        let size = self.client.runtime.block_on(streamed)?;
        Ok(size.map(|size| (size, hasher.finish())))
    }

    fn download(&self, path: &str, max: u64, to: &Path) -> Result<()> {
        let writing = || format!("writing to {}", to.display());
        let mut file = File::create_new(to).with_context(writing)?;
        let sink = |block: &[u8]| file.write_all(block).with_context(writing);
        let streamed = read::stream(&self.client, path, max.saturating_add(1), sink);
        let size = self.client.runtime.block_on(streamed)?;
        let size = size.with_context(|| format!("{} has no file {path}", self.client.url("")))?;
        ensure!(size <= max, "{} has more than {max} bytes", self.client.url(path));
        Ok(())
    }
}

impl Destination for S3 {
    fn lock(&self) -> Result<Lock> {
        // There is nothing to hold. A wrong bucket or key is reported before a long upload starts.
        self.client.runtime.block_on(read::check_access(&self.client))?;
        Ok(Box::new(()))
    }

    fn create(&self, upload: &Upload) -> Result<Created> {
        self.client.runtime.block_on(write::create(&self.client, upload))
    }

    fn repair(&self, upload: &Upload) -> Result<()> {
        self.client.runtime.block_on(write::overwrite(&self.client, upload))
    }

    fn replace(&self, path: &str, bytes: &[u8], expected: Option<&Version>) -> Result<()> {
        self.client.runtime.block_on(write::replace(&self.client, path, bytes, expected))
    }

    fn list(&self, directory: &str) -> Result<Vec<Listed>> {
        self.client.runtime.block_on(read::list(&self.client, directory))
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.client.runtime.block_on(write::remove(&self.client, path))
    }
}
