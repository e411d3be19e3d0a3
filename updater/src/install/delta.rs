//! Makes an artifact from a delta and the other slot's file of an earlier release.

use std::io;

use protocol::delta::{DeltaError, Limits, apply};
use protocol::digest::Hasher;
use protocol::release::DeltaFile;
use protocol::url::UrlError;
use protocol::{Artifact, Role};

use super::job::Job;
use crate::cdn::{FetchError, ResumableSink, Sink};
use crate::files::FileError;
use crate::interrupt;

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
    /// The delta gives another file.
    #[error("{name} gives a file with the SHA-256 {found}, expected {expected}")]
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
/// wrong to it.
///
/// A delta that fails is remembered, so that the next run does not download it again.
pub(super) fn patch(
    job: Job<'_>,
    artifact: &Artifact,
    (delta, path, size): (&DeltaFile, &str, u64),
    sink: &mut dyn ResumableSink,
) -> Result<(), PatchError> {
    let file = as_artifact(artifact.role, delta);
    let urls = job.source.candidate.artifact_urls(&file, job.source.allowed_origins)?;
    let urls = job.source.cdn.without_wrong_files(urls, &file)?;
    let mut bytes = Memory::default();
    job.source.cdn.download(&urls, &file, &mut bytes)?;
    let before = sink.length();
    let limits = Limits { source: size, target: artifact.size, memory: delta.memory };
    let Err(error) = apply_to(job, artifact, &delta.name, &bytes.0, path, &limits, sink) else {
        return Ok(());
    };
    if interrupt::is_requested() || matches!(error, PatchError::Sink(_)) {
        return Err(error);
    }
    if sink.length() != before {
        sink.restart().map_err(PatchError::Sink)?;
    }
    urls.iter().for_each(|url| job.source.cdn.record_wrong_file(url, &file, true));
    Err(error)
}

fn apply_to(
    job: Job<'_>,
    artifact: &Artifact,
    name: &str,
    delta: &[u8],
    path: &str,
    limits: &Limits,
    sink: &mut dyn ResumableSink,
) -> Result<(), PatchError> {
    let source = job.esp.open(path)?;
    // What an earlier run has written is not written again.
    let mut skipped = sink.length();
    let result = apply(delta, source, limits, &mut |piece| {
        let skip = piece.len().min(usize::try_from(skipped).unwrap_or(usize::MAX));
        skipped -= skip as u64;
        sink.write(&piece[skip..])
    });
    result.map_err(|error| match error {
        DeltaError::Sink(error) => PatchError::Sink(error),
        error => PatchError::Apply { name: name.to_owned(), error },
    })?;
    let found = sink.digest();
    match found == artifact.sha256 {
        true => Ok(()),
        false => {
            let (name, expected) = (name.to_owned(), artifact.sha256.clone());
            Err(PatchError::Digest { name, expected, found })
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
struct Memory(Vec<u8>);

impl Sink for Memory {
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

impl ResumableSink for Memory {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn digest(&self) -> String {
        let mut hasher = Hasher::default();
        hasher.update(&self.0);
        hasher.finish()
    }
}
