//! Reads published manifests, and checks the files that they name.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use protocol::release::PublishedFile;
use protocol::token::{TOKEN_MAX, verify};
use protocol::{KeyRing, Manifest, Release, Target, Verified};

use crate::destination::{Location, Version};
use crate::image::digest;

/// The number of files that are transferred at a time.
const TRANSFERS: usize = 4;

/// A manifest at a destination.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    /// The manifest.
    pub manifest: Verified<Manifest>,
    /// The token.
    pub text: String,
    /// The version of the file.
    pub version: Version,
}

impl Published {
    /// Returns the release.
    pub(crate) fn release(&self) -> &Release {
        &self.manifest.release
    }
}

/// Reads the manifest that hosts of a target poll; `None` if nothing is published for the target.
///
/// # Errors
/// Fails if its signature is not valid: either it was tampered with, or the key was changed and
/// `trusted` does not have the old one.
pub(crate) fn live(
    location: &dyn Location,
    target: &Target,
    trusted: &KeyRing,
) -> Result<Option<Published>> {
    read(location, &target.manifest_name(), target, trusted)
}

/// Reads the manifest of a target at a path; `None` if the file does not exist.
///
/// # Errors
/// See [`live`].
pub(crate) fn read(
    location: &dyn Location,
    path: &str,
    target: &Target,
    trusted: &KeyRing,
) -> Result<Option<Published>> {
    let hint = "after a change of keys, name the old key with --trusted-key";
    let Some(published) = of_any_target(location, path, trusted, hint)? else { return Ok(None) };
    let found = published.release().target();
    ensure!(
        found == *target,
        "the manifest {path} in {} is for {found}, expected {target}",
        location.describe()
    );
    Ok(Some(published))
}

/// Reads a manifest at a path; `None` if the file does not exist. If the manifest is not signed with a
/// trusted key, the error contains the hint.
pub(crate) fn of_any_target(
    location: &dyn Location,
    path: &str,
    trusted: &KeyRing,
    hint: &str,
) -> Result<Option<Published>> {
    let failed = || format!("reading the manifest {path} in {}", location.describe());
    let Some(stored) = location.read(path, TOKEN_MAX as u64).with_context(failed)? else {
        return Ok(None);
    };
    let text = String::from_utf8(stored.bytes).with_context(failed)?;
    let claims = verify(&text, trusted).with_context(|| {
        format!("the manifest {path} in {} is not trusted; {hint}", location.describe())
    })?;
    let manifest = claims.try_into().with_context(failed)?;
    Ok(Some(Published { manifest, text, version: stored.version }))
}

/// Compares a file with the manifest that names it. Returns the problem, or `None` if it is whole.
///
/// # Errors
/// Fails if the location cannot be read.
pub(crate) fn problem(location: &dyn Location, file: PublishedFile<'_>) -> Result<Option<String>> {
    let Some((size, sha256)) = location.measure(file.url, file.size)? else {
        return Ok(Some("is missing".to_owned()));
    };
    if size > file.size {
        return Ok(Some(format!("has more than {} bytes", file.size)));
    }
    if size != file.size {
        return Ok(Some(format!("has {size} bytes, expected {}", file.size)));
    }
    let differs = sha256 != file.sha256;
    Ok(differs.then(|| format!("has the SHA-256 {sha256}, expected {}", file.sha256)))
}

/// Downloads a file to a new local file and verifies it. `path` is its path at the location.
///
/// # Errors
/// Fails if the file is not the one that the manifest names.
pub(crate) fn fetch(
    location: &dyn Location,
    path: &str,
    file: PublishedFile<'_>,
    to: &Path,
) -> Result<()> {
    location.download(path, file.size, to)?;
    let (size, sha256) = digest::of_file(to)?;
    ensure!(
        size == file.size && sha256 == file.sha256,
        "{path} in {} is not the file that the manifest names: it has {size} bytes and the SHA-256 \
         {sha256}, expected {} bytes and {}",
        location.describe(),
        file.size,
        file.sha256
    );
    Ok(())
}

/// Calls a function for each item, for some of them at the same time, and returns the results in the
/// order of the items.
///
/// # Errors
/// Returns the first error. Items that were not begun are then skipped.
pub(crate) fn in_parallel<I: Sync, T: Send>(
    items: &[I],
    work: impl Fn(&I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    in_parallel_on(TRANSFERS, items, work)
}

/// Does the same as [`in_parallel`] with this number of threads.
pub(crate) fn in_parallel_on<I: Sync, T: Send>(
    threads: usize,
    items: &[I],
    work: impl Fn(&I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let worker = || {
        while let Some((index, item)) = take(items, &next) {
            let result = work(item);
            if result.is_err() {
                next.store(items.len(), Ordering::Relaxed);
            }
            results.lock().expect("no thread panics while it holds the lock").push((index, result));
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(worker);
        }
    });
    let mut results = results.into_inner().expect("no thread panics while it holds the lock");
    results.sort_by_key(|(index, result)| (result.is_ok(), *index));
    results.into_iter().map(|(_, result)| result).collect()
}

fn take<'a, I>(items: &'a [I], next: &AtomicUsize) -> Option<(usize, &'a I)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    items.get(index).map(|item| (index, item))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::{Destination, Directory};
    use anyhow::bail;
    use protocol::{Claims, PrivateKey, token};

    #[test]
    fn rejects_manifest_of_unknown_key_with_hint() {
        let directory = tempfile::tempdir().unwrap();
        let cdn = Directory::open(directory.path()).unwrap();
        let target: Target = "deb_amd64".parse().unwrap();
        let (ours, unknown) = (PrivateKey::generate(), PrivateKey::generate());
        let ring: KeyRing = ours.public().clone().into();
        assert!(live(&cdn, &target, &ring).unwrap().is_none());
        let token = token::sign(&unknown, &Claims::default()).unwrap();
        cdn.replace(&target.manifest_name(), token.as_bytes(), None).unwrap();
        let error = format!("{:#}", live(&cdn, &target, &ring).unwrap_err());
        assert!(error.contains("--trusted-key") && error.contains(unknown.id()), "{error}");
    }

    #[test]
    fn finds_missing_truncated_and_changed_files() {
        let directory = tempfile::tempdir().unwrap();
        let cdn = Directory::open(directory.path()).unwrap();
        let sha256 = protocol::digest::of_bytes(b"abc");
        let file = PublishedFile { name: "x", size: 3, sha256: &sha256, url: "1/x" };
        let check = |content: Option<&str>| {
            std::fs::create_dir_all(directory.path().join("1")).unwrap();
            match content {
                Some(content) => std::fs::write(directory.path().join("1/x"), content).unwrap(),
                None => drop(std::fs::remove_file(directory.path().join("1/x"))),
            }
            problem(&cdn, file).unwrap()
        };
        assert_eq!(check(Some("abc")), None);
        for (content, expected) in [
            (None, "is missing"),
            (Some("ab"), "has 2 bytes, expected 3"),
            (Some("abcd"), "has more than 3 bytes"),
            (Some("abd"), "has the SHA-256"),
        ] {
            assert!(check(content).unwrap().contains(expected), "{content:?}");
        }
    }

    #[test]
    fn parallel_work_keeps_the_order_and_reports_errors() {
        let items: Vec<u32> = (0..100).collect();
        assert_eq!(in_parallel(&items, |item| Ok(item * 2)).unwrap()[99], 198);
        let failing = |item: &u32| if *item == 7 { bail!("seven") } else { Ok(()) };
        assert_eq!(in_parallel(&items, failing).unwrap_err().to_string(), "seven");
        assert!(in_parallel(&[], |_: &u32| Ok(())).unwrap().is_empty());
    }
}
