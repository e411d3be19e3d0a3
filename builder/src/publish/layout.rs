//! The paths of a release at a destination.
//!
//! ```text
//! etchaos_deb_amd64.jwt                   the manifest that hosts poll: the only file that changes
//! deb_amd64/history/20261126100000.jwt    every manifest that was published
//! deb_amd64/<version>-<digest>/…          the files of a release, written once
//! ```
//!
//! The name of a release's directory ends with a digest of its files, and the name of a delta with its own
//! digest, so the content of a path never changes. Publishing the same files again, after an interruption or
//! under a newer build number, uses the same directory.

use protocol::digest;
use protocol::{Release, Target};

/// The number of hexadecimal digits of the digest in the name of a directory: 64 bits.
const DIGITS: usize = 16;
/// The directory of all manifests of a target.
const HISTORY: &str = "history";

/// Sets the URL of each file of a release, relative to the URL of the manifest.
pub(crate) fn assign_urls(release: &mut Release) {
    let directory = directory(release);
    for artifact in &mut release.artifacts {
        artifact.url = format!("{directory}/{}", artifact.name);
        for delta in &mut artifact.deltas {
            delta.url = format!("{directory}/{}", delta.name);
        }
    }
    for document in &mut release.documents {
        document.url = format!("{directory}/{}", document.name);
    }
}

/// Returns whether the URLs of a release are those that [`assign_urls`] sets.
pub(crate) fn has_urls(release: &Release) -> bool {
    let mut assigned = release.clone();
    assign_urls(&mut assigned);
    assigned == *release
}

/// Returns the directory of a release's files.
fn directory(release: &Release) -> String {
    let mut lines: Vec<String> =
        release.files().map(|file| format!("{} {}\n", file.sha256, file.name)).collect();
    lines.sort();
    let digest = digest::of_bytes(lines.concat().as_bytes());
    format!("{}/{}-{}", release.target(), release.version, &digest[..DIGITS])
}

/// Returns the path of the copy of a manifest that was published.
pub(crate) fn history_path(target: &Target, build: u64) -> String {
    format!("{}/{build}.jwt", history(target))
}

/// Returns the directory of all manifests of a target.
pub(crate) fn history(target: &Target) -> String {
    format!("{target}/{HISTORY}")
}

/// Returns the build number of a path that [`history_path`] returned.
pub(crate) fn build_of(target: &Target, path: &str) -> Option<u64> {
    let name = path.strip_prefix(&history(target))?.strip_prefix('/')?;
    name.strip_suffix(".jwt")?.parse().ok()
}

/// Returns the directory of a release that a path is in: `deb_amd64/13.20261120-12345678-…`. Returns
/// `None` for other files, such as manifests.
pub(crate) fn release_directory<'a>(target: &Target, path: &'a str) -> Option<&'a str> {
    let directory = path.rsplit_once('/')?.0;
    let (parent, name) = directory.split_once('/')?;
    let is_release = parent == target.to_string() && name != HISTORY && !name.contains('/');
    is_release.then_some(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::tests::release;
    use protocol::url::artifact_url;

    #[test]
    fn same_files_have_the_same_directory_and_others_another_one() {
        let mut first = release("one");
        assign_urls(&mut first);
        let mut again = Release { build: 99, ..first.clone() };
        assign_urls(&mut again);
        assert_eq!(first.artifacts, again.artifacts);
        let mut other = release("two");
        other.version = first.version.clone();
        assign_urls(&mut other);
        let directory =
            |release: &Release| release.artifacts[0].url.rsplit_once('/').unwrap().0.to_owned();
        assert_ne!(directory(&first), directory(&other));
    }

    #[test]
    fn hosts_accept_the_urls() {
        let mut release = release("one");
        assign_urls(&mut release);
        for file in release.files() {
            let url = artifact_url("https://cdn.example/x.jwt", file.url, &[]).unwrap();
            assert_eq!(url, format!("https://cdn.example/{}", file.url));
        }
    }

    #[test]
    fn recognizes_the_paths_of_manifests_and_releases() {
        let target: Target = "deb_amd64".parse().unwrap();
        let path = history_path(&target, 7);
        assert_eq!(build_of(&target, &path), Some(7));
        assert_eq!(release_directory(&target, &path), None);
        assert_eq!(release_directory(&target, "deb_amd64/1-ab/x"), Some("deb_amd64/1-ab"));
        for other in ["etchaos_deb_amd64.jwt", "ubu_amd64/1-ab/x", "deb_amd64/1/2/x", "x"] {
            assert_eq!(release_directory(&target, other), None, "{other}");
            assert_eq!(build_of(&target, other), None, "{other}");
        }
    }
}
