//! Stage 5: boots the disk image in virtual machines and updates it.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use protocol::release::document;
use protocol::{KeyRing, Role};
use testbed::Options;
use testbed::cancel::Cancel;
use testbed::report::Event;

use super::build::{Describe, Directories};
use super::deltas;
use crate::destination::Location;
use crate::figures::{self, Figures, StageTime};
use crate::log_file::LogFile;
use crate::packaged::Packaged;
use crate::published::Published;
use crate::tested::{Record, Tested};

/// The directory of the published release, in the work directory. It has no manifest if nothing was
/// published.
const PREVIOUS: &str = "previous";

/// The inputs of a test.
pub(crate) struct Test<'a> {
    /// The directories of the target.
    pub directories: &'a Directories,
    /// The keys that may have signed the manifests.
    pub keys: KeyRing,
    /// The acceleration of the virtual machines.
    pub accel: testbed::AccelPreference,
    /// The release that is published now, which is updated to the one under test.
    pub previous: Option<(&'a dyn Location, Published)>,
}

impl Describe for Tested {
    fn describe(&self) -> String {
        match self.record() {
            Some(Record { steps, updated_from: Some(build), .. }) => {
                format!("{steps} steps passed; updated from build {build}")
            }
            Some(Record { steps, updated_from: None, .. }) => {
                format!("{steps} steps passed; no release was published to update from")
            }
            None => "not tested".to_owned(),
        }
    }
}

/// Runs the full update cycle, and records that it passed.
pub(crate) fn run(test: Test<'_>, packaged: Packaged, log: &mut LogFile) -> Result<Tested> {
    let started = Instant::now();
    let previous = test.fetch_previous(&packaged, log)?;
    let options = Options {
        artifacts: packaged.directory.clone(),
        previous,
        target: packaged.release().target(),
        keys: test.keys.clone(),
        logs: test.directories.logs.clone(),
        work: test.directories.work.clone(),
        accel: test.accel,
        memory: Options::MEMORY,
        cpus: None,
        sector_size: testbed::SectorSize::B512,
        updater_version: Options::UPDATER_VERSION.to_owned(),
        must_patch: deltas::are_expected(&packaged.directory),
        cancel: Cancel::default(),
    };
    let log = RefCell::new(log);
    let report = testbed::run_cycle(&options, &|event| match event {
        Event::Started(step) => log.borrow_mut().step(&step.to_string()),
        Event::Progress(_, line) => log.borrow_mut().line(line),
        Event::Finished(..) => {}
    })?;
    log.borrow_mut().line(&report.to_string());
    let updated_from = options
        .previous
        .and(test.previous.as_ref())
        .map(|(_, published)| published.release().build);
    let steps = report.steps.len();
    let mut stages = figures::kept(&packaged);
    stages.push(StageTime { name: "test".to_owned(), took: started.elapsed(), cached: false });
    let accelerator = report.accel.map(|selection| selection.accel.to_string());
    let figures = Some(Figures::new(stages, report.boots, accelerator));
    let record = Record { content: packaged.content(), updated_from, steps, figures };
    Tested::passed(packaged, record)
}

impl Test<'_> {
    /// Downloads the published release, and returns the directory of its manifest and disk image.
    /// Returns `None` if there is nothing to update from.
    fn fetch_previous(&self, packaged: &Packaged, log: &mut LogFile) -> Result<Option<PathBuf>> {
        let directory = self.directories.work.join(PREVIOUS);
        empty(&directory)?;
        let Some((location, published)) = &self.previous else {
            log.step("nothing is published for this target, so no update from it is tested");
            return Ok(None);
        };
        let release = published.release();
        let path = directory.join(release.target().manifest_name());
        fs::write(&path, &published.text).with_context(|| format!("writing {}", path.display()))?;
        // "builder diff" reads it.
        if let Some(list) = release.document(document::CONTENTS) {
            location.download(&list.url, list.size, &directory.join(&list.name))?;
        }
        if release.id() == packaged.release().id() {
            log.step("the published release boots the same files, so no update from it is tested");
            return Ok(None);
        }
        let disk = release.artifact(Role::Disk);
        let disk = disk.with_context(|| format!("build {} has no disk image", release.build))?;
        log.step(&format!("fetching the disk image of build {}", release.build));
        location.download(&disk.url, disk.size, &directory.join(&disk.name))?;
        Ok(Some(directory))
    }
}

fn empty(directory: &Path) -> Result<()> {
    let failed = || format!("emptying {}", directory.display());
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(failed)?;
    }
    fs::create_dir_all(directory).with_context(failed)
}
