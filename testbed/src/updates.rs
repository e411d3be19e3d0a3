//! A host that updates, as the scenarios see it: from inside by pushes, and from outside by what is on
//! its disk.

use std::fs::File;
use std::path::Path;

use protocol::boot_order::Environment;
use protocol::esp::Slot;
use protocol::pattern::Mode;
use protocol::{KeyRing, PrivateKey, Release, Role};

use crate::actions;
use crate::artifacts::Artifacts;
use crate::cdn::Served;
use crate::derived::{self, Changes, Derived};
use crate::environment::TestEnvironment;
use crate::firmware::Firmware;
use crate::guest::Guest;
use crate::replay::disk::find_esp;
use crate::replay::judge::{Inspection, Judge, environment};
use crate::scenario::{Options, Outcome, ScenarioError};
use crate::work::Work;

/// Releases that a host may be offered, one after the other.
pub struct Offers {
    /// The newer releases, with builds that grow.
    pub releases: Vec<Derived>,
    /// What signs them.
    key: PrivateKey,
    /// What the CDN serves as manifest.
    place: std::path::PathBuf,
    manifest_name: String,
}

impl Offers {
    /// Makes one release for each of `changes`, in `work`. None is offered yet: see
    /// [`Offers::publish`].
    pub fn make(base: &Artifacts, changes: &[Changes], work: &Work) -> Outcome<Self> {
        let key = PrivateKey::generate();
        let builds = base.release.build + 1..;
        let releases = builds
            .zip(changes)
            .map(|(build, changes)| derived::derive(base, build, changes, &key, work.path()));
        let releases = releases.collect::<Result<Vec<_>, _>>()?;
        let manifest_name = base.release.target().manifest_name();
        let place = work.path().join(&manifest_name);
        let note = releases.iter().map(|derived| format!("build {}", derived.release.build));
        let note = note.collect::<Vec<_>>().join(", ");
        Ok((Self { releases, key, place, manifest_name }, note))
    }

    /// Offers one of the releases to hosts.
    pub fn publish(&self, number: usize) -> Result<&Release, ScenarioError> {
        let derived = &self.releases[number];
        derived.publish(&self.place)?;
        Ok(&derived.release)
    }

    /// Whom a host has to trust.
    pub fn trusted(&self) -> KeyRing {
        self.key.public().clone().into()
    }

    /// A bench whose CDN has the offers.
    pub fn bench<'a>(
        &self,
        options: &'a Options,
        base: &Artifacts,
        work: Work,
        say: &'a dyn Fn(&str),
    ) -> Outcome<TestEnvironment<'a>> {
        let manifest = Served { path: self.manifest_name.clone(), file: self.place.clone() };
        let files = self.releases.iter().flat_map(|derived| derived.served.iter().cloned());
        let served: Vec<Served> = [manifest].into_iter().chain(files).collect();
        TestEnvironment::with(options, base, (work, &served), self.trusted(), say)
    }

    /// The keys of everything that a host of this bench may run.
    pub fn keys(&self, options: &Options) -> KeyRing {
        let mut keys = options.keys.clone();
        // The id of a key that was made a minute ago is nobody else's.
        let _ = keys.add(self.key.public().clone());
        keys
    }

    /// How many bytes a host downloads to install one of the releases.
    pub fn size(&self, number: usize) -> u64 {
        self.releases[number].release.boot_artifacts().map(|artifact| artifact.size).sum()
    }

    /// Says what of one of the releases was downloaded; an error, if it was not.
    pub fn fetched(
        &self,
        number: usize,
        bench: &TestEnvironment<'_>,
    ) -> Result<String, ScenarioError> {
        bench.fetched(|role: Role| self.releases[number].place(role))
    }
}

/// A host that is up.
pub struct Host<'a> {
    bench: &'a TestEnvironment<'a>,
    /// Its VM.
    pub guest: Guest<'a>,
    /// The id of the boot that runs.
    pub boot: String,
}

impl<'a> Host<'a> {
    /// Boots the bench's disk; see [`TestEnvironment::boot`].
    pub fn boot(
        bench: &'a TestEnvironment<'a>,
        name: &str,
        firmware: Firmware,
        recording: Option<&Path>,
    ) -> Result<Self, ScenarioError> {
        let (mut guest, boot) = bench.boot(name, firmware, recording)?;
        guest.write_slowly()?;
        Ok(Self { bench, guest, boot })
    }

    /// Has the host look for an update now. It reboots by itself when it has installed one.
    pub fn start_update(&mut self) -> Result<(), ScenarioError> {
        Ok(self.guest.push_last("starting the update", actions::update())?)
    }

    /// Has the host install what is offered, boot it, and waits until it is confirmed in `slot`.
    pub fn update(&mut self, slot: Slot, build: u64) -> Result<(), ScenarioError> {
        self.start_update()?;
        self.boot = self.guest.wait_for_reboot(&self.boot)?;
        self.wait_for_confirmation(slot, build)
    }

    /// Has the host go back to what it ran before, and waits until that is confirmed in `slot`.
    pub fn roll_back(&mut self, slot: Slot, build: u64) -> Result<(), ScenarioError> {
        self.guest.push_last("rolling back", actions::roll_back())?;
        self.boot = self.guest.wait_for_boot(&self.boot)?;
        self.wait_for_confirmation(slot, build)
    }

    /// Presses the reset button when the host has written this many bytes more than now.
    pub fn reset_after(&mut self, bytes: u64) -> Result<(), ScenarioError> {
        let mut end = None;
        self.guest.wait_until("waiting for the update to write", |vm| {
            let written = vm.qmp().written()?;
            let end = *end.get_or_insert(written + bytes);
            Ok((written >= end).then_some(()))
        })?;
        self.guest.reset()?;
        self.boot = self.guest.wait_for_boot(&self.boot)?;
        Ok(())
    }

    /// Waits until the running slot is confirmed, and makes sure of what runs.
    pub fn wait_for_confirmation(&mut self, slot: Slot, build: u64) -> Result<(), ScenarioError> {
        let disk = Disk::open(&self.bench.disk)?;
        self.guest.wait_until("waiting for the boot to be confirmed", |_| {
            Ok(disk.environment().filter(|found| found.is_confirmed(slot)))
        })?;
        self.guest.push("looking at what runs", actions::identify(slot, build), Mode::Check)?;
        Ok(())
    }
}

/// The disk of a VM, which may run meanwhile, seen from outside.
pub struct Disk {
    file: File,
    esp: u64,
}

impl Disk {
    /// Opens the image at `path`.
    pub fn open(path: &Path) -> Result<Self, ScenarioError> {
        let failed = |source| ScenarioError::File { doing: "read", path: path.into(), source };
        let file = File::open(path).map_err(failed)?;
        let esp = find_esp(&file).map_err(failed)?;
        let esp = esp.ok_or_else(|| ScenarioError::Disk {
            expected: "an EFI system partition".into(),
            found: "no GPT with one".into(),
        })?;
        Ok(Self { file, esp: esp.0 })
    }

    /// What GRUB would read; none, if the guest is just writing something that matters.
    pub fn environment(&self) -> Option<Environment> {
        environment(&self.file, self.esp).ok()
    }

    /// What is on it.
    pub fn inspect(&self, keys: &KeyRing) -> Result<Inspection, ScenarioError> {
        let inspection = Judge::new(keys.clone(), self.esp).inspect(&self.file);
        inspection.map_err(|error| ScenarioError::Disk {
            expected: "a readable EFI system partition".into(),
            found: error.to_string(),
        })
    }
}
