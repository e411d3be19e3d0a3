//! A cache of tokens, such as manifests, with their validators, for conditional requests.
//!
//! The file may be lost or damaged at any time. A cached token is verified like a downloaded one, and its
//! validators are only sent if it is acceptable.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use protocol::token::TOKEN_MAX;
use serde::{Deserialize, Serialize};

use super::client::{Cdn, ManifestResponse, Validators};
use super::error::CdnError;
use super::response::{is_etag, is_validator};
use crate::host::read_limited;

/// The maximum size of the file, which is read into memory. A dozen tokens of the usual size fit.
const FILE_MAX: u64 = 1 << 20;

/// A token that was downloaded from a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    url: String,
    #[serde(flatten)]
    validators: Validators,
    token: String,
}

/// Tokens by URL, the newest first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct TokenCache {
    entries: Vec<Entry>,
}

impl TokenCache {
    /// Reads the file. Returns an empty cache if it is missing, damaged or too large.
    pub(crate) fn read(path: Option<&Path>) -> Self {
        let Some(path) = path else { return Self::default() };
        let bytes = match read_limited(path, FILE_MAX) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) => {
                log::info!("cannot read the cache {}: {error}", path.display());
                return Self::default();
            }
        };
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Fetches a token, or takes the cached one if the server says that it has not changed. `accept` verifies
    /// the token and returns what the caller needs of it.
    ///
    /// # Errors
    /// Fails if the token cannot be fetched, or is not acceptable.
    pub(crate) fn fetch<T, E: From<CdnError>>(
        &mut self,
        cdn: &Cdn,
        url: &str,
        file: Option<&Path>,
        accept: impl Fn(&str) -> Result<T, E>,
    ) -> Result<(T, String), E> {
        // Only an acceptable token makes the request conditional, so that the response "not modified" always
        // yields a usable token.
        let cached =
            self.get(url).and_then(|entry| Some((accept(&entry.token).ok()?, entry.clone())));
        let unless = cached.as_ref().map(|(_, entry)| &entry.validators);
        match (cdn.manifest(url, TOKEN_MAX, unless)?, cached) {
            (ManifestResponse::NotModified, Some((value, entry))) => Ok((value, entry.token)),
            // Not reached: the client rejects 304 for an unconditional request.
            (ManifestResponse::NotModified, None) => {
                Err(CdnError::unexpected(url.to_owned(), 304).into())
            }
            (ManifestResponse::Modified { bytes, validators }, _) => {
                let token = String::from_utf8_lossy(&bytes).into_owned();
                let value = accept(&token)?;
                self.put(url, validators, &token);
                self.write(file);
                Ok((value, token))
            }
        }
    }

    /// Returns the entry for this URL if it has validators that are safe to send.
    fn get(&self, url: &str) -> Option<&Entry> {
        let Validators { etag, last_modified } = &self.entry(url)?.validators;
        let is_sane = etag.as_deref().is_none_or(is_etag)
            && last_modified.as_deref().is_none_or(is_validator);
        let is_present = etag.is_some() || last_modified.is_some();
        self.entry(url).filter(|_| is_sane && is_present)
    }

    /// Replaces the entry for a URL. Removes it if the server sent no validators.
    fn put(&mut self, url: &str, validators: Validators, token: &str) {
        self.entries.retain(|entry| entry.url != url);
        if validators != Validators::default() {
            let (url, token) = (url.to_owned(), token.to_owned());
            self.entries.insert(0, Entry { url, validators, token });
        }
    }

    /// Replaces the file, without the oldest entries if it would be too large. The file is not synced,
    /// because it may be lost. An error is only logged.
    pub(crate) fn write(&mut self, path: Option<&Path>) {
        let Some(path) = path else { return };
        if let Err(error) = self.try_write(path) {
            log::info!(
                "cannot write the cache {}, so the next poll will download everything again: {error}",
                path.display()
            );
        }
    }

    fn try_write(&mut self, path: &Path) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(self)?;
        while bytes.len() as u64 > FILE_MAX && self.entries.pop().is_some() {
            bytes = serde_json::to_vec(self)?;
        }
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let new = path.with_extension("new");
        std::fs::write(&new, bytes)?;
        std::fs::rename(new, path)
    }

    fn entry(&self, url: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.url == url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_etag(etag: &str) -> Validators {
        Validators { etag: Some(etag.into()), last_modified: None }
    }

    #[test]
    fn finds_entries_by_url() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/etchaos/manifests");
        let mut cache = TokenCache::read(Some(&path));
        cache.put("https://a/x", with_etag("\"1\""), "token a");
        cache.put("https://b/x", with_etag("\"2\""), "token b");
        cache.put("https://a/x", with_etag("\"3\""), "token A");
        cache.write(Some(&path));
        let cache = TokenCache::read(Some(&path));
        assert_eq!(cache.get("https://a/x").unwrap().token, "token A");
        assert_eq!(cache.get("https://b/x").unwrap().validators, with_etag("\"2\""));
        assert!(cache.get("https://a/").is_none());
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn drops_oldest_entries_and_those_without_validators() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("manifests");
        let mut cache = TokenCache::default();
        for n in 0..20 {
            cache.put(&format!("https://{n}/x"), with_etag("\"1\""), &"x".repeat(100_000));
        }
        cache.write(Some(&path));
        assert_eq!(TokenCache::read(Some(&path)).entries.len(), 10);
        assert!(cache.get("https://19/x").is_some());
        cache.put("https://19/x", Validators::default(), "token");
        assert!(cache.get("https://19/x").is_none());
    }

    #[test]
    fn ignores_damaged_files_and_unsafe_validators() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("manifests");
        let deep = "[".repeat(100_000);
        for text in ["", "null", "{}", "[]", "{\"entries\": 7}", "\0\0\0", &deep] {
            std::fs::write(&path, text).unwrap();
            assert!(TokenCache::read(Some(&path)).entries.is_empty(), "{text:.20}");
        }
        let entry = |etag: &str| {
            let entry = serde_json::json!({"url": "u", "etag": etag, "token": "x"});
            let text = serde_json::json!({"entries": [entry]}).to_string();
            std::fs::write(&path, text).unwrap();
            TokenCache::read(Some(&path)).get("u").is_some()
        };
        assert!(entry("\"x\""));
        for bad in ["", "*", "a\r\nHost: evil", "\u{fc}", &"x".repeat(300)] {
            assert!(!entry(bad), "{bad:?}");
        }
        assert!(TokenCache::read(Some(directory.path())).entries.is_empty());
        TokenCache::default().write(Some(Path::new("/proc/no/such")));
    }
}
