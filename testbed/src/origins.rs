//! Checks where a host got the files of an update from: its own slot, a delta, or the whole file.

use protocol::release::DeltaFile;
use protocol::{Artifact, Release, Role};

use crate::artifacts::cdn_path;
use crate::cdn::{self, Access};
use crate::scenario::ScenarioError;

/// The host must use a delta that takes at most the memory of the machine divided by this number: at least three
/// quarters are available, and a delta may take a third of these.
const SURE_MEMORY_DIVISOR: u64 = 4;

/// An update that a host has made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Update<'a> {
    /// The release that the host has in its other slot; absent if that slot is damaged.
    pub from: Option<&'a Release>,
    /// The release that it has installed.
    pub to: &'a Release,
    /// The memory of the host in MiB.
    pub memory: u32,
    /// Whether it must have got the initrd by a delta, unless its slot is damaged.
    pub must_patch: bool,
}

impl Update<'_> {
    /// Describes where the host got kernel and initrd from, by its requests to the CDN.
    ///
    /// # Errors
    /// Fails if a file was neither fetched nor in the other slot, if the host downloaded a whole file that it could
    /// copy or patch, or if there is no delta that it must use.
    pub(crate) fn describe(&self, accesses: &[Access]) -> Result<String, ScenarioError> {
        let notes: Result<Vec<String>, ScenarioError> =
            Role::BOOT.into_iter().map(|role| self.describe_file(role, accesses)).collect();
        Ok(notes?.join(", "))
    }

    fn describe_file(&self, role: Role, accesses: &[Access]) -> Result<String, ScenarioError> {
        let Some(artifact) = self.to.artifact(role) else { return Ok(format!("no {role}")) };
        let sent = |url: &str| -> Result<(String, Option<u64>), ScenarioError> {
            let path = format!("/{}", cdn_path(&self.to.target(), role, url)?);
            let bytes = fetched(&path, accesses);
            Ok((path, bytes))
        };
        let (path, whole) = sent(&artifact.url)?;
        let requests = || cdn::list(accesses);
        if let Some(bytes) = whole {
            if self.must_patch
                && role == Role::Initrd
                && self.from.is_some()
                && self.delta(artifact).is_none()
            {
                return Err(ScenarioError::NoDelta { role });
            }
            if !self.may_download(artifact) {
                return Err(ScenarioError::NotPatched { role, path, requests: requests() });
            }
            return Ok(format!("{role} downloaded, {bytes} bytes"));
        }
        if self.held(role).is_some_and(|held| held.sha256 == artifact.sha256) {
            return Ok(format!("{role} copied"));
        }
        if let Some(delta) = self.delta(artifact)
            && let (_, Some(bytes)) = sent(&delta.url)?
        {
            return Ok(format!("{role} patched, {bytes} bytes"));
        }
        Err(ScenarioError::NotFetched { missing: path, requests: requests() })
    }

    /// Returns whether the host may download the whole file. A host whose updater does not support deltas does not
    /// copy files either; no delta is made for it.
    fn may_download(&self, artifact: &Artifact) -> bool {
        let supports_deltas = self.to.boot_artifacts().any(|other| self.delta(other).is_some());
        let is_held = self.held(artifact.role).is_some_and(|held| held.sha256 == artifact.sha256);
        match self.delta(artifact) {
            Some(delta) => delta.memory > (u64::from(self.memory) << 20) / SURE_MEMORY_DIVISOR,
            None => !(is_held && supports_deltas),
        }
    }

    /// Returns the delta from the file that the host has.
    fn delta<'a>(&self, artifact: &'a Artifact) -> Option<&'a DeltaFile> {
        let held = self.held(artifact.role)?;
        artifact.deltas.iter().find(|delta| delta.from == held.sha256)
    }

    fn held(&self, role: Role) -> Option<&Artifact> {
        self.from?.artifact(role)
    }
}

/// Returns the number of bytes that the CDN sent from a path; `None` if it was not requested.
fn fetched(path: &str, accesses: &[Access]) -> Option<u64> {
    let is_sent = |access: &&Access| {
        access.method == "GET" && access.path == path && matches!(access.status, 200 | 206)
    };
    let sent = accesses.iter().filter(is_sent).map(|access| access.length.unwrap_or_default());
    sent.reduce(|sum, length| sum + length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::tests::{signed_release, verified};

    fn get(path: &str) -> Access {
        let (method, path) = ("GET".to_owned(), path.to_owned());
        Access { method, path, range: None, status: 200, length: Some(5) }
    }

    /// Returns a release, and the one that follows it with deltas of both files, which take `memory` bytes.
    fn releases(memory: u64) -> (Release, Release) {
        let old = verified(&signed_release(|_| {})).release;
        let mut new = old.clone();
        for (artifact, held) in new.artifacts.iter_mut().zip(&old.artifacts) {
            artifact.sha256 = "ef".repeat(32);
            artifact.deltas = vec![DeltaFile {
                from: held.sha256.clone(),
                format: "x".into(),
                name: format!("{}.delta", held.name),
                size: 1,
                sha256: "cd".repeat(32),
                url: format!("7/{}.delta", artifact.role),
                memory,
            }];
        }
        (old, new)
    }

    const KERNEL: &str = "/7/etchaos_deb_amd64.vmlinuz";
    const INITRD: &str = "/7/etchaos_deb_amd64.initrd";

    /// Returns the description of an update with 4 MiB of memory, or the error.
    fn describe(from: Option<&Release>, to: &Release, paths: &[&str]) -> Result<String, String> {
        describe_if(false, from, to, paths)
    }

    fn describe_if(
        must_patch: bool,
        from: Option<&Release>,
        to: &Release,
        paths: &[&str],
    ) -> Result<String, String> {
        let accesses: Vec<Access> = paths.iter().map(|path| get(path)).collect();
        let described = Update { from, to, memory: 4, must_patch }.describe(&accesses);
        described.map_err(|error| error.to_string())
    }

    #[test]
    fn a_release_without_a_delta_fails_if_there_must_be_one() {
        let (old, mut new) = releases(0);
        let patched = &["/7/kernel.delta", "/7/initrd.delta"];
        assert!(describe_if(true, Some(&old), &new, patched).is_ok());
        new.artifacts.iter_mut().for_each(|artifact| artifact.deltas.clear());
        let whole = &[KERNEL, INITRD];
        assert!(describe_if(false, Some(&old), &new, whole).is_ok());
        let error = describe_if(true, Some(&old), &new, whole).unwrap_err();
        assert!(error.contains("names no delta"), "{error}");
        assert!(describe_if(true, None, &new, whole).is_ok());
    }

    #[test]
    fn a_file_with_a_delta_is_not_downloaded() {
        let (old, new) = releases(1 << 20);
        let from = Some(&old);
        let patched = describe(from, &new, &["/7/kernel.delta", "/7/initrd.delta"]);
        assert_eq!(patched.unwrap(), "kernel patched, 5 bytes, initrd patched, 5 bytes");
        let error = describe(from, &new, &["/7/kernel.delta", "/7/initrd.delta", INITRD]);
        let error = error.unwrap_err();
        assert!(error.contains("downloaded the whole initrd") && error.contains(INITRD), "{error}");
        let error = describe(from, &new, &["/7/kernel.delta"]).unwrap_err();
        assert!(error.contains("did not download") && error.contains(INITRD), "{error}");
        // A damaged slot has nothing to patch.
        assert!(describe(None, &new, &[KERNEL, INITRD]).is_ok());
        // The memory does not suffice.
        let (old, new) = releases((1 << 20) + 1);
        assert!(describe(Some(&old), &new, &[KERNEL, INITRD]).is_ok());
    }

    #[test]
    fn a_file_that_the_host_has_is_not_downloaded() {
        let (old, mut new) = releases(0);
        new.artifacts[0] = old.artifacts[0].clone();
        let from = Some(&old);
        let copied = describe(from, &new, &["/7/initrd.delta"]).unwrap();
        assert_eq!(copied, "kernel copied, initrd patched, 5 bytes");
        assert!(describe(from, &new, &["/7/initrd.delta", KERNEL]).is_err());
        // Without deltas, the updater may not support them.
        new.artifacts[1].deltas.clear();
        assert!(describe(from, &new, &[INITRD, KERNEL]).is_ok());
        assert!(describe(from, &new, &[INITRD]).is_ok());
        assert!(describe(from, &new, &[KERNEL]).is_err());
    }
}
