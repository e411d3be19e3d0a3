//! Inspects the contents of the two slots.

use protocol::esp::{MANIFEST, PARTIAL, Slot, slot_file};
use protocol::token::{TOKEN_MAX, TokenError, verify};
use protocol::{Artifact, KeyRing, Manifest, Release, Role, Verified};

use crate::files::{Entry, FileError, FileSystem, measure_with, read_limited};
use crate::progress::{Progress, Show};
use crate::slot_content::{Content, Slots};

/// Verifies the manifests of both slots and hashes their files.
pub fn inspect(esp: &dyn FileSystem, keys: &KeyRing) -> Slots {
    inspect_with(esp, keys, &Progress::new(Show::Nothing))
}

/// Does the same as [`inspect`] and reports progress, because hashing takes a second or two per slot.
pub fn inspect_with(esp: &dyn FileSystem, keys: &KeyRing, progress: &Progress) -> Slots {
    contents(esp, keys, |slot, artifact| check(esp, slot, artifact, progress))
}

/// Verifies the manifests of both slots and compares the sizes of their files without hashing them.
///
/// [`Content::Complete`] then only means that the manifest verifies and the sizes match. This must not be
/// the basis for a write or a reboot.
pub fn survey(esp: &dyn FileSystem, keys: &KeyRing) -> Slots {
    contents(esp, keys, |slot, artifact| check_size(esp, slot, artifact))
}

type Check<'a> = &'a dyn Fn(Slot, &Artifact) -> Result<(), String>;

fn contents(
    esp: &dyn FileSystem,
    keys: &KeyRing,
    check: impl Fn(Slot, &Artifact) -> Result<(), String>,
) -> Slots {
    let [a, b] = Slot::ALL.map(|slot| content(esp, slot, keys, &check));
    Slots { a, b }
}

fn content(esp: &dyn FileSystem, slot: Slot, keys: &KeyRing, check: Check<'_>) -> Content {
    let directory = slot.directory();
    match esp.metadata(&directory) {
        Ok(None) => return Content::Empty,
        Ok(Some(Entry::Directory)) => {}
        Ok(Some(_)) => return damaged(format!("{directory} is not a directory")),
        Err(error) => return damaged(error.to_string()),
    }
    let manifest = match manifest(esp, slot, MANIFEST, keys) {
        Ok(manifest) => manifest,
        Err(problem) => return without_manifest(esp, slot, keys, problem),
    };
    let problem =
        manifest.release.boot_artifacts().find_map(|artifact| check(slot, artifact).err());
    match problem {
        Some(problem) => Content::Damaged { manifest: Some(manifest), problem },
        None => Content::Complete(manifest),
    }
}

fn without_manifest(esp: &dyn FileSystem, slot: Slot, keys: &KeyRing, problem: String) -> Content {
    if let Some(release) = partial(esp, slot, keys) {
        let size = |artifact: &Artifact| {
            let path = format!("{}/{}", slot.directory(), slot_file(artifact.role)?);
            match esp.metadata(&path) {
                Ok(Some(Entry::File { size })) => Some(size.min(artifact.size)),
                _ => None,
            }
        };
        let bytes = release.boot_artifacts().filter_map(size).sum();
        return Content::Partial { release, bytes };
    }
    let names = Role::BOOT.into_iter().filter_map(slot_file).chain([MANIFEST, PARTIAL]);
    // A file whose metadata cannot be read exists and counts as damaged.
    let exists = |name| !matches!(esp.metadata(&format!("{}/{name}", slot.directory())), Ok(None));
    match names.into_iter().any(exists) {
        true => damaged(problem),
        false => Content::Empty,
    }
}

fn damaged(problem: String) -> Content {
    Content::Damaged { manifest: None, problem }
}

/// Returns the release of an unfinished download in a slot, if its manifest verifies.
pub fn partial(esp: &dyn FileSystem, slot: Slot, keys: &KeyRing) -> Option<Release> {
    manifest(esp, slot, PARTIAL, keys).ok().map(|manifest| manifest.release)
}

/// Returns a manifest in a slot. An expired manifest is accepted, because expiry limits what is installed,
/// not what is booted.
fn manifest(
    esp: &dyn FileSystem,
    slot: Slot,
    name: &str,
    keys: &KeyRing,
) -> Result<Manifest, String> {
    let path = format!("{}/{name}", slot.directory());
    let token = read_limited(esp, &path, TOKEN_MAX as u64)
        .map_err(|FileError { error, .. }| format!("{name} cannot be read: {error}"))?
        .ok_or_else(|| format!("{name} is missing"))?;
    let token = String::from_utf8_lossy(&token);
    let claims = verify(&token, keys).map_err(|error| match error {
        TokenError::UnknownKey { kid, .. } => format!(
            "{name} is signed with the key {kid:?}, which is not trusted here, so its files cannot be verified: to keep the release, add the key to \"keys\"; otherwise the next update overwrites it"
        ),
        _ => format!("{name}: {error}"),
    })?;
    let manifest: Verified<Manifest> =
        claims.try_into().map_err(|error| format!("{name}: {error}"))?;
    Ok(manifest.into_inner())
}

/// Returns whether a slot has a manifest that is signed with another key than `keys`.
pub fn has_unknown_key(esp: &dyn FileSystem, slot: Slot, keys: &KeyRing) -> bool {
    let path = format!("{}/{MANIFEST}", slot.directory());
    let token = read_limited(esp, &path, TOKEN_MAX as u64).ok().flatten().unwrap_or_default();
    // Two keys can have the same ID.
    matches!(
        verify(&String::from_utf8_lossy(&token), keys),
        Err(TokenError::UnknownKey { .. }
            | TokenError::NoKeyId { .. }
            | TokenError::Algorithm { .. }
            | TokenError::Signature { .. })
    )
}

fn check_size(esp: &dyn FileSystem, slot: Slot, artifact: &Artifact) -> Result<(), String> {
    let name = slot_file(artifact.role).unwrap_or_default();
    match esp.metadata(&format!("{}/{name}", slot.directory())) {
        Ok(Some(Entry::File { size })) if size == artifact.size => Ok(()),
        Ok(Some(Entry::File { size })) => {
            Err(format!("{name} has {size} bytes, expected {}", artifact.size))
        }
        Ok(Some(_)) => Err(format!("{name} is not a file")),
        Ok(None) => Err(format!("{name} is missing")),
        Err(FileError { error, .. }) => Err(format!("{name} cannot be read: {error}")),
    }
}

fn check(
    esp: &dyn FileSystem,
    slot: Slot,
    artifact: &Artifact,
    progress: &Progress,
) -> Result<(), String> {
    check_size(esp, slot, artifact)?;
    let name = slot_file(artifact.role).unwrap_or_default();
    let path = format!("{}/{name}", slot.directory());
    let report = |done| progress.bytes(artifact.role, done, artifact.size);
    let digest =
        measure_with(esp, &path, artifact.size, &report).map_err(|error| error.to_string())?;
    match digest == artifact.sha256 {
        true => Ok(()),
        false => Err(format!("{name} has the SHA-256 {digest}, expected {}", artifact.sha256)),
    }
}
