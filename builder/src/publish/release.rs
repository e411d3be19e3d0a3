//! Publishes a release that was built and tested.

use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use protocol::compare::{differences, is_same_release};
use protocol::release::{PublishedFile, document};
use protocol::{Claims, Release};

use super::deltas::{self, NewFiles, Predecessors};
use super::files::Files;
use super::issue::{Issued, is_renewal_due, issue, next_build};
use super::{
    Opening, Outcome, Publication, Publisher, Report, Retention, Site, documents, history, layout,
    newest,
};
use crate::destination::Directory;
use crate::diff::Diff;
use crate::diff::command::Format;
use crate::diff::load::{self, Loaded};
use crate::figures::Figures;
use crate::packaged::Packaged;
use crate::progress::message;
use crate::published::{self, Published};
use crate::tested::Tested;

/// Publishes a release on all destinations, if it differs from the one that is live there.
///
/// # Errors
/// Fails if no destination can be opened. Errors of single destinations are in the report.
pub(crate) fn publish(
    publisher: &Publisher<'_>,
    tested: &Tested,
    now: Timestamp,
) -> Result<Report> {
    let packaged = tested.packaged();
    let openings = publisher.open()?;
    let temporary =
        tempfile::tempdir_in(publisher.work).context("creating a temporary directory")?;
    let publication = match same(&openings, packaged)? {
        Some((live, files)) => again(publisher, &openings, live, files, now)?,
        None => new(publisher, &openings, tested, temporary.path(), now)?,
    };
    publisher.put(&openings, publication)
}

/// Returns the newest manifest that is live, and its files, if its content is the packaged one. Returns
/// `None` if one of its files other than deltas is neither local nor whole at its destination, or is in another
/// directory than the one for its content: the release is then published with new files.
fn same<'a>(
    openings: &'a [Opening<'a>],
    packaged: &Packaged,
) -> Result<Option<(&'a Published, Files<'a>)>> {
    let Some((site, live)) = newest(openings) else { return Ok(None) };
    if !is_same_release(live.release(), packaged.release()) || !layout::has_urls(live.release()) {
        return Ok(None);
    }
    let files = Files::in_directory(&packaged.directory, packaged.release())?;
    for file in live.release().files().filter(|file| !files.is_local(*file)) {
        if published::problem(site.location(), file)?.is_some() {
            return Ok(None);
        }
    }
    Ok(Some((live, files.or_published_at(Some(site.location())))))
}

/// Returns the publication of a release that is live: with the same manifest, or with a new one if that
/// is due, if another key signed it, if a destination has another one, or if deltas are missing.
fn again<'a>(
    publisher: &Publisher<'_>,
    openings: &[Opening<'_>],
    live: &Published,
    files: Files<'a>,
    now: Timestamp,
) -> Result<Publication<'a>> {
    let is_everywhere = openings
        .iter()
        .filter_map(|(_, opened)| opened.as_ref().ok())
        .all(|opened| opened.live.as_ref().is_some_and(|other| other.text == live.text));
    let mut release = live.release().clone();
    let deltas = files.drop_missing_deltas(&mut release);
    let is_ours = live.manifest.key_id() == publisher.signing.key_id();
    let is_due = is_renewal_due(&live.manifest.claims, now);
    if is_everywhere && is_ours && !is_due && deltas.is_empty() {
        let outcome = Outcome::Unchanged { build: release.build };
        let issued = Issued { release, text: live.text.clone() };
        return Ok(Publication { issued, files, outcome, deltas });
    }
    let build = next_build(release.build, now);
    let issued = issue(release, build, &live.manifest.claims, publisher.signing, now)?;
    Ok(Publication { issued, files, outcome: Outcome::Renewed { build }, deltas })
}

/// Returns the publication of a release that is not live.
fn new<'a>(
    publisher: &Publisher<'_>,
    openings: &[Opening<'_>],
    tested: &Tested,
    temporary: &Path,
    now: Timestamp,
) -> Result<Publication<'a>> {
    let packaged = tested.packaged();
    let newest = newest(openings);
    let previous = newest.map(|(_, live)| live);
    let build = next_build(previous.map_or(0, |live| live.release().build), now);
    let mut files = Files::in_directory(&packaged.directory, packaged.release())?;
    let mut release = Release { build, ..packaged.release().clone() };
    let notes = notes(newest, &release, tested)?;
    let name = format!("etchaos_{}.notes.md", release.target());
    documents::add(&mut release, &mut files, temporary, document::NOTES, &name, &notes)?;
    documents::add_checksums(&mut release, &mut files, temporary)?;
    let mut deltas = Vec::new();
    if publisher.deltas == 0 {
        release.artifacts.iter_mut().for_each(|artifact| artifact.deltas.clear());
    } else if let Some((site, _)) = newest {
        deltas = add_deltas(publisher, site, &mut release, &mut files, temporary);
    }
    deltas.extend(files.drop_missing_deltas(&mut release));
    layout::assign_urls(&mut release);
    let differences = previous.map(|live| differences(live.release(), &release));
    let etchaos_figures = tested.figures().map(Figures::to_json).transpose()?;
    let template = Claims { etchaos_figures, ..packaged.claims().clone() };
    let issued = issue(release, build, &template, publisher.signing, now)?;
    let outcome = Outcome::Published { build, differences };
    Ok(Publication { issued, files, outcome, deltas })
}

/// Gives a release deltas from the releases in the history of a site, and returns lines for the summary.
fn add_deltas(
    publisher: &Publisher<'_>,
    site: &Site,
    release: &mut Release,
    files: &mut Files<'_>,
    temporary: &Path,
) -> Vec<String> {
    let mut lines = Vec::new();
    let releases = predecessors(publisher, site, release, &mut lines).unwrap_or_else(|error| {
        lines.push(format!("no deltas: {error:#}"));
        Vec::new()
    });
    let predecessors = Predecessors { location: site.location(), releases };
    let path = |file: PublishedFile<'_>| Ok(files.upload(file)?.from);
    let new = NewFiles { path: &path, deltas: temporary, work: temporary };
    lines.extend(deltas::add(&predecessors, release, &new, publisher.progress).lines);
    for delta in release.deltas() {
        let path = temporary.join(&delta.name);
        if path.exists() {
            files.add(delta.sha256.clone(), path);
        }
    }
    lines
}

/// Returns the releases that deltas are made from: the newest ones, which most hosts run, and those that stay at the
/// site for images that hosts are installed from. Adds lines about those that cannot be read.
fn predecessors(
    publisher: &Publisher<'_>,
    site: &Site,
    release: &Release,
    lines: &mut Vec<String>,
) -> Result<Vec<Release>> {
    let rule = Retention { releases: publisher.deltas, ..publisher.retention };
    let trusted = publisher.signing.ring()?;
    history::predecessors(site, publisher.target, &trusted, rule, release, lines)
}

/// Returns the release notes: the differences from the release that is live.
fn notes(live: Option<(&Site, &Published)>, release: &Release, tested: &Tested) -> Result<String> {
    let Some((site, live)) = live else {
        let (target, version) = (release.target(), &release.version);
        return Ok(format!("# EtchaOS {target}, {version}\n\nThe first release.\n"));
    };
    let old = load::loaded(site.location(), live.release().clone()).unwrap_or_else(|error| {
        // A damaged file of the live release must not prevent a newer one.
        message(&format!("warning: the release notes do not list files: {error:#}"));
        Loaded { release: live.release().clone(), contents: None, figures: None }
    });
    let figures = Figures::of(&live.manifest.claims).unwrap_or_else(|error| {
        message(&format!("warning: the release notes do not compare figures: {error:#}"));
        None
    });
    let old = Loaded { figures, ..old };
    let directory = Directory::open(&tested.packaged().directory)?;
    let figures = tested.figures().cloned();
    let new = Loaded { figures, ..load::loaded(&directory, release.clone())? };
    Diff::between(&old, &new).render(Format::Markdown)
}
