//! Everything that outlives a single VM: a copy of the disk, a CDN, an accelerator, keys.

use std::path::{Path, PathBuf};

use protocol::{KeyRing, PrivateKey, Role};

use crate::accel::{self, Choice};
use crate::artifacts::{self, Artifacts};
use crate::cdn::{Cdn, Served};
use crate::disk;
use crate::firmware::Firmware;
use crate::guest::Guest;
use crate::host;
use crate::machine::{Boot, Machine};
use crate::push;
use crate::scenario::{Options, Outcome, ScenarioError};
use crate::work::Work;

/// Verifies what is to be tested, once this machine has what that needs.
pub fn verify(options: &Options) -> Outcome<Artifacts> {
    host::check()?;
    let artifacts = artifacts::verify(&options.artifacts, &options.target, &options.keys)?;
    let note = format!("{} {}", options.target, artifacts.release.version);
    Ok((artifacts, note))
}

/// Everything that outlives a single VM.
pub struct TestEnvironment<'a> {
    /// What the scenario was told.
    pub options: &'a Options,
    /// The directory of the run.
    pub work: Work,
    /// The disk that is booted: a copy.
    pub disk: PathBuf,
    /// The CDN.
    pub cdn: Cdn,
    /// The accelerator.
    pub accel: Choice,
    /// What the guest trusts for pushed Patterns: new for each run, and never written down.
    key: PrivateKey,
    /// Whose manifests the guest trusts besides those in its image.
    trusted: KeyRing,
    say: &'a dyn Fn(&str),
}

impl<'a> TestEnvironment<'a> {
    /// Copies the disk, and serves the artifacts.
    pub fn prepare(
        options: &'a Options,
        artifacts: &Artifacts,
        say: &'a dyn Fn(&str),
    ) -> Outcome<Self> {
        let work = Self::directories(options)?;
        Self::with(options, artifacts, (work, &artifacts.served), KeyRing::default(), say)
    }

    /// Makes the directories of a run.
    pub fn directories(options: &Options) -> Result<Work, ScenarioError> {
        std::fs::create_dir_all(&options.logs).map_err(|source| ScenarioError::File {
            doing: "make the directory for logs",
            path: options.logs.clone(),
            source,
        })?;
        Ok(Work::new(&options.work)?)
    }

    /// Copies the disk into `work`, and serves `served` to guests that trust `trusted`, too.
    pub fn with(
        options: &'a Options,
        artifacts: &Artifacts,
        (work, served): (Work, &[Served]),
        trusted: KeyRing,
        say: &'a dyn Fn(&str),
    ) -> Outcome<Self> {
        let disk = work.path().join("disk.raw");
        disk::copy_sparse(&artifacts.disk, &disk)?;
        let cdn = Cdn::start(served).map_err(ScenarioError::Cdn)?;
        let accel = accel::choose(options.accel, Some(&artifacts.kernel), work.path());
        let note = format!("by {}", accel.accel);
        let key = PrivateKey::generate();
        Ok((Self { options, work, disk, cdn, accel, key, trusted, say }, note))
    }

    /// Boots the disk and waits for the guest's first answer; returns its boot's id, too. `name`
    /// must be new in this run: logs are called by it. The writes go to `recording`, if there is one.
    pub fn boot(
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
        let config = push::guest_config(&self.key, self.cdn.address().port(), &self.trusted);
        let machine = Machine {
            name: name.into(),
            boot,
            firmware,
            accel: self.accel.accel,
            memory: self.options.memory,
            cpus: self.options.cpus.unwrap_or(self.accel.accel.cpus()),
            tpm: firmware != Firmware::Bios,
            config: Some(config),
            forward: Some(push::PORT),
        };
        let (dir, logs, key) = (self.work.path().join(name), &self.options.logs, self.key.clone());
        Ok(Guest::boot(&machine, &dir, logs, key, &self.options.cancel, self.say)?)
    }

    /// Whether kernel and initrd were fetched from our CDN; says how many bytes.
    pub fn fetched(&self, place: impl Fn(Role) -> String) -> Result<String, ScenarioError> {
        let accesses = self.cdn.accesses();
        let mut bytes = 0;
        for role in Role::BOOT {
            let path = format!("/{}", place(role));
            let mut gets = accesses
                .iter()
                .filter(|a| a.method == "GET" && a.path == path && matches!(a.status, 200 | 206));
            let Some(first) = gets.next() else {
                let asked =
                    accesses.iter().map(|a| format!("{} {} {}", a.method, a.path, a.status));
                let asked = asked.collect::<Vec<_>>().join(", ");
                return Err(ScenarioError::NotFetched { missing: path, asked });
            };
            bytes += first.length.unwrap_or_default();
        }
        Ok(format!("{} MiB from the CDN", bytes >> 20))
    }
}
