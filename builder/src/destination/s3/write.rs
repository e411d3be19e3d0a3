//! Writing files.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use object_store::{
    Attribute, Attributes, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, UpdateVersion,
};
use protocol::digest::{self, Hasher};
use tokio::task::JoinSet;

use super::client::{Client, PART_SIZE, RETRY_TIMEOUT};
use super::failure::Failure;
use super::read;
use crate::destination::headers;
use crate::destination::interface::{Conflict, Created, Upload, Version};

/// The maximum size of a file of another publisher that is compared with the new content, in bytes.
const READ_MAX: u64 = 64 << 20;
/// The time for cleaning up after a failed upload.
const ABORT_TIMEOUT: Duration = Duration::from_secs(30);

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

/// Returns the headers to store with a file.
fn attributes(path: &str, cache_control: &'static str) -> Attributes {
    let content_type = (Attribute::ContentType, headers::content_type(path));
    Attributes::from_iter([content_type, (Attribute::CacheControl, cache_control)])
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

/// Reads a file of at most [`PART_SIZE`] bytes and checks its content.
fn read_whole(upload: &Upload) -> Result<Vec<u8>> {
    let (from, mut bytes) = (&upload.from, Vec::new());
    let read = File::open(from).and_then(|file| file.take(PART_SIZE + 1).read_to_end(&mut bytes));
    read.with_context(|| format!("reading {}", from.display()))?;
    check_content(upload, bytes.len() as u64, &digest::of_bytes(&bytes))?;
    Ok(bytes)
}

/// Checks what was read of the local file.
fn check_content(upload: &Upload, size: u64, sha256: &str) -> Result<()> {
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
async fn check_size(client: &Client, upload: &Upload) -> Result<()> {
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

/// Stores a large file. It becomes visible when all its parts are there. If something fails, the parts
/// are removed.
async fn put_in_parts(client: &Client, upload: &Upload) -> Result<()> {
    let failed = |error| client.failed("writing", &upload.path, &error);
    let attributes = attributes(&upload.path, headers::IMMUTABLE);
    let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
    let key = client.key(&upload.path)?;
    let mut parts = client.writes.put_multipart_opts(&key, options).await.map_err(failed)?;
    let completed = match send_parts(client, upload, parts.as_mut()).await {
        Ok(()) => complete(client, upload, parts.as_mut()).await,
        Err(error) => Err(error),
    };
    if completed.is_err() {
        // Nobody sees these parts, so this error is less important than the first one.
        let _ = tokio::time::timeout(ABORT_TIMEOUT, parts.abort()).await;
    }
    completed?;
    check_size(client, upload).await
}

/// Completes an upload. If that fails, the answer may have been lost, so the content decides.
async fn complete(client: &Client, upload: &Upload, parts: &mut dyn MultipartUpload) -> Result<()> {
    let Err(error) = parts.complete().await else { return Ok(()) };
    let mut hasher = Hasher::default();
    let sink = |block: &[u8]| {
        hasher.update(block);
        Ok(())
    };
    match read::stream(client, &upload.path, upload.size + 1, sink).await {
        Ok(Some(size)) if size == upload.size && hasher.finish() == upload.sha256 => Ok(()),
        _ => Err(client.failed("writing", &upload.path, &error)),
    }
}

/// Reads a file once, and sends its parts in parallel.
///
/// Returns when no part is on its way, so that none arrives after the upload was aborted.
async fn send_parts(
    client: &Client,
    upload: &Upload,
    parts: &mut dyn MultipartUpload,
) -> Result<()> {
    let mut sending = JoinSet::new();
    let mut sent = start_parts(client, upload, parts, &mut sending).await;
    if sent.is_err() {
        let all_done = async { while sending.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(ABORT_TIMEOUT, all_done).await;
    }
    while let Some(part) = sending.join_next().await {
        sent = sent.and(part?.map_err(|error| client.failed("writing", &upload.path, &error)));
    }
    sent
}

/// Starts to send each part as soon as there is memory for it. Checks the content that was read.
async fn start_parts(
    client: &Client,
    upload: &Upload,
    parts: &mut dyn MultipartUpload,
    sending: &mut JoinSet<Result<(), object_store::Error>>,
) -> Result<()> {
    let reading = || format!("reading {}", upload.from.display());
    let mut file = File::open(&upload.from).with_context(reading)?;
    let (mut size, mut hasher) = (0, Hasher::default());
    loop {
        let permit = Arc::clone(&client.parts).acquire_owned().await?;
        let mut part = Vec::with_capacity(PART_SIZE as usize);
        (&mut file).take(PART_SIZE).read_to_end(&mut part).with_context(reading)?;
        if part.is_empty() || size > upload.size {
            return check_content(upload, size, &hasher.finish());
        }
        size += part.len() as u64;
        hasher.update(&part);
        let request = parts.put_part(part.into());
        sending.spawn(async move {
            let _permit = permit;
            request.await
        });
        while let Some(sent) = sending.try_join_next() {
            sent?.map_err(|error| client.failed("writing", &upload.path, &error))?;
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
