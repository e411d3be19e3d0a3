//! What is in the two slots.

use std::io::ErrorKind;
use std::path::Path;

use protocol::esp::{MANIFEST, Slot, slot_file};
use protocol::token::{TOKEN_MAX, verify};
use protocol::{Artifact, KeyRing, Manifest, Release, Role, Verified};

use crate::esp::Esp;
use crate::files::measure_with;
use crate::host::read_if_there;
use crate::plan::{Content, Slots};
use crate::progress::{Progress, Show};

/// Looks into both slots and hashes what is there.
pub fn inspect(esp: &Esp, keys: &KeyRing) -> Slots {
    inspect_with(esp, keys, &Progress::new(Show::Nothing))
}

/// The same, which takes a second or two for each slot, and shows how far it is.
pub fn inspect_with(esp: &Esp, keys: &KeyRing, progress: &Progress) -> Slots {
    both(esp, keys, |folder, artifact| check(folder, artifact, progress))
}

/// Looks into both slots and at the sizes of what is there. It is quick, and [`Content::Complete`] says
/// no more than that the manifest verifies and the sizes are right: nothing may be decided by it.
pub fn survey(esp: &Esp, keys: &KeyRing) -> Slots {
    both(esp, keys, check_size)
}

fn both(
    esp: &Esp,
    keys: &KeyRing,
    check: impl Fn(&Path, &Artifact) -> Result<(), String>,
) -> Slots {
    let [a, b] = Slot::ALL.map(|slot| content(&esp.path(&slot.folder()), keys, &check));
    Slots { a, b }
}

fn content(
    folder: &Path,
    keys: &KeyRing,
    check: impl Fn(&Path, &Artifact) -> Result<(), String>,
) -> Content {
    let ours = Role::BOOT.into_iter().filter_map(slot_file).chain([MANIFEST]);
    if !ours.into_iter().any(|name| is_there(&folder.join(name))) {
        return Content::Empty;
    }
    let release = match release(&folder.join(MANIFEST), keys) {
        Ok(release) => release,
        Err(problem) => return Content::Damaged { release: None, problem },
    };
    let problem = release.boot_artifacts().find_map(|artifact| check(folder, artifact).err());
    match problem {
        Some(problem) => Content::Damaged { release: Some(release), problem },
        None => Content::Complete(release),
    }
}

/// What cannot be looked at is there, and damaged.
fn is_there(path: &Path) -> bool {
    !matches!(std::fs::symlink_metadata(path), Err(error) if error.kind() == ErrorKind::NotFound)
}

/// The release of a slot. Its time is not looked at: what is installed does not go bad.
fn release(path: &Path, keys: &KeyRing) -> Result<Release, String> {
    let token = read_if_there(path, TOKEN_MAX as u64)
        .map_err(|error| format!("{MANIFEST} cannot be read: {error}"))?
        .ok_or_else(|| format!("{MANIFEST} is missing"))?;
    let token = String::from_utf8_lossy(&token);
    let claims = verify(&token, keys).map_err(|error| format!("{MANIFEST}: {error}"))?;
    let manifest: Verified<Manifest> =
        claims.try_into().map_err(|error| format!("{MANIFEST}: {error}"))?;
    Ok(manifest.into_inner().release)
}

fn check_size(folder: &Path, artifact: &Artifact) -> Result<(), String> {
    let name = slot_file(artifact.role).unwrap_or_default();
    match std::fs::metadata(folder.join(name)).map(|data| data.len()) {
        Ok(size) if size == artifact.size => Ok(()),
        Ok(size) => Err(format!("{name} has {size} bytes, expected {}", artifact.size)),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(format!("{name} is missing")),
        Err(error) => Err(format!("{name} cannot be read: {error}")),
    }
}

fn check(folder: &Path, artifact: &Artifact, progress: &Progress) -> Result<(), String> {
    check_size(folder, artifact)?;
    let name = slot_file(artifact.role).unwrap_or_default();
    let seen = |done| progress.bytes(artifact.role, done, artifact.size);
    let (_, digest) = measure_with(&folder.join(name), &seen).map_err(|error| error.to_string())?;
    match digest == artifact.sha256 {
        true => Ok(()),
        false => Err(format!("{name} has the SHA-256 {digest}, expected {}", artifact.sha256)),
    }
}
