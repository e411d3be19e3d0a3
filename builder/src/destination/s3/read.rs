//! Reading files and lists.

use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use futures_util::TryStreamExt;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};

use super::client::{Client, PART_SIZE};
use super::failure::Failure;
use crate::destination::interface::{Listed, Stored, Version};

/// The maximum number of files in a list. It bounds what a faulty server can do.
const LISTED_MAX: usize = 1_000_000;

/// Reads a file of at most `max` bytes in one request; `None` if there is no such file.
pub(super) async fn read(client: &Client, path: &str, max: u64) -> Result<Option<Stored>> {
    let failed = |error| client.failed("reading", path, &error);
    let found = match client.reads.get(&client.key(path)?).await {
        Err(error) if Failure::of(&error).is_missing_file() => return Ok(None),
        found => found.map_err(failed)?,
    };
    let e_tag = found.meta.e_tag.clone();
    let e_tag = e_tag.with_context(|| {
        format!(
            "reading {}: the answer has no ETag, so the server is not an S3 store; check \
             AWS_ENDPOINT_URL_S3",
            client.url(path)
        )
    })?;
    let (mut stream, mut bytes) = (found.into_stream(), Vec::new());
    while let Some(block) = stream.try_next().await.map_err(failed)? {
        let is_small = bytes.len() as u64 + block.len() as u64 <= max;
        ensure!(is_small, "{} has more than {max} bytes", client.url(path));
        bytes.extend_from_slice(&block);
    }
    Ok(Some(Stored { bytes, version: Version(e_tag) }))
}

/// Returns the size and version of a file; `None` if there is no such file.
pub(super) async fn stat(client: &Client, path: &str) -> Result<Option<(u64, Option<String>)>> {
    match client.reads.head(&client.key(path)?).await {
        Err(error) if Failure::of(&error).is_missing_file() => Ok(None),
        Err(error) => Err(client.failed("checking", path, &error)),
        Ok(meta) => Ok(Some((meta.size, meta.e_tag))),
    }
}

/// Passes the content of a file to `sink`, but not more than `max` bytes. Returns the number of bytes;
/// `None` if there is no such file.
///
/// Each request reads a part, so that a timeout bounds it. A request whose connection breaks continues
/// where it was. All parts are of one version of the file.
pub(super) async fn stream(
    client: &Client,
    path: &str,
    max: u64,
    mut sink: impl FnMut(&[u8]) -> Result<()>,
) -> Result<Option<u64>> {
    let key = client.key(path)?;
    let failed = |error| client.failed("reading", path, &error);
    let Some((size, version)) = stat(client, path).await? else { return Ok(None) };
    let size = size.min(max);
    let mut done = 0;
    while done < size {
        let end = size.min(done + PART_SIZE);
        let options = GetOptions {
            if_match: version.clone(),
            range: Some(GetRange::Bounded(done..end)),
            ..GetOptions::default()
        };
        let mut blocks = client.reads.get_opts(&key, options).await.map_err(failed)?.into_stream();
        while let Some(block) = blocks.try_next().await.map_err(failed)? {
            done += block.len() as u64;
            ensure!(done <= end, "reading {}: the server sent too much", client.url(path));
            sink(&block)?;
        }
        ensure!(
            done == end,
            "reading {}: the answer ended after {done} of {size} bytes; run the command again",
            client.url(path)
        );
    }
    Ok(Some(done))
}

/// Returns all files in a directory that can be part of a release, sorted by path.
pub(super) async fn list(client: &Client, directory: &str) -> Result<Vec<Listed>> {
    let failed = |error| client.failed("listing", directory, &error);
    let key = client.directory_key(directory)?;
    let mut found = client.reads.list(key.as_ref());
    let mut listed = Vec::new();
    while let Some(meta) = found.try_next().await.map_err(failed)? {
        let count = listed.len();
        ensure!(count < LISTED_MAX, "{} has more than {count} files", client.url(directory));
        if let Some(path) = client.path(&meta.location) {
            let (path, modified) = (path.to_owned(), SystemTime::from(meta.last_modified));
            listed.push(Listed { path, size: meta.size, modified });
        }
    }
    listed.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(listed)
}

/// Checks that the bucket exists and that the credentials allow to list it.
pub(super) async fn check_access(client: &Client) -> Result<()> {
    let key = client.directory_key("")?;
    let first = client.reads.list(key.as_ref()).try_next().await;
    first.map(drop).map_err(|error| client.failed("opening", "", &error))
}
