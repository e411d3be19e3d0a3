//! Writing files.

use std::time::{Duration, Instant};

use anyhow::Result;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion};

use super::client::{Client, PART_SIZE, RETRY_TIMEOUT};
use super::content::{attributes, check_size, read_whole};
use super::failure::Failure;
use super::parts::put_in_parts;
use super::read;
use crate::destination::headers;
use crate::destination::interface::{Conflict, Created, Upload, Version};

/// The maximum size of a file of another publisher that is compared with the new content, in bytes.
const READ_MAX: u64 = 64 << 20;

/// Counts the attempts of a conditional write or a removal, of which it is not known whether the store
/// did it. `object_store` does not repeat such a request, because the second one can have another result.
struct Attempts {
    count: u32,
    start: Instant,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { count: 1, start: Instant::now() }
    }
}

impl Attempts {
    /// The maximum number of attempts.
    const MAX: u32 = 3;
    /// The pause before another attempt.
    const PAUSE: Duration = Duration::from_millis(500);

    /// Returns whether there is time for another attempt, after a pause.
    async fn again(&mut self) -> bool {
        self.count += 1;
        let is_left = self.count <= Self::MAX && self.start.elapsed() < RETRY_TIMEOUT;
        if is_left {
            tokio::time::sleep(Self::PAUSE).await;
        }
        is_left
    }
}

/// Returns the options of a request that stores a whole file.
fn options(path: &str, cache_control: &'static str, mode: PutMode) -> PutOptions {
    let attributes = attributes(path, cache_control);
    PutOptions { mode, attributes, ..PutOptions::default() }
}

/// Stores an immutable file, unless there is one.
///
/// A small file is stored with a condition. S3 has a condition for large files, too, but `object_store`
/// does not send it. A race between two publishers is harmless there: the path contains the digest of
/// the release, so both store the same bytes, and a reader never sees a part of them.
pub(super) async fn create(client: &Client, upload: &Upload) -> Result<Created> {
    if upload.size > PART_SIZE {
        if read::stat(client, &upload.path).await?.is_some() {
            return Ok(Created::Existed);
        }
        put_in_parts(client, upload).await?;
        return Ok(Created::New);
    }
    let (key, bytes) = (client.key(&upload.path)?, PutPayload::from(read_whole(upload)?));
    let options = options(&upload.path, headers::IMMUTABLE, PutMode::Create);
    let mut attempts = Attempts::default();
    loop {
        let put = client.writes.put_opts(&key, bytes.clone(), options.clone()).await;
        let Err(error) = put else {
            check_size(client, upload).await?;
            return Ok(Created::New);
        };
        match Failure::of(&error) {
            failure if failure.is_unmet_condition() => return Ok(Created::Existed),
            failure if failure.is_undecided() && attempts.again().await => {}
            _ => return Err(client.failed("writing", &upload.path, &error)),
        }
    }
}

/// Stores an immutable file, also if there is one.
pub(super) async fn overwrite(client: &Client, upload: &Upload) -> Result<()> {
    if upload.size > PART_SIZE {
        return put_in_parts(client, upload).await;
    }
    let (key, bytes) = (client.key(&upload.path)?, PutPayload::from(read_whole(upload)?));
    let options = options(&upload.path, headers::IMMUTABLE, PutMode::Overwrite);
    let stored = client.writes.put_opts(&key, bytes, options).await;
    stored.map_err(|error| client.failed("writing", &upload.path, &error))?;
    check_size(client, upload).await
}

/// Replaces a small file that changes, if it has the expected version.
///
/// If it is not known whether the store did it, or if the store refuses it, the file is read. If it has
/// the new content, a request was successful although its answer was lost.
pub(super) async fn replace(
    client: &Client,
    path: &str,
    bytes: &[u8],
    expected: Option<&Version>,
) -> Result<()> {
    let (key, new) = (client.key(path)?, PutPayload::from(bytes.to_vec()));
    let mode = match expected {
        None => PutMode::Create,
        Some(Version(e_tag)) => {
            PutMode::Update(UpdateVersion { e_tag: Some(e_tag.clone()), version: None })
        }
    };
    let options = options(path, headers::REVALIDATED, mode);
    let mut attempts = Attempts::default();
    loop {
        let put = client.writes.put_opts(&key, new.clone(), options.clone()).await;
        let Err(error) = put else { return Ok(()) };
        let failure = Failure::of(&error);
        // Some stores answer with 404 if the file that should have a version is not there.
        let is_refused = failure.is_unmet_condition() || failure.is_missing_file();
        if !is_refused && !failure.is_undecided() {
            return Err(client.failed("replacing", path, &error));
        }
        let Ok(found) = read::read(client, path, READ_MAX).await else {
            return Err(client.failed("replacing", path, &error));
        };
        if found.as_ref().is_some_and(|found| found.bytes == bytes) {
            return Ok(());
        }
        if found.as_ref().map(|found| &found.version) != expected {
            return Err(Conflict { path: path.to_owned(), destination: client.url("") }.into());
        }
        if !attempts.again().await {
            return Err(client.failed("replacing", path, &error));
        }
    }
}

/// Removes a file. A file that does not exist is not an error.
pub(super) async fn remove(client: &Client, path: &str) -> Result<()> {
    let key = client.key(path)?;
    let mut attempts = Attempts::default();
    loop {
        let Err(error) = client.writes.delete(&key).await else { return Ok(()) };
        match Failure::of(&error) {
            failure if failure.is_missing_file() => return Ok(()),
            failure if failure.is_undecided() && attempts.again().await => {}
            _ => return Err(client.failed("removing", path, &error)),
        }
    }
}
