//! A whole file, over as many connections as it takes.

use std::io::{self, Read};
use std::sync::PoisonError;
use std::time::Instant;

use protocol::url::origin;

use super::answer::Head;
use super::error::why_cut;
use super::range::{Begin, begin};
use super::rate::Pace;
use super::retry::Attempts;
use super::{Cdn, CdnError, HTML, Request, directory, pause_after, without_query};

/// As much is read at once.
const CHUNK: usize = 64 * 1024;
/// Who gets fewer bytes further with an attempt does not get further.
const ADVANCE: u64 = 64 * 1024;
/// As much of an unexpected answer is looked at, to say what it is.
const BEGINNING: u64 = 512;

/// Where the bytes of a file go, in order.
pub trait Sink {
    /// Forgets every byte so far, those of earlier runs too: the next one is the file's first.
    fn restart(&mut self) -> io::Result<()>;
    /// Takes the next bytes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// A file that could not be had whole. What the sink has is the beginning of the file, as this server
/// has it; another run or another server may go on from there.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server does not give it.
    #[error(transparent)]
    Cdn(#[from] CdnError),
    /// The server announces another size.
    #[error(
        "the CDN announces {found} bytes for {url}, and the manifest says {expected}{}",
        hint(*is_html, ": was it published whole?")
    )]
    Length {
        /// The URL.
        url: String,
        /// The manifest's.
        expected: u64,
        /// The server's.
        found: u64,
        /// Whether it looks like a page for people.
        is_html: bool,
    },
    /// More came than was to come.
    #[error("the CDN sends more than the {expected} bytes that the manifest says for {url}")]
    TooLong {
        /// The URL.
        url: String,
        /// The manifest's size.
        expected: u64,
    },
    /// Less came.
    #[error("the download of {url} ended after {found} of {expected} bytes{}", hint(*is_html, why))]
    Truncated {
        /// The URL.
        url: String,
        /// The manifest's size.
        expected: u64,
        /// What came.
        found: u64,
        /// `: ` and what the system says, if anything.
        why: String,
        /// Whether it looks like a page for people.
        is_html: bool,
        /// Whether asking again may help.
        is_transient: bool,
    },
    /// Other bytes came.
    #[error(
        "{url} has the SHA-256 {found}, and the manifest says {expected}: it was damaged or replaced on its way"
    )]
    Digest {
        /// The URL.
        url: String,
        /// The manifest's.
        expected: String,
        /// What came.
        found: String,
    },
    /// None of several servers has it.
    #[error("none of the {} mirrors has the file: {}", .0.len(), listed(.0))]
    Nowhere(Vec<FetchError>),
    /// The sink does not take it.
    #[error("cannot write: {0}")]
    Sink(io::Error),
}

fn listed(errors: &[FetchError]) -> String {
    errors.iter().map(FetchError::to_string).collect::<Vec<_>>().join("; ")
}

fn hint(is_html: bool, else_say: &str) -> String {
    if is_html { format!("; {HTML}") } else { else_say.to_owned() }
}

impl FetchError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Cdn(error) => error.is_transient(),
            Self::Truncated { is_transient, .. } => *is_transient,
            Self::Length { .. }
            | Self::TooLong { .. }
            | Self::Digest { .. }
            | Self::Nowhere(_)
            | Self::Sink(_) => false,
        }
    }
}

/// How far a file is.
struct Transfer<'a> {
    url: &'a str,
    size: u64,
    /// The sink has so many bytes.
    at: u64,
    /// The farthest that we ever were.
    farthest: u64,
    /// Of the answer that the sink's bytes are of, if the server names one.
    etag: Option<String>,
    /// Until the server is found not to know them.
    ranges: bool,
    /// How often what the sink had was given up.
    restarts: u32,
}

impl Cdn {
    /// Gets a file of `size` bytes, of which the sink has the first `from`.
    ///
    /// If this returns, the sink has `size` bytes; whether they are the right ones is for their
    /// digest to say. A connection that breaks, stalls or ends early is made again, for the rest only
    /// where the server can do that, and where the file is still the same; see [`Sink::restart`].
    /// After some attempts that get no further it is given up, and so it is when it was begun again as
    /// often.
    pub fn fetch(
        &self,
        url: &str,
        from: u64,
        size: u64,
        sink: &mut dyn Sink,
    ) -> Result<(), FetchError> {
        let mut attempts = Attempts::new(self.times.download_retries, Instant::now());
        let mut transfer =
            Transfer { url, size, at: from, farthest: 0, etag: None, ranges: true, restarts: 0 };
        if from > size {
            transfer.restart(sink)?;
        }
        let mut mark = transfer.at;
        while transfer.at < size {
            let Err(error) = self.attempt(&mut transfer, sink) else { continue };
            if transfer.farthest >= mark.saturating_add(ADVANCE) {
                mark = transfer.farthest;
                attempts.advanced(Instant::now());
            }
            // Getting a little further each time is not enough where each time begins at the first byte.
            let is_circle = transfer.restarts >= self.times.download_retries.attempts;
            if is_circle || !error.is_transient() {
                return Err(error);
            }
            let asked = match &error {
                FetchError::Cdn(error) => error.retry_after(),
                _ => None,
            };
            match attempts.next(asked, Instant::now(), fastrand::f64()) {
                Some(pause) => pause_after(&error, pause),
                None => return Err(error),
            }
        }
        Ok(())
    }

    /// One request for what is missing, and its answer.
    fn attempt(&self, transfer: &mut Transfer<'_>, sink: &mut dyn Sink) -> Result<(), FetchError> {
        if !transfer.ranges && transfer.at > 0 {
            transfer.restart(sink)?;
        }
        if origin(transfer.url).is_none() {
            return self.copy_file(transfer, sink);
        }
        let Transfer { url, at: from, .. } = *transfer;
        let if_range = transfer.etag.as_deref();
        let (head, body) = self.ask(&Request { url, from, if_range, ..Request::default() })?;
        self.take(transfer, &head, body.into_reader(), sink)
    }

    /// The same from a directory.
    fn copy_file(
        &self,
        transfer: &mut Transfer<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), FetchError> {
        let (file, length) = directory::open(transfer.url, transfer.at)?;
        if length != transfer.size {
            return Err(transfer.wrong_length(length, false));
        }
        let head = Head { status: 200, length: Some(length), ..Head::default() };
        self.copy(transfer, &head, file, sink)
    }

    /// Takes an answer for what it is good for.
    fn take(
        &self,
        transfer: &mut Transfer<'_>,
        head: &Head,
        mut body: impl Read,
        sink: &mut dyn Sink,
    ) -> Result<(), FetchError> {
        match begin(head, transfer.at, transfer.size, transfer.etag.as_deref()) {
            Begin::Resumed => {}
            Begin::Whole if transfer.at > 0 => {
                log::info!(
                    "{} has changed, or its server cannot resume: it is begun again",
                    without_query(transfer.url)
                );
                transfer.restart(sink)?;
            }
            Begin::Whole => {}
            Begin::Unusable => {
                log::info!(
                    "{} cannot be resumed at byte {} (status {}): it is begun again",
                    without_query(transfer.url),
                    transfer.at,
                    head.status
                );
                transfer.ranges = false;
                // The next attempt is no retry: nothing has failed.
                return Ok(());
            }
            Begin::Length(found) => {
                let mut beginning = Vec::new();
                // What cannot be read says nothing.
                let _ = body.by_ref().take(BEGINNING).read_to_end(&mut beginning);
                return Err(transfer.wrong_length(found, head.is_html(&beginning)));
            }
        }
        transfer.etag = head.strong_etag().map(str::to_owned);
        let copied = self.copy(transfer, head, body, sink);
        // The beginning of a page is not the beginning of a file.
        if let Err(FetchError::Truncated { is_html: true, .. }) = &copied {
            transfer.restart(sink)?;
        }
        copied
    }

    /// Copies a body to the sink, not a byte more than the file has, and not faster than allowed.
    fn copy(
        &self,
        transfer: &mut Transfer<'_>,
        head: &Head,
        body: impl Read,
        sink: &mut dyn Sink,
    ) -> Result<(), FetchError> {
        let chunk = self.bucket().map_or(CHUNK, |bucket| bucket.chunk().min(CHUNK));
        let mut buffer = vec![0; chunk];
        let mut pace = Pace::new(self.times.stall);
        let began_at = transfer.at;
        let mut is_html = false;
        // One more than is allowed shows that there is more.
        let mut body = body.take((transfer.size - transfer.at).saturating_add(1));
        loop {
            let asked = Instant::now();
            self.expect_in(self.times.stall);
            let bytes = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => &buffer[..length],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) if transfer.at == transfer.size => return Ok(()),
                Err(error) => {
                    let (why, is_transient) = why_cut(&error);
                    return Err(transfer.ended(format!(": {why}"), is_html, is_transient));
                }
            };
            let waited = asked.elapsed();
            if transfer.at == began_at && began_at == 0 {
                is_html = head.is_html(bytes);
            }
            transfer.write(bytes, sink)?;
            if transfer.at < transfer.size && pace.is_too_slow(bytes.len(), waited) {
                let why = ": the server sends next to nothing".to_owned();
                return Err(transfer.ended(why, is_html, true));
            }
            let pause = self.bucket().map(|mut bucket| bucket.take(bytes.len(), Instant::now()));
            std::thread::sleep(pause.unwrap_or_default());
        }
        // Who says where the end is, and there it is, did not break off: the file is too short.
        let is_cut = head.status == 206 || (head.length.is_none() && !head.is_chunked);
        match transfer.at == transfer.size {
            true => Ok(()),
            false => Err(transfer.ended(String::new(), is_html, is_cut)),
        }
    }

    fn bucket(&self) -> Option<std::sync::MutexGuard<'_, super::rate::Bucket>> {
        // What a panic elsewhere left there is a time, and any time will do.
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

    fn ended(&self, why: String, is_html: bool, is_transient: bool) -> FetchError {
        FetchError::Truncated {
            url: without_query(self.url),
            expected: self.size,
            found: self.at,
            why,
            is_html,
            is_transient,
        }
    }

    fn wrong_length(&self, found: u64, is_html: bool) -> FetchError {
        FetchError::Length { url: without_query(self.url), expected: self.size, found, is_html }
    }
}
