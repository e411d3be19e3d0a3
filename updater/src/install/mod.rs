//! Puts a release into a slot, in the one order that survives a power cut on FAT. It was found by
//! replaying every write of a disk: what is written to the slot is flushed, file by file and folder by
//! folder, before grubenv points to it, and grubenv is overwritten in place, never renamed.
//!
//! Each stage returns what the next one needs, so that none can be skipped:
//! [`Space`] → `Cleared` → `Staged` → [`Installed`], and only what is installed can be pointed to.

mod download;
mod space;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use protocol::esp::{MANIFEST, Slot, slot_file};
use protocol::grubenv::{BootId, BootState};
use protocol::release::UrlError;
use protocol::{Artifact, Release, Role};

pub use self::download::DownloadError;
pub use self::space::{Space, SpaceError};
use crate::bootstate::Grubenv;
use crate::candidate::Candidate;
use crate::cdn::{Cdn, CdnError, FetchError};
use crate::esp::Esp;
use crate::files::{FileError, at, make_folder, measure, remove, remove_whatever, sync_folder};
use crate::plan::{Content, Slots};
use crate::trial;

/// What is to be written, where, and where it comes from.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The ESP.
    pub esp: &'a Esp,
    /// The slot. Neither the running one nor the good one: [`crate::plan::next`] says which.
    pub slot: Slot,
    /// The release.
    pub candidate: &'a Candidate,
    /// Where its artifacts are.
    pub cdn: &'a Cdn,
    /// Where they may be besides.
    pub allowed_origins: &'a [String],
}

/// An installation that did not work. What was running before still boots.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Not enough space.
    #[error(transparent)]
    Space(#[from] SpaceError),
    /// A URL that must not be followed.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// An artifact could not be had.
    #[error(transparent)]
    Cdn(#[from] CdnError),
    /// An artifact is not what the manifest says.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// An artifact could not be had whole.
    #[error(transparent)]
    Fetch(FetchError),
    /// The disk refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The disk lies.
    #[error(
        "{} was written, and reads back with the SHA-256 {found}, expected {expected}: the disk is failing",
        path.display()
    )]
    ReadBack {
        /// The file.
        path: PathBuf,
        /// What was written.
        expected: String,
        /// What came back.
        found: String,
    },
}

/// A slot with a whole release on the disk.
#[derive(Debug)]
pub struct Installed {
    slot: Slot,
    release: Release,
}

impl Installed {
    /// What was found whole in a slot by [`crate::slots::inspect`].
    pub fn found(slots: &Slots, slot: Slot) -> Option<Self> {
        match slots.get(slot) {
            Content::Complete(release) => Some(Self { slot, release: release.clone() }),
            Content::Empty | Content::Damaged { .. } => None,
        }
    }
}

/// Writes the release into the slot. Nothing points to it yet: see [`put_on_trial`].
///
/// What was in the slot is gone, also if this fails; then the slot is empty. Everything that can be
/// known before is checked before.
pub fn install(job: Job<'_>, grubenv: &mut Grubenv) -> Result<Installed, InstallError> {
    ask_for_artifacts(job)?;
    let space = Space::check(job.esp, job.slot, job.candidate)?;
    let cleared = clear(job, space, grubenv)?;
    let written = stage(cleared).and_then(seal);
    if written.is_err()
        && let Err(error) = discard(job)
    {
        log::warn!("what was written of slot {} could not be removed: {error}", job.slot);
    }
    written
}

/// Makes GRUB try the slot next, [`TRIES`](protocol::grubenv::TRIES) times, before it falls back to the one that is good now.
///
/// One write of one sector, flushed. It promises that a power cut leaves the old or the new state,
/// on disks that write a sector whole. It does not promise that the slot boots: that is what the
/// trial is for.
pub fn put_on_trial(
    esp: &Esp,
    installed: &Installed,
    grubenv: &mut Grubenv,
    boot: Option<BootId>,
) -> Result<(), FileError> {
    let Installed { slot, release } = installed;
    grubenv.show_version(*slot, release);
    grubenv.write(esp, trial::begun(&grubenv.state, *slot, release, boot))
}

/// A missing artifact should cost nothing: what is in the slot may be the only other release.
fn ask_for_artifacts(job: Job<'_>) -> Result<(), InstallError> {
    for artifact in job.candidate.release().boot_artifacts() {
        let sources = job.candidate.sources(artifact, job.allowed_origins)?;
        ask_for(job, artifact, &sources)?;
    }
    Ok(())
}

/// One mirror that has it is enough; of several errors the last is told.
fn ask_for(job: Job<'_>, artifact: &Artifact, sources: &[String]) -> Result<(), InstallError> {
    let mut asked = Ok(());
    for url in sources {
        let answer = job.cdn.probe(url).map_err(InstallError::from);
        asked = answer.and_then(|length| Ok(download::check_length(artifact, length)?));
        if asked.is_ok() {
            break;
        }
    }
    asked
}

/// A slot in which nothing is left, and to which nothing points.
struct Cleared<'a>(Job<'a>);

fn clear<'a>(job: Job<'a>, _: Space, grubenv: &mut Grubenv) -> Result<Cleared<'a>, InstallError> {
    if grubenv.state.trial.is_some_and(|trial| trial.slot == job.slot) {
        grubenv.write(job.esp, BootState { trial: None, ..grubenv.state.clone() })?;
    }
    let left_by_fsck = space::fsck_files(job.esp)?;
    for path in &left_by_fsck {
        remove(path)?;
    }
    if !left_by_fsck.is_empty() {
        sync_folder(&job.esp.path(""))?;
    }
    discard(job)?;
    Ok(Cleared(job))
}

/// Removes the files of a slot. The manifest first and for good: without it the rest is never taken
/// for a release.
///
/// A folder in the place of one of the slot's files goes with what is in it; other folders are not
/// ours. So does whatever is in the place of the slot's folder and is none.
fn discard(job: Job<'_>) -> Result<(), FileError> {
    let folder = job.esp.path(&job.slot.folder());
    if !space::is_folder(&folder) {
        // A file below which the folder should be, or a link: neither is looked into.
        return match (remove_whatever(&folder)?, folder.parent()) {
            (true, Some(parent)) => sync_folder(parent),
            _ => Ok(()),
        };
    }
    if remove_whatever(&folder.join(MANIFEST))? {
        sync_folder(&folder)?;
    }
    for name in Role::BOOT.into_iter().filter_map(slot_file) {
        remove_whatever(&folder.join(name))?;
    }
    for path in space::files(&folder)? {
        remove(&path)?;
    }
    sync_folder(&folder)
}

/// A slot with artifacts that are whole and on the disk, and no manifest.
struct Staged<'a>(Job<'a>);

fn stage(Cleared(job): Cleared<'_>) -> Result<Staged<'_>, InstallError> {
    make_folder(&job.esp.path(&job.slot.folder()))?;
    for artifact in job.candidate.release().boot_artifacts() {
        stage_one(job, artifact)?;
    }
    Ok(Staged(job))
}

fn stage_one(job: Job<'_>, artifact: &Artifact) -> Result<(), InstallError> {
    let sources = job.candidate.sources(artifact, job.allowed_origins)?;
    let path = path_of(job, artifact.role);
    let Artifact { role, size, .. } = artifact;
    log::info!(role = role.to_string().as_str(), size = *size; "downloading the {role} ({size} bytes)");
    write(&path, &artifact.sha256, |file| {
        let mut filling = download::Filling::new(file);
        job.cdn.download(&sources, artifact, &mut filling).map_err(|error| match error {
            FetchError::Sink(why) => InstallError::File(at("write", &path)(why)),
            other => InstallError::Fetch(other),
        })
    })
}

/// The manifest comes last: with it the slot is a release.
fn seal(Staged(job): Staged<'_>) -> Result<Installed, InstallError> {
    let path = job.esp.path(&job.slot.folder()).join(MANIFEST);
    let token = job.candidate.token().as_bytes();
    write(&path, &download::digest(token), |file| {
        Ok(file.write_all(token).map_err(at("write", &path))?)
    })?;
    Ok(Installed { slot: job.slot, release: job.candidate.release().clone() })
}

/// Writes a new file, flushes it and its folder, and reads it back from the disk.
fn write(
    path: &Path,
    sha256: &str,
    fill: impl FnOnce(&mut File) -> Result<(), InstallError>,
) -> Result<(), InstallError> {
    let file = File::options().write(true).create_new(true).open(path);
    let mut file = file.map_err(at("make", path))?;
    fill(&mut file)?;
    file.sync_all().map_err(at("flush", path))?;
    if let Some(folder) = path.parent() {
        sync_folder(folder)?;
    }
    match measure(path)? {
        (_, found) if found == sha256 => Ok(()),
        (_, found) => {
            let expected = sha256.to_owned();
            Err(InstallError::ReadBack { path: path.to_owned(), expected, found })
        }
    }
}

fn path_of(job: Job<'_>, role: Role) -> PathBuf {
    job.esp.path(&job.slot.folder()).join(slot_file(role).unwrap_or_default())
}
