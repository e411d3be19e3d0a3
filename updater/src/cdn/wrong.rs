//! Leaves out downloads of files that were wrong before; see [`crate::wrong_files`].

use std::sync::{MutexGuard, PoisonError};

use protocol::url::Origin;
use protocol::{Artifact, date, digest};

use super::client::{Cdn, Request};
use super::download::FetchError;
use super::error::without_query;
use crate::clock::now;
use crate::host::Host;
use crate::wrong_files::{Memory, WrongFile, WrongFiles};

impl Cdn {
    /// Makes the client remember wrong files of a manifest, which is named by its digest, across runs.
    /// `retry` forgets those of earlier runs.
    pub(crate) fn remember_wrong_files(&mut self, host: &Host, manifest: &str, retry: bool) {
        let mut files = WrongFiles::read(host, manifest);
        if retry {
            files.files.clear();
        }
        let memory = Memory { host: host.clone(), files };
        *self.wrong.get_mut().unwrap_or_else(PoisonError::into_inner) = Some(memory);
    }

    /// Returns those URLs of an artifact at which it was not wrong recently, or has changed since. Fails if
    /// there are none.
    pub(crate) fn without_wrong_files(
        &self,
        mut urls: Vec<String>,
        artifact: &Artifact,
    ) -> Result<Vec<String>, FetchError> {
        let mut wrong = Vec::new();
        urls.retain(|url| match self.wrong_file(url, artifact) {
            Some(file) => {
                wrong.push(file);
                false
            }
            None => true,
        });
        for file in wrong.iter().filter(|_| !urls.is_empty()) {
            log::info!("not downloading {} again, which was wrong before", file.url);
        }
        match wrong.into_iter().min_by_key(WrongFile::next) {
            Some(WrongFile { url, failures, sha256, .. }) if urls.is_empty() => {
                let next = self.wrong_next(artifact).map(date::format_utc).unwrap_or_default();
                Err(FetchError::WrongBefore { url, expected: sha256, failures, next })
            }
            _ => Ok(urls),
        }
    }

    /// Remembers whether a server has the right file.
    pub(super) fn record_wrong_file(&self, url: &str, artifact: &Artifact, is_wrong: bool) {
        // A file in a directory costs no download.
        if Origin::of(url).is_none() || self.memory().is_none() {
            return;
        }
        let version = if is_wrong { self.version(url) } else { None };
        let mut memory = self.memory();
        let Some(Memory { host, files }) = &mut *memory else { return };
        let shown = without_query(url);
        match is_wrong {
            true => files.add(WrongFile {
                role: artifact.role,
                url: shown,
                sha256: artifact.sha256.clone(),
                failures: 0,
                time: now(),
                versions: version.into_iter().collect(),
            }),
            false => files.remove(&shown, &artifact.sha256),
        }
        files.write(host);
    }

    /// Returns the entry of a URL that must not be downloaded yet. Forgets it if the server has another file
    /// now.
    fn wrong_file(&self, url: &str, artifact: &Artifact) -> Option<WrongFile> {
        let shown = without_query(url);
        let blocked = {
            let memory = self.memory();
            memory.as_ref()?.files.blocked(&shown, &artifact.sha256, now())?.clone()
        };
        let version = self.version(url);
        if version.is_none_or(|version| blocked.versions.contains(&version)) {
            return Some(blocked);
        }
        log::info!("{shown} was wrong before and has changed since; downloading it again");
        None
    }

    /// Returns when the first wrong file of an artifact may be downloaded again.
    fn wrong_next(&self, artifact: &Artifact) -> Option<u64> {
        let memory = self.memory();
        let files = &memory.as_ref()?.files.files;
        files.iter().filter(|file| file.sha256 == artifact.sha256).map(WrongFile::next).min()
    }

    /// Returns a digest of `ETag` and `Last-Modified` of a file, if the server sends one of them.
    fn version(&self, url: &str) -> Option<String> {
        let request = Request { url, is_head: true, ..Request::default() };
        // If the request fails, the file is taken for unchanged.
        let (head, _) = self.follow_redirects(&request).ok()?;
        let is_sent = head.etag.is_some() || head.last_modified.is_some();
        let field = Option::unwrap_or_default;
        // Neither field can contain a line feed.
        let text = format!("{}\n{}", field(head.etag), field(head.last_modified));
        is_sent.then(|| digest::of_bytes(text.as_bytes()))
    }

    fn memory(&self) -> MutexGuard<'_, Option<Memory>> {
        // A panic in another thread cannot leave the memory in an invalid state.
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
