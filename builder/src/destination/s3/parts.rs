//! Large files, which are sent in parts.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use object_store::client::HttpErrorKind;
use object_store::retry::{RetryContext, RetryFailure, RetryPolicy};
use object_store::{MultipartUpload, ObjectStore, PutMultipartOptions};
use protocol::digest::Hasher;
use tokio::task::JoinSet;

use super::client::{Client, PART_SIZE, RETRY_TIMEOUT};
use super::content::{attributes, check_content, check_size};
use super::read;
use crate::destination::headers;
use crate::destination::interface::Upload;

/// The time for cleaning up after a failed upload.
const ABORT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a store may take to assemble the parts of a file after the connection broke.
const ASSEMBLY_TIMEOUT: Duration = Duration::from_secs(15);
/// The pause between two checks whether it has.
const ASSEMBLY_INTERVAL: Duration = Duration::from_millis(500);

/// Sends a part again, with a new signature, after failures that `object_store` does not repeat.
#[derive(Debug)]
struct RepeatParts;

#[async_trait::async_trait]
impl RetryPolicy for RepeatParts {
    async fn retry(&self, context: RetryContext) -> bool {
        let is_temporary = match context.failure {
            // Amazon S3 answers with 400 and `RequestTimeout` if a part comes too slowly.
            RetryFailure::Status(status) => status.as_u16() == 400,
            RetryFailure::Transport(kind) => kind != HttpErrorKind::Connect,
            _ => false,
        };
        let is_left = context.attempt < 3 && context.elapsed < RETRY_TIMEOUT;
        if is_temporary && is_left {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        is_temporary && is_left
    }
}

/// Stores a large file. It becomes visible when all its parts are there. If something fails, the parts
/// are removed.
pub(super) async fn put_in_parts(client: &Client, upload: &Upload) -> Result<()> {
    let failed = |error| client.failed("writing", &upload.path, &error);
    let attributes = attributes(&upload.path, headers::IMMUTABLE);
    let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
    let options = options.with_retry_policy(Arc::new(RepeatParts));
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
///
/// If the connection breaks while the store assembles the file, the store refuses the repeated request, because
/// the upload no longer exists, although the file does not exist yet. So this waits for the file.
async fn complete(client: &Client, upload: &Upload, parts: &mut dyn MultipartUpload) -> Result<()> {
    let Err(error) = parts.complete().await else { return Ok(()) };
    let since = Instant::now();
    while !is_stored(client, upload).await {
        if since.elapsed() >= ASSEMBLY_TIMEOUT {
            return Err(client.failed("writing", &upload.path, &error));
        }
        tokio::time::sleep(ASSEMBLY_INTERVAL).await;
    }
    Ok(())
}

/// Returns whether the store has the content of a file.
async fn is_stored(client: &Client, upload: &Upload) -> bool {
    let mut hasher = Hasher::default();
    let sink = |block: &[u8]| {
        hasher.update(block);
        Ok(())
    };
    let read = read::stream(client, &upload.path, upload.size + 1, sink).await;
    matches!(read, Ok(Some(size)) if size == upload.size) && hasher.finish() == upload.sha256
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
