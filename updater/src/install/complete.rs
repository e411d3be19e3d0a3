//! Writes an artifact into a slot, from the first origin that works.

use protocol::Artifact;

use super::copy::{self, CopyError};
use super::delta::{self, PatchError};
use super::error::InstallError;
use super::job::{Job, urls};
use super::origin::{Origin, origin};
use super::partial::{PartialFile, Reporting};
use crate::cdn::{FetchError, ResumableSink};
use crate::files::at;
use crate::interrupt;

/// Writes the rest of an artifact. After an error, what was written is flushed and kept for the next run.
pub(super) fn complete(
    job: Job<'_>,
    artifact: &Artifact,
    path: &str,
    mut file: PartialFile<'_>,
) -> Result<(), InstallError> {
    let report = |bytes| job.progress.bytes(artifact.role, bytes, artifact.size);
    report(file.length());
    let mut reporting = Reporting { file: &mut file, report: &report };
    let Err(error) = copy_or_download(job, artifact, &mut reporting) else { return Ok(()) };
    if let Err(error) = file.flush() {
        log::warn!("{}", at("flush", path)(error));
    }
    let (role, size) = (artifact.role, artifact.size);
    Err(match error {
        _ if interrupt::is_requested() => {
            InstallError::Interrupted { role, bytes: file.length(), size }
        }
        InstallError::Fetch(FetchError::Sink(error)) => at("write", path)(error).into(),
        error => error,
    })
}

/// Copies the rest of an artifact from the other slot if that holds it, and downloads it otherwise.
fn copy_or_download(
    job: Job<'_>,
    artifact: &Artifact,
    sink: &mut dyn ResumableSink,
) -> Result<(), InstallError> {
    let Artifact { role, size, .. } = artifact;
    if without_download(job, artifact, sink)? {
        return Ok(());
    }
    let from = sink.length();
    log::info!(
        role = role.to_string().as_str(), size = *size, from = from;
        "downloading the {role} ({size} bytes, {from} of them already downloaded)"
    );
    let urls = urls(job, artifact)?;
    Ok(job.source.cdn.download(&urls, artifact, sink)?)
}

/// Completes an artifact from the other slot, if that has it or a delta applies to it. Returns whether the
/// artifact is complete; if not, it has to be downloaded.
fn without_download(
    job: Job<'_>,
    artifact: &Artifact,
    sink: &mut dyn ResumableSink,
) -> Result<bool, InstallError> {
    let Artifact { role, size, .. } = artifact;
    let name = role.to_string();
    let problem = match origin(artifact, job.slots, job.slot, job.source.memory, sink.length()) {
        Origin::Download => return Ok(false),
        Origin::Copy { path } => {
            log::info!(role = name.as_str(), size = *size; "copying the {role} from {path}");
            match copy::copy(job.esp, &path, artifact, sink) {
                Ok(()) => return Ok(true),
                Err(CopyError::Sink(error)) => return Err(FetchError::Sink(error).into()),
                Err(error) => error.to_string(),
            }
        }
        Origin::Delta { delta, path, size: held } => {
            log::info!(
                role = name.as_str(), size = *size, delta = delta.size;
                "patching the {role}: downloading {} of its {size} bytes, the rest is in {path}", delta.size
            );
            match delta::patch(job, artifact, (delta, &path, held), sink) {
                Ok(()) => return Ok(true),
                Err(PatchError::Sink(error) | PatchError::Fetch(FetchError::Sink(error))) => {
                    return Err(FetchError::Sink(error).into());
                }
                Err(error) => error.to_string(),
            }
        }
    };
    log::warn!(role = name.as_str(); "{problem}: downloading the whole {role}");
    Ok(false)
}
