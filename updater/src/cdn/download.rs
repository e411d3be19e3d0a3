//! Downloads of a file, which resume after interruptions.

use std::io::{self, Read};
use std::sync::{MutexGuard, PoisonError};
use std::time::Instant;

use protocol::url::Origin;

use super::client::{Cdn, HTML_PREFIX, Request};
use super::directory;
use super::error::{CdnError, HTML_HINT, describe_read_error, without_query};
use super::rate::{Bucket, RateMonitor};
use super::response::ResponseHead;
use super::resume::{Resume, classify};
use super::retries::Attempts;
use crate::wrong_files::WrongFile;

/// The size of a read.
const CHUNK: usize = 64 * 1024;
/// The number of bytes that counts as progress of an attempt.
const MIN_PROGRESS: u64 = 64 * 1024;

/// A destination for the bytes of a file, in order.
pub trait Sink {
    /// Discards all bytes, including those of earlier runs. The next byte is the file's first.
    fn restart(&mut self) -> io::Result<()>;
    /// Appends the next bytes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// A failed download. The sink keeps the bytes that this server sent; another run or another server may
/// resume after them.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A request failed.
    #[error(transparent)]
    Cdn(#[from] CdnError),
    /// The server has a file of another size.
    #[error(
        "the CDN announces {found} bytes for {url}, but the manifest says {expected}{}",
        html_hint_or(*is_html, ": was the release published completely?")
    )]
    WrongLength {
        /// The URL.
        url: String,
        /// The value in the manifest.
        expected: u64,
        /// The size that the server announces.
        found: u64,
        /// Whether the body is an HTML page.
        is_html: bool,
    },
    /// The server sent more bytes than expected.
    #[error("the CDN sends more than the {expected} bytes that the manifest states for {url}")]
    TooLong {
        /// The URL.
        url: String,
        /// The size in the manifest.
        expected: u64,
    },
    /// The server sent fewer bytes than expected, and says that these are all.
    #[error(
        "the CDN sends only {found} of the {expected} bytes that the manifest states for {url}: was the release published completely?"
    )]
    TooShort {
        /// The URL.
        url: String,
        /// The size in the manifest.
        expected: u64,
        /// The number of bytes received.
        found: u64,
    },
    /// The body ended early.
    #[error("the download of {url} ended after {found} of {expected} bytes{}", html_hint_or(*is_html, reason))]
    Truncated {
        /// The URL.
        url: String,
        /// The size in the manifest.
        expected: u64,
        /// The number of bytes received.
        found: u64,
        /// `: ` and the reason, or empty.
        reason: String,
        /// Whether the body is an HTML page.
        is_html: bool,
        /// Whether a retry may help.
        is_transient: bool,
    },
    /// The digest of the file is wrong.
    #[error(
        "{url} has the SHA-256 {found}, but the manifest says {expected}: the file was damaged or replaced"
    )]
    Digest {
        /// The URL.
        url: String,
        /// The value in the manifest.
        expected: String,
        /// The digest of the received bytes.
        found: String,
    },
    /// The file was wrong before, and is not downloaded again yet.
    #[error(
        "{url} is not downloaded again before {next}: it did not match the manifest {} (expected SHA-256 {expected}); correct the file on the CDN, or publish a new release; \"update --retry-failed\" downloads it at once",
        WrongFile::count(*failures)
    )]
    WrongBefore {
        /// The URL.
        url: String,
        /// The digest in the manifest.
        expected: String,
        /// How many times the wrong file was downloaded.
        failures: u32,
        /// When it is downloaded again, as text.
        next: String,
    },
    /// The download failed from all of several mirrors.
    #[error("the download failed from all {} mirrors: {}", .0.len(), listed(.0))]
    AllMirrors(Vec<FetchError>),
    /// The sink cannot be written.
    #[error("cannot write the downloaded data: {0}")]
    Sink(io::Error),
}

fn listed(errors: &[FetchError]) -> String {
    errors.iter().map(FetchError::to_string).collect::<Vec<_>>().join("; ")
}

fn html_hint_or(is_html: bool, other: &str) -> String {
    if is_html { format!("; {HTML_HINT}") } else { other.to_owned() }
}

impl FetchError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Cdn(error) => error.is_transient(),
            Self::Truncated { is_transient, .. } => *is_transient,
            Self::WrongLength { .. }
            | Self::TooLong { .. }
            | Self::TooShort { .. }
            | Self::Digest { .. }
            | Self::WrongBefore { .. }
            | Self::AllMirrors(_)
            | Self::Sink(_) => false,
        }
    }
}

/// The state of a download.
struct Transfer<'a> {
    url: &'a str,
    size: u64,
    /// The number of bytes in the sink.
    at: u64,
    /// The largest value that `at` ever had.
    farthest: u64,
    /// The ETag of the response that the sink's bytes are from.
    etag: Option<String>,
    /// Whether the server may support ranges.
    ranges: bool,
    /// How many times the sink was cleared.
    restarts: u32,
}

impl Cdn {
    /// Downloads a file of `size` bytes, of which the sink has the first `from`.
    ///
    /// On success the sink has `size` bytes. The caller must verify their digest. After an interruption
    /// or a stall the download resumes, if the server supports ranges and the file has not changed;
    /// otherwise it starts again with [`Sink::restart`]. Fails after
    /// [`Retries::attempts`](super::Retries::attempts) attempts without progress, or as many restarts.
    pub fn fetch(
        &self,
        url: &str,
        from: u64,
        size: u64,
        sink: &mut dyn Sink,
    ) -> Result<(), FetchError> {
        let mut attempts = Attempts::new(self.timeouts.download_retries, Instant::now());
        let mut transfer =
            Transfer { url, size, at: from, farthest: 0, etag: None, ranges: true, restarts: 0 };
        if from > size {
            transfer.restart(sink)?;
        }
        let mut mark = transfer.at;
        while transfer.at < size {
            let Err(error) = self.attempt(&mut transfer, sink) else { continue };
            if transfer.farthest >= mark.saturating_add(MIN_PROGRESS) {
                mark = transfer.farthest;
                attempts.reset(Instant::now());
            }
            // If a server without ranges ends each response a little later than the last, every attempt
            // makes progress, but the download starts at the first byte again and again.
            let is_restart_loop = transfer.restarts >= self.timeouts.download_retries.attempts;
            if is_restart_loop || !error.is_transient() {
                return Err(error);
            }
            let retry_after = match &error {
                FetchError::Cdn(error) => error.retry_after(),
                _ => None,
            };
            match attempts.next(retry_after, Instant::now(), fastrand::f64()) {
                Some(pause) => self.sleep_before_retry(&error, pause),
                None => return Err(error),
            }
        }
        Ok(())
    }

    /// Requests the missing bytes once.
    fn attempt(&self, transfer: &mut Transfer<'_>, sink: &mut dyn Sink) -> Result<(), FetchError> {
        if !transfer.ranges && transfer.at > 0 {
            transfer.restart(sink)?;
        }
        if Origin::of(transfer.url).is_none() {
            return self.copy_file(transfer, sink);
        }
        let Transfer { url, at: from, .. } = *transfer;
        let if_range = transfer.etag.as_deref();
        let (head, body) =
            self.follow_redirects(&Request { url, from, if_range, ..Request::default() })?;
        self.handle_response(transfer, &head, body.into_reader(), sink)
    }

    /// Copies the missing bytes from a local file.
    fn copy_file(
        &self,
        transfer: &mut Transfer<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), FetchError> {
        let (file, length) = directory::open(transfer.url, transfer.at)?;
        if length != transfer.size {
            return Err(transfer.wrong_length(length, false));
        }
        let head = ResponseHead { status: 200, length: Some(length), ..ResponseHead::default() };
        self.copy(transfer, &head, file, sink)
    }

    /// Resumes or restarts the download with a response.
    fn handle_response(
        &self,
        transfer: &mut Transfer<'_>,
        head: &ResponseHead,
        mut body: impl Read,
        sink: &mut dyn Sink,
    ) -> Result<(), FetchError> {
        let mut beginning = Vec::new();
        match classify(head, transfer.at, transfer.size, transfer.etag.as_deref()) {
            Resume::Continues => {}
            Resume::FromStart if transfer.at > 0 => {
                self.read_beginning(&mut body, &mut beginning);
                // The page of a network must not cost what was downloaded before.
                if head.is_html(&beginning) {
                    return Err(transfer.truncated(String::new(), true, false));
                }
                log::info!(
                    "{} has changed, or its server does not support ranges; downloading it from the start",
                    without_query(transfer.url)
                );
                transfer.restart(sink)?;
            }
            Resume::FromStart => {}
            Resume::Unusable => {
                log::info!(
                    "{} cannot be resumed at byte {} (status {}); downloading it from the start",
                    without_query(transfer.url),
                    transfer.at,
                    head.status
                );
                transfer.ranges = false;
                // The next attempt does not count as a retry, because nothing has failed.
                return Ok(());
            }
            Resume::WrongLength(found) => {
                self.read_beginning(&mut body, &mut beginning);
                return Err(transfer.wrong_length(found, head.is_html(&beginning)));
            }
        }
        transfer.etag = head.strong_etag().map(str::to_owned);
        let copied = self.copy(transfer, head, io::Cursor::new(beginning).chain(body), sink);
        // The beginning of an HTML page must not be kept as the beginning of the file.
        if let Err(FetchError::Truncated { is_html: true, .. }) = &copied {
            transfer.restart(sink)?;
        }
        copied
    }

    /// Reads the beginning of a body, which shows whether it is HTML.
    fn read_beginning(&self, body: &mut impl Read, beginning: &mut Vec<u8>) {
        let mut body = body.take(HTML_PREFIX);
        // A read error only means that HTML may not be recognized; reading on fails again.
        let _ = self.with_deadline(self.timeouts.stall, || body.read_to_end(beginning));
    }

    /// Copies a body to the sink, at most to the end of the file and within the rate limit.
    fn copy(
        &self,
        transfer: &mut Transfer<'_>,
        head: &ResponseHead,
        body: impl Read,
        sink: &mut dyn Sink,
    ) -> Result<(), FetchError> {
        let chunk = self.bucket().map_or(CHUNK, |bucket| bucket.chunk().min(CHUNK));
        let mut buffer = vec![0; chunk];
        let mut monitor = RateMonitor::new(self.timeouts.stall);
        let start = transfer.at;
        let mut is_html = false;
        // One more byte detects a body that is too long.
        let mut body = body.take((transfer.size - transfer.at).saturating_add(1));
        loop {
            let since = Instant::now();
            let read = self.with_deadline(self.timeouts.stall, || body.read(&mut buffer));
            let bytes = match read {
                Ok(0) => break,
                Ok(length) => &buffer[..length],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) if transfer.at == transfer.size => return Ok(()),
                Err(error) => {
                    let (reason, is_transient) = describe_read_error(&error);
                    return Err(transfer.truncated(format!(": {reason}"), is_html, is_transient));
                }
            };
            let waited = since.elapsed();
            if transfer.at == start && start == 0 {
                is_html = head.is_html(bytes);
            }
            transfer.write(bytes, sink)?;
            if transfer.at < transfer.size && monitor.is_too_slow(bytes.len(), waited) {
                let reason = ": the server is too slow".to_owned();
                return Err(transfer.truncated(reason, is_html, true));
            }
            let pause = self.bucket().map(|mut bucket| bucket.take(bytes.len(), Instant::now()));
            std::thread::sleep(pause.unwrap_or_default());
        }
        // A full response that ends where its own framing says was not interrupted: the file on the
        // server is too short, and a retry does not help.
        let is_interrupted = head.status == 206 || (head.length.is_none() && !head.is_chunked);
        match transfer.at == transfer.size {
            true => Ok(()),
            false if is_interrupted || is_html => {
                Err(transfer.truncated(String::new(), is_html, is_interrupted))
            }
            false => Err(FetchError::TooShort {
                url: without_query(transfer.url),
                expected: transfer.size,
                found: transfer.at,
            }),
        }
    }

    fn bucket(&self) -> Option<MutexGuard<'_, Bucket>> {
        // A panic in another thread cannot leave the bucket in an invalid state.
        Some(self.bucket.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Transfer<'_> {
    fn restart(&mut self, sink: &mut dyn Sink) -> Result<(), FetchError> {
        sink.restart().map_err(FetchError::Sink)?;
        self.at = 0;
        self.etag = None;
        self.restarts += 1;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], sink: &mut dyn Sink) -> Result<(), FetchError> {
        let at = self.at + bytes.len() as u64;
        if at > self.size {
            return Err(FetchError::TooLong { url: without_query(self.url), expected: self.size });
        }
        sink.write(bytes).map_err(FetchError::Sink)?;
        self.at = at;
        self.farthest = self.farthest.max(at);
        Ok(())
    }

    fn truncated(&self, reason: String, is_html: bool, is_transient: bool) -> FetchError {
        FetchError::Truncated {
            url: without_query(self.url),
            expected: self.size,
            found: self.at,
            reason,
            is_html,
            is_transient,
        }
    }

    fn wrong_length(&self, found: u64, is_html: bool) -> FetchError {
        FetchError::WrongLength {
            url: without_query(self.url),
            expected: self.size,
            found,
            is_html,
        }
    }
}
