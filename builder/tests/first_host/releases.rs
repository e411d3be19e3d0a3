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
    /// The digests of kernel and initrd.
    boot_files: Vec<String>,
}

impl Published {
    fn read(path: &Path) -> Self {
        let token = fs::read_to_string(path).unwrap();
        let body = token.split('.').nth(1).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let claims: Value = serde_json::from_slice(&body.expect("a manifest is a token")).unwrap();
        let artifacts = claims["etchaosRelease"]["artifacts"].as_array().unwrap().iter();
        let boot = artifacts.filter(|artifact| artifact["role"] != "disk");
        let boot_files = boot.map(|artifact| artifact["sha256"].to_string()).collect();
        Self { token, boot_files }
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
    let second = all.find(|release| release.boot_files != first.boot_files)?;
    Some([first, second])
}
