//! The releases that the test downloads and updates to.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// A published release.
pub(crate) struct Published {
    /// Its manifest.
    pub(crate) token: String,
    /// Kernel and initrd.
    boot_files: Vec<Value>,
}

impl Published {
    fn read(path: &Path) -> Self {
        let token = fs::read_to_string(path).unwrap();
        let body = token.split('.').nth(1).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let claims: Value = serde_json::from_slice(&body.expect("a manifest is a token")).unwrap();
        let artifacts = claims["etchaosRelease"]["artifacts"].as_array().unwrap().iter();
        let boot_files = artifacts.filter(|artifact| artifact["role"] != "disk").cloned().collect();
        Self { token, boot_files }
    }

    fn digests(&self) -> Vec<&Value> {
        self.boot_files.iter().map(|artifact| &artifact["sha256"]).collect()
    }

    /// Checks in the log of the server that a host with the release `old` has updated to this one by a delta of the
    /// initrd, and has copied the kernel if it is the same.
    pub(crate) fn check_origins(&self, old: &Self, log: &str) {
        let is_fetched = |file: &Value| {
            let request = format!("GET /{} ", file["url"].as_str().unwrap());
            log.lines().any(|line| line.contains(&request) && line.contains("\" 200 "))
        };
        for (new, old) in self.boot_files.iter().zip(&old.boot_files) {
            let role = &new["role"];
            let mut deltas = new["deltas"].as_array().into_iter().flatten();
            if new["sha256"] == old["sha256"] {
                assert!(!is_fetched(new), "the {role} was not copied: {log}");
            } else if role == "initrd" {
                let delta = deltas.find(|delta| delta["from"] == old["sha256"]);
                let delta = delta.expect("the second release has a delta from the first one");
                assert!(is_fetched(delta) && !is_fetched(new), "the {role} was not patched: {log}");
            }
        }
    }
}

/// Returns two releases with different files, the older one first.
pub(crate) fn releases(cdn: &Path) -> Option<[Published; 2]> {
    let entries = fs::read_dir(cdn.join("deb_amd64/history")).ok()?;
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_manifest = |path: &PathBuf| path.extension().is_some_and(|found| found == "jwt");
    let mut paths: Vec<PathBuf> = paths.filter(is_manifest).collect();
    // Their names are build numbers, which are times.
    paths.sort();
    let mut all = paths.iter().map(|path| Published::read(path));
    let first = all.next()?;
    let second = all.find(|release| release.digests() != first.digests())?;
    Some([first, second])
}
