//! The right file, from whichever server has it.

use protocol::Artifact;

use super::{Cdn, FetchError, Sink, without_query};

/// A sink that knows what it has, from this run or an earlier one.
pub trait Partial: Sink {
    /// How many bytes.
    fn length(&self) -> u64;
    /// Their SHA-256 in lower-case hexadecimal.
    fn digest(&self) -> String;
}

impl Cdn {
    /// Gets an artifact from the first of these URLs that has it: then the sink has the bytes that
    /// the manifest names by size and digest, and no others.
    ///
    /// What the sink has already is kept, and so is what a server sent before it failed. Whether
    /// that fits the rest is known at the end: if not, the same server is asked for all of it.
    pub fn download(
        &self,
        sources: &[String],
        artifact: &Artifact,
        sink: &mut dyn Partial,
    ) -> Result<(), FetchError> {
        let mut errors = Vec::new();
        for url in sources {
            let is_resumed = sink.length() > 0;
            let mut result = self.get_all(url, artifact, sink);
            if is_resumed && matches!(result, Err(FetchError::Digest { .. })) {
                log::info!("what was there of the {} before is of no use", artifact.role);
                result = self.get_all(url, artifact, sink);
            }
            match result {
                Err(FetchError::Sink(why)) => return Err(FetchError::Sink(why)),
                Err(error) => {
                    if sources.len() > 1 {
                        log::warn!("{error}");
                    }
                    errors.push(error);
                }
                Ok(()) => return Ok(()),
            }
        }
        match errors.len() {
            1 => Err(errors.remove(0)),
            _ => Err(FetchError::Nowhere(errors)),
        }
    }

    /// Bytes with another digest are not kept.
    fn get_all(
        &self,
        url: &str,
        artifact: &Artifact,
        sink: &mut dyn Partial,
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
