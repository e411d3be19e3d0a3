//! Writes an artifact into a slot: copies it, makes it from a delta, or downloads it.

use protocol::Artifact;
use protocol::release::DeltaFile;

use super::copy::{self, CopyError};
use super::delta::{self, PatchError};
use super::error::InstallError;
use super::job::{Job, Source};
use super::origin::{FileOrigin, Origin, Way, origin};
use super::partial::{PartialFile, Reporting};
use super::received::Received;
use crate::cdn::{FetchError, ResumableSink};
use crate::files::at;
use crate::interrupt;
use crate::traffic::Traffic;

/// Writes the rest of an artifact, and returns how it was obtained. After an error, what was written is flushed and
/// kept for the next run.
pub(super) fn complete(
    job: Job<'_>,
    artifact: &Artifact,
    path: &str,
    mut file: PartialFile<'_>,
) -> Result<FileOrigin, InstallError> {
    let report = |bytes| job.progress.bytes(artifact.role, bytes, artifact.size);
    report(file.length());
    let rest = artifact.size.saturating_sub(file.length());
    let mut fetched = 0;
    let mut reporting = Reporting { file: &mut file, report: &report };
    let result = obtain(job, artifact, &mut reporting, &mut fetched);
    traffic(result.as_ref().ok(), rest, fetched).record(job.source.host);
    let (role, size) = (artifact.role, artifact.size);
    let error = match result {
        Ok(origin) => {
            let way = origin.way.name();
            log::info!(
                role = role.to_string().as_str(), from = way, bytes = fetched;
                "the {role} is complete: {way}, {fetched} of {size} bytes fetched"
            );
            return Ok(origin);
        }
        Err(error) => error,
    };
    if let Err(error) = file.flush() {
        log::warn!("{}", at("flush", path)(error));
    }
    Err(match error {
        _ if interrupt::is_requested() => {
            InstallError::Interrupted { role, bytes: file.length(), size }
        }
        InstallError::Fetch(FetchError::Sink(error)) => at("write", path)(error).into(),
        error => error,
    })
}

/// Returns what the metrics count for an artifact of which `rest` bytes were missing.
fn traffic(origin: Option<&FileOrigin>, rest: u64, fetched: u64) -> Traffic {
    let saved_by = |way| match origin {
        Some(origin) if origin.way == way => rest.saturating_sub(fetched),
        _ => 0,
    };
    let (saved_by_copy, saved_by_delta) = (saved_by(Way::Copy), saved_by(Way::Delta));
    Traffic { fetched, saved_by_copy, saved_by_delta }
}

/// Completes an artifact from the other slot if that has it or a delta applies to it, and downloads it otherwise.
/// Adds the bytes that the CDN sends to `fetched`.
fn obtain(
    job: Job<'_>,
    artifact: &Artifact,
    sink: &mut dyn ResumableSink,
    fetched: &mut u64,
) -> Result<FileOrigin, InstallError> {
    let role = artifact.role;
    let name = role.to_string();
    let (way, problem) = match origin(artifact, job.source, job.slots, job.slot, sink.length()) {
        Origin::Copy { path } => (Way::Copy, try_copy(job, artifact, &path, sink)?),
        Origin::Delta { delta, path, size } => {
            (Way::Delta, try_delta(job, artifact, (delta, &path, size), sink, fetched)?)
        }
        Origin::Download(reason) => (Way::Download, Some(reason.to_string())),
    };
    let Some(reason) = problem else {
        return Ok(FileOrigin { role, way, bytes: *fetched, reason: None });
    };
    match way {
        Way::Download => log::info!(role = name.as_str(); "no delta for the {role}: {reason}"),
        _ => log::warn!(role = name.as_str(); "{reason}: downloading the whole {role}"),
    }
    download(job, artifact, sink, fetched)?;
    let reason = Some(reason);
    Ok(FileOrigin { role, way: Way::Download, bytes: *fetched, reason })
}

/// Copies the rest of an artifact from a file of the other slot. Returns the problem if that is not possible.
fn try_copy(
    job: Job<'_>,
    artifact: &Artifact,
    path: &str,
    sink: &mut dyn ResumableSink,
) -> Result<Option<String>, InstallError> {
    let Artifact { role, size, .. } = artifact;
    log::info!(
        role = role.to_string().as_str(), size = *size;
        "copying the {role} from {path}"
    );
    match copy::copy(job.esp, path, artifact, sink) {
        Ok(()) => Ok(None),
        Err(CopyError::Sink(error)) => Err(FetchError::Sink(error).into()),
        Err(error) => Ok(Some(error.to_string())),
    }
}

/// Makes the rest of an artifact from a delta and the file of the other slot at the path, which has the given size.
/// Returns the problem if that is not possible.
fn try_delta(
    job: Job<'_>,
    artifact: &Artifact,
    (delta, path, held): (&DeltaFile, &str, u64),
    sink: &mut dyn ResumableSink,
    fetched: &mut u64,
) -> Result<Option<String>, InstallError> {
    let Artifact { role, size, .. } = artifact;
    log::info!(
        role = role.to_string().as_str(), size = *size, delta = delta.size;
        "patching the {role} ({size} bytes): downloading a delta of {} bytes that applies to {path}",
        delta.size
    );
    match delta::patch(job, artifact, (delta, path, held), sink, fetched) {
        Ok(()) => Ok(None),
        Err(PatchError::Sink(error) | PatchError::Fetch(FetchError::Sink(error))) => {
            Err(FetchError::Sink(error).into())
        }
        Err(error) => Ok(Some(error.to_string())),
    }
}

/// Downloads the rest of an artifact.
fn download(
    job: Job<'_>,
    artifact: &Artifact,
    sink: &mut dyn ResumableSink,
    fetched: &mut u64,
) -> Result<(), InstallError> {
    let Artifact { role, size, .. } = artifact;
    let from = sink.length();
    log::info!(
        role = role.to_string().as_str(), size = *size, from = from;
        "downloading the {role} ({size} bytes, {from} of them already written)"
    );
    let urls = urls(job, artifact)?;
    let mut sink = Received { sink, bytes: fetched };
    Ok(job.source.cdn.download(&urls, artifact, &mut sink)?)
}

/// Returns the URLs of an artifact, without those at which it was wrong before.
pub(super) fn urls(job: Job<'_>, artifact: &Artifact) -> Result<Vec<String>, InstallError> {
    let Source { candidate, cdn, allowed_origins, .. } = job.source;
    let urls = candidate.artifact_urls(artifact, allowed_origins)?;
    cdn.without_wrong_files(urls, artifact).map_err(InstallError::Fetch)
}
