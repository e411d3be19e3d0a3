//! Makes an artifact from a delta and the other slot's file of an earlier release.

use std::io::{self, Read, Seek};
use std::time::{Duration, Instant};

use protocol::delta::{DeltaError, Limits, apply};
use protocol::digest::Hasher;
use protocol::release::DeltaFile;
use protocol::url::UrlError;
use protocol::{Artifact, Role};

use super::job::{Job, Source};
use super::origin::MEMORY_DIVISOR;
use super::received::Received;
use crate::cdn::{FetchError, ResumableSink, Sink};
use crate::failed_deltas;
use crate::files::FileError;
use crate::interrupt;

/// The longest time for applying a delta, without that for writing the result. A kernel takes some 20 seconds on a
/// fast processor, and other files less.
const TIME_MAX: Duration = Duration::from_secs(600);

/// A delta that could not be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum PatchError {
    /// The URL of the delta must not be followed.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The delta could not be downloaded.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The other slot's file could not be opened.
    #[error(transparent)]
    Source(#[from] FileError),
    /// The delta could not be applied.
    #[error("{name}: {error}")]
    Apply {
        /// The name of the delta.
        name: String,
        /// The error.
        error: DeltaError,
    },
    /// Applying the delta took too much time.
    #[error("{name}: applying the delta took more than {seconds} s")]
    Time {
        /// The name of the delta.
        name: String,
        /// The limit.
        seconds: u64,
    },
    /// The delta produces another file.
    #[error("{name} produces a file with the SHA-256 {found}, expected {expected}")]
    Digest {
        /// The name of the delta.
        name: String,
        /// The digest of the artifact.
        expected: String,
        /// The digest of the result.
        found: String,
    },
    /// The result could not be written.
    #[error("cannot write the result: {0}")]
    Sink(io::Error),
}

/// Downloads a delta and writes the rest of the artifact. Clears the sink if the delta has written anything
/// wrong to it. Adds the bytes that the CDN sends to `fetched`.
///
/// A delta that fails is remembered, so that it is not tried again.
pub(super) fn patch(
    job: Job<'_>,
    artifact: &Artifact,
    (delta, path, size): (&DeltaFile, &str, u64),
    sink: &mut dyn ResumableSink,
    fetched: &mut u64,
) -> Result<(), PatchError> {
    let Source { candidate, cdn, allowed_origins, host, .. } = job.source;
    let file = as_artifact(artifact.role, delta);
    let urls = candidate.artifact_urls(&file, allowed_origins)?;
    let urls = cdn.without_wrong_files(urls, &file)?;
    let mut buffer = Buffer::default();
    cdn.download(&urls, &file, &mut Received { sink: &mut buffer, bytes: fetched })?;
    let before = sink.length();
    let memory = host.available_memory() / MEMORY_DIVISOR;
    let limits = Limits { source: size, target: artifact.size, memory };
    let downloaded = Downloaded { name: &delta.name, bytes: &buffer.0, limits, time: TIME_MAX };
    let source = job.esp.open(path)?;
    failed_deltas::begin(host, &delta.sha256);
    let mut result = downloaded.apply(source, &artifact.sha256, sink);
    if before > 0 && matches!(result, Err(PatchError::Digest { .. })) {
        // Perhaps the delta is right, and what an earlier run has left is wrong.
        log::info!("{}: the beginning of the file may be wrong; writing it again", delta.name);
        sink.restart().map_err(PatchError::Sink)?;
        result = downloaded.apply(job.esp.open(path)?, &artifact.sha256, sink);
    }
    // A signal, or a target that cannot be written, is not a fault of the delta.
    let is_fault =
        |error: &&PatchError| !interrupt::is_requested() && !matches!(error, PatchError::Sink(_));
    let fault = result.as_ref().err().filter(is_fault).map(ToString::to_string);
    failed_deltas::end(host, &delta.sha256, fault.as_deref());
    if fault.is_some() && sink.length() != before {
        sink.restart().map_err(PatchError::Sink)?;
    }
    result
}

/// A delta that was downloaded, and its limits.
struct Downloaded<'a> {
    name: &'a str,
    bytes: &'a [u8],
    limits: Limits,
    time: Duration,
}

impl Downloaded<'_> {
    /// Writes the rest of the file with the SHA-256 `expected`. What the sink has already is not written again.
    fn apply(
        &self,
        source: impl Read + Seek,
        expected: &str,
        sink: &mut dyn ResumableSink,
    ) -> Result<(), PatchError> {
        let name = || self.name.to_owned();
        let (since, mut writing) = (Instant::now(), Duration::ZERO);
        let mut is_late = false;
        let mut skipped = sink.length();
        let result = apply(self.bytes, source, &self.limits, &mut |piece| {
            is_late = since.elapsed().saturating_sub(writing) > self.time;
            if is_late {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if interrupt::is_requested() {
                return Err(io::Error::other("interrupted by a signal"));
            }
            let skip = piece.len().min(usize::try_from(skipped).unwrap_or(usize::MAX));
            skipped -= skip as u64;
            let begin = Instant::now();
            let result = sink.write(&piece[skip..]);
            writing += begin.elapsed();
            result
        });
        result.map_err(|error| match error {
            _ if is_late => PatchError::Time { name: name(), seconds: self.time.as_secs() },
            DeltaError::Sink(error) => PatchError::Sink(error),
            error => PatchError::Apply { name: name(), error },
        })?;
        let found = sink.digest();
        match found == expected {
            true => Ok(()),
            false => Err(PatchError::Digest { name: name(), expected: expected.to_owned(), found }),
        }
    }
}

/// Returns a delta as an artifact, which can be downloaded.
fn as_artifact(role: Role, delta: &DeltaFile) -> Artifact {
    let DeltaFile { name, size, sha256, url, .. } = delta.clone();
    Artifact { role, name, size, sha256, url, deltas: Vec::new() }
}

/// A download in memory. Its size is limited by that of the delta.
#[derive(Default)]
struct Buffer(Vec<u8>);

impl Sink for Buffer {
    fn restart(&mut self) -> io::Result<()> {
        self.0.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if interrupt::is_requested() {
            return Err(io::Error::other("interrupted by a signal"));
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

impl ResumableSink for Buffer {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn digest(&self) -> String {
        let mut hasher = Hasher::default();
        hasher.update(&self.0);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use protocol::delta::{Codec, Delta, Extent, Recompress, Segment};
    use protocol::digest;

    use super::*;

    #[test]
    fn a_delta_that_takes_too_long_is_given_up() {
        let source = b"the source";
        let size = source.len() as u64;
        let delta = Delta {
            source: size,
            target: size,
            recompress: Recompress::here(Codec::Block, 1),
            extents: vec![Extent { offset: 0, stored: 1, frame: None }],
            segments: vec![Segment::Copy { offset: 0, length: size }],
            operations: Vec::new(),
            differences: Vec::new(),
            literals: Vec::new(),
        };
        let bytes = delta.to_bytes().unwrap();
        let limits = Limits { source: size, target: size, memory: 1 << 30 };
        let apply = |time| {
            let downloaded = Downloaded { name: "x", bytes: &bytes, limits, time };
            let mut sink = Buffer::default();
            downloaded.apply(Cursor::new(source), &digest::of_bytes(source), &mut sink)
        };
        apply(TIME_MAX).unwrap();
        assert!(matches!(apply(Duration::ZERO), Err(PatchError::Time { .. })));
    }
}
