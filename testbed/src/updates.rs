//! A host that updates, as scenarios see it: from inside through pushes, and from outside through the
//! content of its disk.

use std::fs::File;
use std::path::{Path, PathBuf};

use protocol::boot_order::Environment;
use protocol::esp::Slot;
use protocol::pattern::Mode;
use protocol::{KeyRing, PrivateKey, Release};

use crate::actions;
use crate::artifacts::Artifacts;
use crate::cdn::Served;
use crate::derived::{self, Changes, Derived};
use crate::environment::{Source, TestEnvironment};
use crate::firmware::Firmware;
use crate::guest::Guest;
use crate::inspect::disk::find_esp;
use crate::inspect::judge::{Inspection, Judge, environment as read_environment};
use crate::report::Step;
use crate::scenario::{Options, Outcome, ScenarioError, Steps};
use crate::work::Work;

/// A series of newer releases that a scenario offers to a host.
pub(crate) struct ReleaseSeries {
    /// The releases, in ascending order of their builds.
    pub releases: Vec<Derived>,
    /// The release that they are derived from.
    base: Release,
    /// The key that signs them.
    key: PrivateKey,
    /// The file that the CDN serves as the manifest.
    manifest_path: PathBuf,
    manifest_name: String,
}

impl ReleaseSeries {
    /// Derives one release for each of `changes`, in `work`. [`ReleaseSeries::publish`] offers one.
    fn derive(base: &Artifacts, changes: &[Changes], work: &Work) -> Outcome<Self> {
        let key = PrivateKey::generate();
        let builds = base.release.build + 1..;
        let mut releases = Vec::new();
        for (build, changes) in builds.zip(changes) {
            let derived = derived::derive(base, &releases, build, changes, &key, work.path())?;
            releases.push(derived);
        }
        let manifest_name = base.release.target().manifest_name();
        let manifest_path = work.path().join(&manifest_name);
        let note = releases.iter().map(|derived| format!("build {}", derived.release.build));
        let note = note.collect::<Vec<_>>().join(", ");
        let base = base.release.clone();
        Ok((Self { releases, base, key, manifest_path, manifest_name }, note))
    }

    /// Runs the steps that derive the releases and prepare a test environment whose CDN serves them.
    pub(crate) fn prepare<'a>(
        base: &Artifacts,
        changes: &[Changes],
        steps: &mut Steps<'a>,
    ) -> Result<(Self, TestEnvironment<'a>), ScenarioError> {
        let work = TestEnvironment::directories(steps.options)?;
        let releases = steps.run(Step::DERIVE_RELEASES, || Self::derive(base, changes, &work))?;
        let environment = releases.environment(base, work, steps)?;
        Ok((releases, environment))
    }

    /// Offers one of the releases to hosts.
    pub(crate) fn publish(&self, number: usize) -> Result<&Release, ScenarioError> {
        let derived = &self.releases[number];
        derived.publish(&self.manifest_path)?;
        Ok(&derived.release)
    }

    /// Returns the key that a host has to trust.
    pub(crate) fn trusted(&self) -> KeyRing {
        self.key.public().clone().into()
    }

    /// Prepares a test environment whose CDN serves the releases.
    fn environment<'a>(
        &self,
        base: &Artifacts,
        work: Work,
        steps: &mut Steps<'a>,
    ) -> Result<TestEnvironment<'a>, ScenarioError> {
        let manifest =
            Served { path: self.manifest_name.clone(), file: self.manifest_path.clone() };
        let files = self.releases.iter().flat_map(|derived| derived.served.iter().cloned());
        let served: Vec<Served> = [manifest].into_iter().chain(files).collect();
        let source = Source { disk: &base.disk, kernel: &base.kernel, served: &served };
        TestEnvironment::with(Step::PREPARE_ENVIRONMENT, &source, work, self.trusted(), steps)
    }

    /// Returns the keys of all releases that a host of this environment may run.
    pub(crate) fn keys(&self, options: &Options) -> KeyRing {
        let mut keys = options.keys.clone();
        // The key was just generated, so no other key has its id.
        let _ = keys.add(self.key.public().clone());
        keys
    }

    /// Returns the number of bytes that a host writes to install a release.
    pub(crate) fn size(&self, number: usize) -> u64 {
        self.releases[number].release.boot_artifacts().map(|artifact| artifact.size).sum()
    }

    /// Describes where a host got the files of a release from. `from` is the number of the release in its other
    /// slot; without a number, that is the base. All releases of the series have the kernel of the base, unless a
    /// scenario changes it.
    ///
    /// # Errors
    /// Fails if the host can have got a file neither from the CDN nor from its other slot.
    pub(crate) fn describe_update(
        &self,
        from: Option<usize>,
        number: usize,
        environment: &TestEnvironment<'_>,
    ) -> Result<String, ScenarioError> {
        let from = from.map_or(&self.base, |number| &self.releases[number].release);
        environment.describe_update(Some(from), &self.releases[number].release)
    }
}

/// A running host.
pub(crate) struct Host<'a> {
    environment: &'a TestEnvironment<'a>,
    /// The VM.
    pub guest: Guest<'a>,
    /// The id of the current boot.
    pub boot: String,
}

impl<'a> Host<'a> {
    /// Boots the disk of the environment; see [`TestEnvironment::boot`].
    pub(crate) fn boot(
        environment: &'a TestEnvironment<'a>,
        name: &str,
        firmware: Firmware,
        recording: Option<&Path>,
    ) -> Result<Self, ScenarioError> {
        let (mut guest, boot) = environment.boot(name, firmware, recording)?;
        guest.limit_write_rate()?;
        Ok(Self { environment, guest, boot })
    }

    /// Starts an update. The host reboots after it has installed a release.
    pub(crate) fn start_update(&mut self) -> Result<(), ScenarioError> {
        Ok(self.guest.push_last("starting the update", actions::update())?)
    }

    /// Updates to the published release and waits until it is confirmed in `slot`.
    pub(crate) fn update(&mut self, slot: Slot, build: u64) -> Result<(), ScenarioError> {
        self.start_update()?;
        self.boot = self.guest.wait_for_reboot(&self.boot)?;
        self.wait_for_confirmation(slot, build)
    }

    /// Rolls back to the previous release and waits until it is confirmed in `slot`.
    pub(crate) fn roll_back(&mut self, slot: Slot, build: u64) -> Result<(), ScenarioError> {
        self.guest.push_last("rolling back", actions::roll_back())?;
        self.boot = self.guest.wait_for_boot(&self.boot)?;
        self.wait_for_confirmation(slot, build)
    }

    /// Presses the reset button after the host has written another `bytes` bytes.
    pub(crate) fn reset_after(&mut self, bytes: u64) -> Result<(), ScenarioError> {
        let mut end = None;
        self.guest.wait_until("waiting for the update to write", |vm| {
            let written = vm.qmp().bytes_written()?;
            let end = *end.get_or_insert(written + bytes);
            Ok((written >= end).then_some(()))
        })?;
        self.guest.reset()?;
        self.boot = self.guest.wait_for_boot(&self.boot)?;
        Ok(())
    }

    /// Waits until `slot` is confirmed, and checks that the release with this build runs from it.
    pub(crate) fn wait_for_confirmation(
        &mut self,
        slot: Slot,
        build: u64,
    ) -> Result<(), ScenarioError> {
        let disk = Disk::open(&self.environment.disk)?;
        self.guest.wait_until("waiting for the boot to be confirmed", |_| {
            Ok(disk.environment().filter(|found| found.is_confirmed(slot)))
        })?;
        self.guest.push(
            "identifying the running release",
            actions::identify(slot, build),
            Mode::Check,
        )?;
        Ok(())
    }
}

/// The disk of a VM, read from outside. The VM may be running.
pub(crate) struct Disk {
    file: File,
    esp: u64,
}

impl Disk {
    /// Opens the disk image at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, ScenarioError> {
        let failed = |source| ScenarioError::File { doing: "read", path: path.into(), source };
        let file = File::open(path).map_err(failed)?;
        let esp = find_esp(&file).map_err(failed)?;
        let esp = esp.ok_or_else(|| ScenarioError::Disk {
            expected: "an EFI system partition".into(),
            found: "no GPT with such a partition".into(),
        })?;
        Ok(Self { file, esp: esp.0 })
    }

    /// Returns the variables that GRUB would read, or none if the guest is writing the file system.
    pub(crate) fn environment(&self) -> Option<Environment> {
        read_environment(&self.file, self.esp).ok()
    }

    /// Returns the content of the disk's slots.
    pub(crate) fn inspect(&self, keys: &KeyRing) -> Result<Inspection, ScenarioError> {
        let inspection = Judge::new(keys.clone(), self.esp).inspect(&self.file);
        inspection.map_err(|error| ScenarioError::Disk {
            expected: "a readable EFI system partition".into(),
            found: error.to_string(),
        })
    }
}
