//! The manifests that were seen last, with what their servers named them by: who asks with that is
//! not sent the same manifest again.
//!
//! The file may be lost at any time, and anything may stand in it: what is read from it is verified
//! like what comes from a server, and only then a server is asked whether it is still the same.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cdn::{Validators, is_etag, is_validator};
use crate::host::read_limited;

/// A dozen manifests of the usual size. It is all read into memory.
const FILE_MAX: u64 = 1 << 20;

/// A manifest as it was seen at a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    url: String,
    #[serde(flatten)]
    pub(super) validators: Validators,
    pub(super) token: String,
}

/// What was seen, by URL.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Cache {
    entries: Vec<Entry>,
}

impl Cache {
    /// Reads the file. One that is missing, damaged or too large is empty.
    pub(super) fn read(path: Option<&Path>) -> Self {
        let Some(path) = path else { return Self::default() };
        let bytes = match read_limited(path, FILE_MAX) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) => {
                log::info!("cannot read {}: {error}", path.display());
                return Self::default();
            }
        };
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// What was seen at this URL, if its server can be asked with it.
    pub(super) fn get(&self, url: &str) -> Option<&Entry> {
        let Validators { etag, last_modified } = &self.entry(url)?.validators;
        let is_sane = etag.as_deref().is_none_or(is_etag)
            && last_modified.as_deref().is_none_or(is_validator);
        let is_there = etag.is_some() || last_modified.is_some();
        self.entry(url).filter(|_| is_sane && is_there)
    }

    /// Remembers what was seen at a URL, or forgets it, if its server does not name it.
    pub(super) fn put(&mut self, url: &str, validators: Validators, token: &str) {
        self.entries.retain(|entry| entry.url != url);
        if validators != Validators::default() {
            let (url, token) = (url.to_owned(), token.to_owned());
            self.entries.insert(0, Entry { url, validators, token });
        }
    }

    /// Writes the file, by way of another one beside it, with as much as there is room for. Nothing
    /// is flushed: it may be lost.
    pub(super) fn write(&mut self, path: Option<&Path>) {
        let Some(path) = path else { return };
        if let Err(error) = self.try_write(path) {
            log::info!(
                "cannot write {}, so the manifest will be downloaded again: {error}",
                path.display()
            );
        }
    }

    fn try_write(&mut self, path: &Path) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(self)?;
        // The oldest is last.
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

    fn named(etag: &str) -> Validators {
        Validators { etag: Some(etag.into()), last_modified: None }
    }

    #[test]
    fn what_was_seen_is_known_by_its_url() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/etchaos/manifests");
        let mut cache = Cache::read(Some(&path));
        cache.put("https://a/x", named("\"1\""), "token a");
        cache.put("https://b/x", named("\"2\""), "token b");
        cache.put("https://a/x", named("\"3\""), "token A");
        cache.write(Some(&path));
        let cache = Cache::read(Some(&path));
        assert_eq!(cache.get("https://a/x").unwrap().token, "token A");
        assert_eq!(cache.get("https://b/x").unwrap().validators, named("\"2\""));
        assert!(cache.get("https://a/").is_none());
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn it_does_not_grow_and_forgets_what_has_no_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("manifests");
        let mut cache = Cache::default();
        for n in 0..20 {
            cache.put(&format!("https://{n}/x"), named("\"1\""), &"x".repeat(100_000));
        }
        cache.write(Some(&path));
        assert_eq!(Cache::read(Some(&path)).entries.len(), 10);
        assert!(cache.get("https://19/x").is_some());
        cache.put("https://19/x", Validators::default(), "token");
        assert!(cache.get("https://19/x").is_none());
    }

    #[test]
    fn whatever_stands_there_is_harmless() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("manifests");
        let deep = "[".repeat(100_000);
        for text in ["", "null", "{}", "[]", "{\"entries\": 7}", "\0\0\0", &deep] {
            std::fs::write(&path, text).unwrap();
            assert!(Cache::read(Some(&path)).entries.is_empty(), "{text:.20}");
        }
        let entry = |etag: &str| {
            let entry = serde_json::json!({"url": "u", "etag": etag, "token": "x"});
            let text = serde_json::json!({"entries": [entry]}).to_string();
            std::fs::write(&path, text).unwrap();
            Cache::read(Some(&path)).get("u").is_some()
        };
        assert!(entry("\"x\""));
        for bad in ["", "*", "a\r\nHost: evil", "\u{fc}", &"x".repeat(300)] {
            assert!(!entry(bad), "{bad:?}");
        }
        assert!(Cache::read(Some(directory.path())).entries.is_empty());
        Cache::default().write(Some(Path::new("/proc/no/such")));
    }
}
