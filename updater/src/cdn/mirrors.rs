//! Downloads of an artifact from several mirrors.

use protocol::Artifact;

use super::client::Cdn;
use super::download::{FetchError, Sink};
use super::error::without_query;

/// A sink that reports which part of a file it has, from this run or an earlier one.
pub trait ResumableSink: Sink {
    /// Returns the number of bytes.
    fn length(&self) -> u64;
    /// Returns the SHA-256 of these bytes in lower-case hexadecimal.
    fn digest(&self) -> String;
}

/// Returns whether a download failed after all of a wrong file was received. A short response costs little, and
/// is more likely an error message than the file.
fn is_wrong_file(error: &FetchError) -> bool {
    match error {
        FetchError::Digest { .. } | FetchError::TooLong { .. } => true,
        FetchError::TooShort { expected, found, .. } => *found >= expected / 2,
        _ => false,
    }
}

impl Cdn {
    /// Downloads an artifact from the first of the URLs that works. On success the sink has exactly the
    /// bytes whose size and digest are in the manifest.
    ///
    /// The download resumes after the bytes that the sink already has, also if another server sent them.
    /// If the digest of the resumed file is wrong, the whole file is downloaded once more from the same
    /// server. Fails if every URL fails, or if the sink cannot be written.
    pub fn download(
        &self,
        urls: &[String],
        artifact: &Artifact,
        sink: &mut dyn ResumableSink,
    ) -> Result<(), FetchError> {
        let mut errors = Vec::new();
        for url in urls {
            let is_resumed = sink.length() > 0;
            let mut result = self.download_from(url, artifact, sink);
            if is_resumed && matches!(result, Err(FetchError::Digest { .. })) {
                log::info!(
                    "the partial download of the {} does not belong to this artifact; downloading all of it",
                    artifact.role
                );
                result = self.download_from(url, artifact, sink);
            }
            let is_wrong = result.as_ref().is_err_and(is_wrong_file);
            if is_wrong || result.is_ok() {
                self.record_wrong_file(url, artifact, is_wrong);
            }
            match result {
                Err(FetchError::Sink(error)) => return Err(FetchError::Sink(error)),
                Err(error) => {
                    if urls.len() > 1 {
                        log::warn!("{error}");
                    }
                    errors.push(error);
                }
                Ok(()) => return Ok(()),
            }
        }
        match errors.len() {
            1 => Err(errors.remove(0)),
            _ => Err(FetchError::AllMirrors(errors)),
        }
    }

    /// Downloads the artifact from one server. Clears the sink if the digest is wrong.
    fn download_from(
        &self,
        url: &str,
        artifact: &Artifact,
        sink: &mut dyn ResumableSink,
    ) -> Result<(), FetchError> {
        let from = sink.length();
        self.fetch(url, from, artifact.size, sink)?;
        let found = sink.digest();
        if found == artifact.sha256 {
            return Ok(());
        }
        sink.restart().map_err(FetchError::Sink)?;
        let (url, expected) = (without_query(url), artifact.sha256.clone());
        Err(FetchError::Digest { url, expected, found })
    }
}
