//! Puts a release into a slot, in the one order that survives a power cut on FAT. It was found by
//! replaying every write of a disk: what is written to the slot is flushed, file by file and directory by
//! directory, before grubenv points to it, and grubenv is overwritten in place, never renamed.
//!
//! Each stage returns what the next one needs, so that none can be skipped:
//! [`Space`] → `Claimed` → `Staged` → [`Installed`], and only what is installed can be pointed to.
//!
//! A download that does not come to its end, for whatever reason, is gone on with by the next one. So
//! what is in a slot has an owner: before the first byte of an artifact there is the release's
//! manifest, under a name that nobody takes for a release's.

mod partial;
mod space;

use protocol::esp::{MANIFEST, PARTIAL, Slot, slot_file};
use protocol::grubenv::BootId;
use protocol::url::UrlError;
use protocol::{Artifact, KeyRing, Release, Role};
use sha2::{Digest, Sha256};

use self::partial::{Filling, Found, Watched};
pub use self::space::{Space, SpaceError};
use crate::candidate::Candidate;
use crate::cdn::{Cdn, CdnError, FetchError, ResumableSink as _};
use crate::files::{
    Entry, FileError, FileSystem, at, create_directories, files_in, hex, measure, parent,
    remove_if_exists,
};
use crate::grubenv_file::GrubenvFile;
use crate::interrupt;
use crate::plan::{Content, Slots};
use crate::progress::Progress;
use crate::{slots, trial};

/// A release that is offered, and what has to be known to take it.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The release.
    pub candidate: &'a Candidate,
    /// Where its artifacts are.
    pub cdn: &'a Cdn,
    /// Where they may be besides.
    pub allowed_origins: &'a [String],
    /// Who may have signed what is in the slots.
    pub keys: &'a KeyRing,
}

/// What is to be written, where, and where it comes from.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The ESP.
    pub esp: &'a dyn FileSystem,
    /// The slot: [`crate::plan::next`] says which.
    pub slot: Slot,
    /// What is written there.
    pub source: Source<'a>,
    /// Where it is shown how far the downloads are.
    pub progress: &'a Progress,
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
    /// The server announces another size.
    #[error(
        "the CDN announces {found} bytes for the {role}, and the manifest says {expected}: was it published whole?"
    )]
    Length {
        /// Which one.
        role: Role,
        /// The manifest's.
        expected: u64,
        /// The server's.
        found: u64,
    },
    /// An artifact could not be had whole.
    #[error(transparent)]
    Fetch(FetchError),
    /// Somebody asked for the end.
    #[error(
        "ended as asked: {bytes} of the {size} bytes of the {role} are there, and the next update goes on"
    )]
    Interrupted {
        /// Which artifact.
        role: Role,
        /// What is there of it.
        bytes: u64,
        /// The manifest's size.
        size: u64,
    },
    /// The disk refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The disk lies.
    #[error(
        "{path} was written, and reads back with the SHA-256 {found}, expected {expected}: the disk is failing"
    )]
    ReadBack {
        /// The file.
        path: String,
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
            Content::Empty | Content::Partial { .. } | Content::Damaged { .. } => None,
        }
    }
}

/// Writes the release into the slot. Nothing points to it yet: see [`put_on_trial`].
///
/// What was in the slot is gone, also if this fails; then the slot holds a beginning of this release.
/// Everything that can be known before is checked before.
pub fn install(job: Job<'_>, grubenv: &mut GrubenvFile) -> Result<Installed, InstallError> {
    ask_for_artifacts(job)?;
    let space = Space::check(job.esp, job.slot, job.source.candidate)?;
    let claimed = claim(job, space, grubenv)?;
    let staged = stage(claimed)?;
    seal(staged)
}

/// Makes GRUB try the slot next, [`TRIES`](protocol::grubenv::TRIES) times, before it falls back to the one that is good now.
///
/// One write of one sector, flushed. It promises that a power cut leaves the old or the new state,
/// on disks that write a sector whole. It does not promise that the slot boots: that is what the
/// trial is for.
pub fn put_on_trial(
    esp: &dyn FileSystem,
    installed: &Installed,
    grubenv: &mut GrubenvFile,
    boot: Option<BootId>,
) -> Result<(), FileError> {
    let Installed { slot, release } = installed;
    grubenv.show_version(*slot, &release.version);
    grubenv.write(esp, trial::start_trial(&grubenv.state, *slot, release, boot))
}

/// A missing artifact should cost nothing: what is in the slot may be the only other release.
fn ask_for_artifacts(job: Job<'_>) -> Result<(), InstallError> {
    for artifact in job.source.candidate.release().boot_artifacts() {
        let sources = job.source.candidate.artifact_urls(artifact, job.source.allowed_origins)?;
        ask_for(job, artifact, &sources)?;
    }
    Ok(())
}

/// One mirror that has it is enough; of several errors the last is told.
fn ask_for(job: Job<'_>, artifact: &Artifact, sources: &[String]) -> Result<(), InstallError> {
    let mut asked = Ok(());
    for url in sources {
        let answer = job.source.cdn.probe(url).map_err(InstallError::from);
        asked = answer.and_then(|length| check_length(artifact, length));
        if asked.is_ok() {
            break;
        }
    }
    asked
}

/// Compares a length that a server announces, if it does.
fn check_length(artifact: &Artifact, found: Option<u64>) -> Result<(), InstallError> {
    match found {
        Some(found) if found != artifact.size => {
            Err(InstallError::Length { role: artifact.role, expected: artifact.size, found })
        }
        _ => Ok(()),
    }
}

/// A slot to which nothing points, and which holds nothing but beginnings of this release, and on the
/// disk the word that it is so.
struct Claimed<'a>(Job<'a>);

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

/// Removes the files of a slot, or those that are not the beginnings of a release. The manifest goes
/// first and for good: without it the rest is never taken for a release.
///
/// A directory in the place of one of the slot's files goes with what is in it; other directories are not
/// ours. So does whatever is in the place of the slot's directory and is none.
fn clear(Job { esp, slot, .. }: Job<'_>, keep_partial: bool) -> Result<(), FileError> {
    let directory = slot.directory();
    if esp.metadata(&directory)? != Some(Entry::Directory) {
        // A file below which the directory should be, or a link: neither is looked into.
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
    for path in partial.iter().cloned().chain(files_in(esp, &directory)?) {
        if !kept.contains(&path) {
            remove_if_exists(esp, &path)?;
        }
    }
    esp.sync_directory(&directory)
}

/// A slot with artifacts that are whole and on the disk, and no manifest.
struct Staged<'a>(Job<'a>);

fn stage(Claimed(job): Claimed<'_>) -> Result<Staged<'_>, InstallError> {
    for artifact in job.source.candidate.release().boot_artifacts() {
        if let Some(name) = slot_file(artifact.role) {
            stage_one(job, artifact, &path_of(job.slot, name))?;
        }
    }
    Ok(Staged(job))
}

fn stage_one(job: Job<'_>, artifact: &Artifact, path: &str) -> Result<(), InstallError> {
    let Artifact { role, size, .. } = artifact;
    match Filling::open(job.esp, path, artifact)? {
        Found::Whole => log::info!(role = role.to_string().as_str(); "the {role} is there already"),
        Found::Begun(filling) => {
            log::info!(
                role = role.to_string().as_str(), size = *size, from = filling.length();
                "downloading the {role} ({size} bytes, {} of them are there)", filling.length()
            );
            fill(job, artifact, path, filling)?;
        }
    }
    // Also what an earlier run left: it may not have come to this.
    flushed(job.esp, path, *size, &artifact.sha256)
}

/// Whatever happens, what came so far is kept: the next run goes on there.
fn fill(
    job: Job<'_>,
    artifact: &Artifact,
    path: &str,
    mut filling: Filling<'_>,
) -> Result<(), InstallError> {
    let sources = job.source.candidate.artifact_urls(artifact, job.source.allowed_origins)?;
    let seen = |bytes| job.progress.bytes(artifact.role, bytes, artifact.size);
    seen(filling.length());
    let mut watched = Watched { filling: &mut filling, seen: &seen };
    let Err(error) = job.source.cdn.download(&sources, artifact, &mut watched) else {
        return Ok(());
    };
    if let Err(error) = filling.flush() {
        log::warn!("{}", at("flush", path)(error));
    }
    let (role, size) = (artifact.role, artifact.size);
    Err(match error {
        _ if interrupt::is_requested() => {
            InstallError::Interrupted { role, bytes: filling.length(), size }
        }
        FetchError::Sink(why) => at("write", path)(why).into(),
        error => InstallError::Fetch(error),
    })
}

/// The manifest comes last: with it the slot is a release. That it was a partial one is of no account
/// from then on, and removed.
fn seal(Staged(job): Staged<'_>) -> Result<Installed, InstallError> {
    let Job { esp, slot, source: Source { candidate, .. }, .. } = job;
    write(esp, &path_of(slot, MANIFEST), candidate.token())?;
    esp.remove_file(&path_of(slot, PARTIAL))?;
    esp.sync_directory(&slot.directory())?;
    Ok(Installed { slot, release: candidate.release().clone() })
}

/// Writes a new file.
fn write(esp: &dyn FileSystem, path: &str, text: &str) -> Result<(), InstallError> {
    esp.create(path)?.write_at(text.as_bytes(), 0).map_err(at("write", path))?;
    flushed(esp, path, text.len() as u64, &hex(Sha256::new_with_prefix(text)))
}

/// Flushes a file and its directory, and reads it back from the disk.
fn flushed(
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

fn path_of(slot: Slot, name: &str) -> String {
    format!("{}/{name}", slot.directory())
}
