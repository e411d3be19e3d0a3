//! Installs a release in a slot, in an order of writes that survives a power cut on FAT. The order was
//! found by replaying every write of a disk: all files and directories of the slot are flushed before
//! grubenv points to it, and grubenv is overwritten in place, never renamed.
//!
//! Each stage returns the value that the next one needs, so that none can be skipped:
//! [`Space`] → `Claimed` → `Staged` → [`Installed`]. Only an [`Installed`] slot can be put on trial.
//!
//! An unfinished download is resumed by the next update. For this the release's manifest is written
//! before the first byte of an artifact, as `partial.jwt`, which does not make the slot a release. It
//! identifies the release that the files in the slot belong to.

mod complete;
mod copy;
mod delta;
mod error;
mod job;
mod origin;
mod partial;
mod received;
mod space;
mod stored;

use protocol::esp::{MANIFEST, ORIGINS, PARTIAL, Slot, slot_file};
use protocol::grubenv::BootId;
use protocol::{Artifact, Release, Role, digest};

use self::complete::{complete, urls};
pub use self::error::InstallError;
use self::job::path_of;
pub use self::job::{Job, Source};
pub use self::origin::{FileOrigin, Way, origins};
use self::origin::{Origin, origin};
use self::partial::{Opened, PartialFile};
pub use self::space::{Space, SpaceError};
pub(crate) use self::stored::stored_origins;
use crate::files::{
    Entry, FileError, FileSystem, at, create_directories, files_in, measure, parent,
    remove_if_exists,
};
use crate::grubenv_file::GrubenvFile;
use crate::slot_content::{Content, Slots};
use crate::{slots, trial};

/// A slot that holds a complete release, flushed to the disk.
#[derive(Debug)]
pub struct Installed {
    slot: Slot,
    release: Release,
    /// Where the files came from; empty if an earlier run installed them.
    pub origins: Vec<FileOrigin>,
}

impl Installed {
    /// Returns the slot if [`crate::slots::inspect`] found a complete release in it.
    pub fn found(slots: &Slots, slot: Slot) -> Option<Self> {
        match slots.get(slot) {
            Content::Complete(manifest) => {
                Some(Self { slot, release: manifest.release.clone(), origins: Vec::new() })
            }
            Content::Empty | Content::Partial { .. } | Content::Damaged { .. } => None,
        }
    }
}

/// Writes the release to the slot. GRUB does not boot it before [`put_on_trial`].
///
/// The previous content of the slot is lost even if this fails; the slot then holds an unfinished
/// download. Whatever can be checked without changing the slot is checked first.
pub fn install(job: Job<'_>, grubenv: &mut GrubenvFile) -> Result<Installed, InstallError> {
    probe_artifacts(job)?;
    let space = Space::check(job.esp, job.slot, job.source.candidate)?;
    let claimed = claim(job, space, grubenv)?;
    let staged = stage(claimed)?;
    seal(staged)
}

/// Starts the trial of the slot: GRUB boots it at most [`TRIES`](protocol::grubenv::TRIES) times, and
/// then falls back to the good slot.
///
/// This is one flushed write of one sector. On disks that write a sector atomically, a power cut leaves
/// either the old or the new state.
pub fn put_on_trial(
    esp: &dyn FileSystem,
    installed: &Installed,
    grubenv: &mut GrubenvFile,
    boot: Option<BootId>,
) -> Result<(), FileError> {
    let Installed { slot, release, .. } = installed;
    grubenv.show_version(*slot, &release.version);
    grubenv.write(esp, trial::start_trial(&grubenv.state, *slot, release, boot))
}

/// Checks that the CDN has each artifact that may have to be downloaded. This comes before the slot is cleared,
/// because the slot may hold the only other release. A delta may fail, and then the artifact is downloaded.
fn probe_artifacts(job: Job<'_>) -> Result<(), InstallError> {
    for artifact in job.source.candidate.release().boot_artifacts() {
        let origin = origin(artifact, job.source, job.slots, job.slot, 0);
        if !matches!(origin, Origin::Copy { .. }) {
            probe(job, artifact, &urls(job, artifact)?)?;
        }
    }
    Ok(())
}

/// Checks that at least one mirror has an artifact. Returns the last mirror's error if none has.
fn probe(job: Job<'_>, artifact: &Artifact, urls: &[String]) -> Result<(), InstallError> {
    let mut result = Ok(());
    for url in urls {
        let response = job.source.cdn.probe(url).map_err(InstallError::from);
        result = response.and_then(|length| check_length(artifact, length));
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Compares the length that a server announces with the manifest. Accepts a response without a length.
fn check_length(artifact: &Artifact, found: Option<u64>) -> Result<(), InstallError> {
    match found {
        Some(found) if found != artifact.size => {
            Err(InstallError::Length { role: artifact.role, expected: artifact.size, found })
        }
        _ => Ok(()),
    }
}

/// A slot that is not on trial and holds only files of this release. `partial.jwt` on the disk
/// names the release.
struct Claimed<'a>(Job<'a>);

/// Clears the slot, or keeps an unfinished download of the same release.
fn claim<'a>(
    job: Job<'a>,
    _: Space,
    grubenv: &mut GrubenvFile,
) -> Result<Claimed<'a>, InstallError> {
    let Job { esp, slot, source: Source { candidate, keys, .. }, .. } = job;
    if grubenv.state.trial.is_some_and(|trial| trial.slot == slot) {
        grubenv.write(esp, trial::cancel_trial(&grubenv.state))?;
    }
    let left_by_fsck = space::fsck_files(esp)?;
    for path in &left_by_fsck {
        esp.remove_file(path)?;
    }
    if !left_by_fsck.is_empty() {
        esp.sync_directory("")?;
    }
    let owner = slots::partial(esp, slot, keys).map(|release| release.id());
    if owner == Some(candidate.release().id()) {
        clear(job, true)?;
        return Ok(Claimed(job));
    }
    clear(job, false)?;
    create_directories(esp, &slot.directory())?;
    write(esp, &path_of(slot, PARTIAL), candidate.token())?;
    Ok(Claimed(job))
}

/// Removes the files of a slot; with `keep_partial` an unfinished download is kept. The manifest is
/// removed first and flushed, so that the rest cannot be taken for a release.
///
/// A directory with the name of one of the slot's files is removed with its content; other directories
/// are left alone. If the slot itself is not a directory, it is removed.
fn clear(Job { esp, slot, .. }: Job<'_>, keep_partial: bool) -> Result<(), FileError> {
    let directory = slot.directory();
    if esp.metadata(&directory)? != Some(Entry::Directory) {
        // A file or a link in the place of the slot's directory is removed and not followed.
        return match remove_if_exists(esp, &directory)? {
            true => esp.sync_directory(parent(&directory)),
            false => Ok(()),
        };
    }
    if remove_if_exists(esp, &path_of(slot, MANIFEST))? {
        esp.sync_directory(&directory)?;
    }
    let partial = Role::BOOT.into_iter().filter_map(slot_file).chain([PARTIAL]);
    let partial: Vec<String> = partial.map(|name| path_of(slot, name)).collect();
    let kept = if keep_partial { &partial[..] } else { &[] };
    // Another system may have written a name in capital letters, which FAT does not distinguish.
    let is_kept = |path: &str| kept.iter().any(|kept| kept.eq_ignore_ascii_case(path));
    for path in partial.iter().cloned().chain(files_in(esp, &directory)?) {
        if !is_kept(&path) {
            remove_if_exists(esp, &path)?;
        }
    }
    esp.sync_directory(&directory)
}

/// A slot whose artifacts are complete and flushed, but that has no manifest yet.
struct Staged<'a> {
    job: Job<'a>,
    origins: Vec<FileOrigin>,
}

/// Writes the artifacts into the slot.
fn stage(Claimed(job): Claimed<'_>) -> Result<Staged<'_>, InstallError> {
    let mut origins = Vec::new();
    for artifact in job.source.candidate.release().boot_artifacts() {
        if let Some(name) = slot_file(artifact.role) {
            origins.push(stage_one(job, artifact, &path_of(job.slot, name))?);
        }
    }
    Ok(Staged { job, origins })
}

fn stage_one(job: Job<'_>, artifact: &Artifact, path: &str) -> Result<FileOrigin, InstallError> {
    let Artifact { role, size, .. } = artifact;
    let origin = match PartialFile::open(job.esp, path, artifact)? {
        Opened::Complete => {
            log::info!(role = role.to_string().as_str(); "the {role} is already complete");
            FileOrigin { role: *role, way: Way::Kept, bytes: 0, reason: None }
        }
        Opened::Incomplete(file) => complete(job, artifact, path, file)?,
    };
    // An earlier run may have ended before this, so a complete file is flushed as well.
    flush_and_verify(job.esp, path, *size, &artifact.sha256)?;
    Ok(origin)
}

/// Writes where the files came from, and then the manifest, which makes the release complete. Removes `partial.jwt`
/// after that.
fn seal(Staged { job, origins }: Staged<'_>) -> Result<Installed, InstallError> {
    let Job { esp, slot, source: Source { candidate, .. }, .. } = job;
    let release = candidate.release().clone();
    write(esp, &path_of(slot, ORIGINS), &stored::to_text(&release, &origins))?;
    write(esp, &path_of(slot, MANIFEST), candidate.token())?;
    esp.remove_file(&path_of(slot, PARTIAL))?;
    esp.sync_directory(&slot.directory())?;
    Ok(Installed { slot, release, origins })
}

/// Writes a new file and verifies it.
fn write(esp: &dyn FileSystem, path: &str, text: &str) -> Result<(), InstallError> {
    esp.create(path)?.write_at(text.as_bytes(), 0).map_err(at("write", path))?;
    flush_and_verify(esp, path, text.len() as u64, &digest::of_bytes(text.as_bytes()))
}

/// Flushes a file and its directory, reads it back from the disk and compares its digest.
fn flush_and_verify(
    esp: &dyn FileSystem,
    path: &str,
    size: u64,
    expected: &str,
) -> Result<(), InstallError> {
    esp.edit(path)?.sync().map_err(at("flush", path))?;
    esp.sync_directory(parent(path))?;
    match measure(esp, path, size)? {
        found if found == expected => Ok(()),
        found => {
            let (path, expected) = (path.to_owned(), expected.to_owned());
            Err(InstallError::ReadBack { path, expected, found })
        }
    }
}
