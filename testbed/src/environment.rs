//! The environment of a scenario's VMs: a copy of the disk, a CDN, an accelerator and keys.

use std::fs::File;
use std::path::{Path, PathBuf};

use protocol::esp::Slot;
use protocol::pattern::Mode;
use protocol::{KeyRing, PrivateKey, Release};
use serde_json::{Map, Value};

use crate::accel::Selection;
use crate::artifacts::{self, Artifacts};
use crate::cdn::{Cdn, Served};
use crate::checks::{self, Expected};
use crate::disk;
use crate::firmware::Firmware;
use crate::guest::Guest;
use crate::host;
use crate::machine::{Boot, Machine};
use crate::origins::Update;
use crate::probe;
use crate::push;
use crate::report::Step;
use crate::scenario::{Options, Outcome, ScenarioError, Steps};
use crate::work::Work;

/// Runs the step that checks the requirements of this host and verifies the artifacts.
pub(crate) fn verify(steps: &mut Steps<'_>) -> Result<Artifacts, ScenarioError> {
    let Options { artifacts, target, keys, sector_size, accel, .. } = steps.options;
    steps.run(Step::VERIFY_ARTIFACTS, || {
        accel.check(target.arch)?;
        host::check(target.arch)?;
        let artifacts = artifacts::verify(artifacts, target, keys, *sector_size)?;
        let note = format!("{target} {}", artifacts.release.version);
        Ok((artifacts, note))
    })
}

/// The files of a test environment.
pub(crate) struct Source<'a> {
    /// The disk image, which is copied.
    pub disk: &'a Path,
    /// A kernel with which accelerators are tried.
    pub kernel: &'a Path,
    /// The files that the CDN serves.
    pub served: &'a [Served],
}

/// The environment in which a scenario runs its VMs.
pub(crate) struct TestEnvironment<'a> {
    /// The options of the scenario.
    pub options: &'a Options,
    /// The directory of the run.
    pub work: Work,
    /// The copy of the disk that is booted.
    pub disk: PathBuf,
    /// The CDN.
    pub cdn: Cdn,
    /// The accelerator.
    pub accel: Selection,
    /// The key that the guest trusts for pushed Patterns. It is new for each run and never stored.
    key: PrivateKey,
    /// Keys that the guest trusts for manifests, besides those in its image.
    trusted: KeyRing,
    /// Members of the configuration of the guests that are booted from now on, in addition to those of
    /// every guest.
    pub configured: Map<String, Value>,
    progress: &'a dyn Fn(&str),
}

impl<'a> TestEnvironment<'a> {
    /// Runs the step that copies the disk of a release and serves its artifacts, with `more` files.
    pub(crate) fn prepare(
        artifacts: &Artifacts,
        more: &[Served],
        steps: &mut Steps<'a>,
    ) -> Result<Self, ScenarioError> {
        let served = [&artifacts.served[..], more].concat();
        let source = Source { disk: &artifacts.disk, kernel: &artifacts.kernel, served: &served };
        let work = Self::directories(steps.options)?;
        Self::with(Step::PREPARE_ENVIRONMENT, &source, work, KeyRing::default(), steps)
    }

    /// Creates the directories of a run.
    pub(crate) fn directories(options: &Options) -> Result<Work, ScenarioError> {
        std::fs::create_dir_all(&options.logs).map_err(|source| ScenarioError::File {
            doing: "create the log directory",
            path: options.logs.clone(),
            source,
        })?;
        Ok(Work::new(&options.work, &options.cancel)?)
    }

    /// Runs the step that copies the disk to `work` and serves files. Guests also trust the keys in `trusted`.
    pub(crate) fn with(
        step: Step,
        source: &Source<'_>,
        work: Work,
        trusted: KeyRing,
        steps: &mut Steps<'a>,
    ) -> Result<Self, ScenarioError> {
        let (options, progress) = (steps.options, steps.progress);
        let environment =
            steps.run(step, || Self::new(options, source, work, trusted, progress))?;
        steps.report.accel = Some(environment.accel.clone());
        Ok(environment)
    }

    fn new(
        options: &'a Options,
        source: &Source<'_>,
        work: Work,
        trusted: KeyRing,
        progress: &'a dyn Fn(&str),
    ) -> Outcome<Self> {
        let disk = work.path().join("disk.raw");
        disk::copy_sparse(source.disk, &disk)?;
        let cdn = Cdn::start(source.served).map_err(ScenarioError::Cdn)?;
        let (arch, kernel) = (options.target.arch, Some(source.kernel));
        let accel = probe::select(options.accel, arch, kernel, work.path())?;
        let note = accel.accel.to_string();
        let key = PrivateKey::generate();
        let configured = Map::new();
        Ok((Self { options, work, disk, cdn, accel, key, trusted, configured, progress }, note))
    }

    /// Boots the disk, waits for the guest's first answer, and returns the guest and its boot id.
    ///
    /// `name` is part of the names of log files and must be new in this run. With `recording`, all
    /// writes are logged in that file.
    pub(crate) fn boot(
        &'a self,
        name: &str,
        firmware: Firmware,
        recording: Option<&Path>,
    ) -> Result<(Guest<'a>, String), ScenarioError> {
        let disk = self.disk.clone();
        let boot = match recording {
            Some(log) => Boot::Recorded { disk, log: log.to_owned() },
            None => Boot::Disk(disk),
        };
        self.start(name, firmware, boot, Some(self.guest_config()))
    }

    /// Returns the configuration with which a guest accepts the pushes of this environment.
    pub(crate) fn guest_config(&self) -> String {
        let port = self.cdn.address().port();
        push::guest_config(&self.key, port, &self.trusted, &self.configured)
    }

    /// Adds free space to the end of the disk, while no guest uses it.
    pub(crate) fn enlarge_disk(&self, bytes: u64) -> Result<(), ScenarioError> {
        let enlarge = || {
            let file = File::options().write(true).open(&self.disk)?;
            file.set_len(file.metadata()?.len() + bytes)
        };
        enlarge().map_err(|source| ScenarioError::File {
            doing: "enlarge",
            path: self.disk.clone(),
            source,
        })
    }

    /// Starts a machine, waits for the guest's first answer, and returns the guest and its boot id.
    ///
    /// The guest has to get [`guest_config`](Self::guest_config), from SMBIOS with `config` or in another way.
    pub(crate) fn start(
        &'a self,
        name: &str,
        firmware: Firmware,
        boot: Boot,
        config: Option<String>,
    ) -> Result<(Guest<'a>, String), ScenarioError> {
        let machine = Machine {
            name: name.into(),
            arch: self.options.target.arch,
            boot,
            sector_size: self.options.sector_size,
            firmware,
            accel: self.accel.accel,
            memory: self.options.memory,
            cpus: self.options.cpus.unwrap_or(self.accel.accel.cpus()),
            tpm: firmware.has_tpm(),
            config,
            forward: Some(push::PORT),
        };
        let (dir, logs, key) = (self.work.path().join(name), &self.options.logs, self.key.clone());
        Ok(Guest::boot(&machine, &dir, logs, key, &self.options.cancel, self.progress)?)
    }

    /// Runs checks in `guest`: it must be healthy, and must have booted `release` from `slot`, or from the
    /// network if that is `None`.
    pub(crate) fn validate(
        &self,
        guest: &mut Guest<'_>,
        release: &Release,
        slot: Option<Slot>,
        firmware: Firmware,
    ) -> Outcome<()> {
        let checks = checks::checks(&Expected {
            release,
            slot,
            firmware,
            updater_version: &self.options.updater_version,
        });
        guest.push("validating the guest", checks::pattern(&checks), Mode::Check)?;
        Ok(((), format!("{} checks", checks.len())))
    }

    /// Describes where the guest got the files of a release from. `from` is the release in its other slot, unless
    /// that is damaged.
    ///
    /// # Errors
    /// See [`Update::describe`].
    pub(crate) fn describe_update(
        &self,
        from: Option<&Release>,
        to: &Release,
    ) -> Result<String, ScenarioError> {
        let Options { memory, must_patch, .. } = *self.options;
        Update { from, to, memory, must_patch }.describe(&self.cdn.accesses())
    }
}
