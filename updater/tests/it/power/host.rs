//! A host with a disk in memory: its boot loader, its updater, and a CDN in a directory.

use protocol::boot_order::{Attempt, Environment, Load, Outcome, Platform, Save, SlotFiles};
use protocol::esp::{GRUBENV, Slot, slot_file};
use protocol::grubenv::{BOOTS, Block, BootId, BootState, TRIES, TRIES_LEFT};
use protocol::release::DeltaFile;
use protocol::token::sign;
use protocol::{Artifact, KeyRing, PrivateKey, Release, Role};
use tempfile::TempDir;
use updater::candidate::{Candidate, CandidateRequest, fetch};
use updater::cdn::{Cdn, Timeouts};
use updater::config::Network;
use updater::confirmation::confirm;
use updater::grubenv_file::GrubenvFile;
use updater::host::Booted;
use updater::install::Source;
use updater::plan::{Permissions, Step};
use updater::progress::{Progress, Show};
use updater::slot_content::Content;
use updater::slots::inspect;
use updater::trial::{Rollback, roll_back};
use updater::update::{Request, Update};

use super::disk::{Disk, SECTOR};
use crate::world::{claims, now, sha256, target};

/// The trusted keys of a host, and a CDN with releases 1 to 3. Disks are passed to its methods.
pub(super) struct Host {
    directory: TempDir,
    key: PrivateKey,
    pub keys: KeyRing,
    cdn: Cdn,
    /// Its directory has no `/run`, so nothing is recorded.
    host: updater::host::Host,
}

/// Returns the content of an artifact. No sector equals another one of any release.
pub(super) fn content(role: Role, n: u64) -> Vec<u8> {
    let sectors = if role == Role::Kernel { 5 } else { 11 };
    let line = format!("{role} of release {n}, sector ");
    let mut bytes = Vec::new();
    for index in 0..sectors {
        let mut sector = format!("{line}{index}\n").into_bytes();
        sector.resize(SECTOR, b'.');
        bytes.extend(sector);
    }
    // The last sector is not full.
    bytes.truncate(sectors * SECTOR - 100);
    bytes
}

/// Returns the n-th release, with small artifacts.
pub(super) fn release(n: u64) -> Release {
    let artifacts = Role::BOOT.map(|role| {
        let bytes = content(role, n);
        let name = format!("{n}.{}", role.extension());
        let (size, sha256) = (bytes.len() as u64, sha256(&bytes));
        Artifact { role, url: name.clone(), name, size, sha256, deltas: Vec::new() }
    });
    Release { artifacts: artifacts.to_vec(), ..crate::world::release(n) }
}

impl Host {
    pub(super) fn new() -> Self {
        let key = PrivateKey::generate();
        let keys = KeyRing::from(key.public().clone());
        let directory = tempfile::tempdir().unwrap();
        let cdn = Cdn::new(&Network::default(), &[], Timeouts::default()).unwrap();
        std::fs::create_dir(directory.path().join("proc")).unwrap();
        std::fs::write(directory.path().join("proc/meminfo"), "MemAvailable: 999999 kB\n").unwrap();
        let host = updater::host::Host::new(directory.path());
        let host = Self { directory, key, keys, cdn, host };
        for n in 1..=3 {
            let base = host.directory.path().join(n.to_string());
            std::fs::create_dir(&base).unwrap();
            std::fs::write(base.join(target().manifest_name()), host.token(n)).unwrap();
            for role in Role::BOOT {
                let name = base.join(format!("{n}.{}", role.extension()));
                std::fs::write(name, content(role, n)).unwrap();
            }
        }
        host
    }

    fn token(&self, n: u64) -> String {
        sign(&self.key, &claims(&release(n))).unwrap()
    }

    /// Returns the candidate that the CDN offers with the n-th release.
    pub(super) fn candidate(&self, n: u64) -> Candidate {
        self.candidate_at(&n.to_string())
    }

    /// Returns the same with the kernel of the release before, and a delta of the initrd from it. This CDN has no
    /// kernel and a wrong initrd, so an update without copy and delta fails.
    pub(super) fn candidate_with_delta(&self, n: u64) -> Candidate {
        let base = self.directory.path().join("delta");
        std::fs::create_dir(&base).unwrap();
        let (old, new) = (content(Role::Initrd, n - 1), content(Role::Initrd, n));
        let delta = crate::delta::delta(&old, &new);
        let entry = DeltaFile { from: sha256(&old), ..crate::delta::entry(&delta) };
        std::fs::write(base.join(&entry.url), delta).unwrap();
        std::fs::write(base.join(format!("{n}.initrd")), vec![0; new.len()]).unwrap();
        let mut release = release(n);
        release.artifacts[0] = self::release(n - 1).artifacts[0].clone();
        release.artifacts[1].deltas.push(entry);
        let token = sign(&self.key, &claims(&release)).unwrap();
        std::fs::write(base.join(target().manifest_name()), token).unwrap();
        self.candidate_at("delta")
    }

    fn candidate_at(&self, directory: &str) -> Candidate {
        let base = self.directory.path().join(directory).to_str().unwrap().to_owned();
        let request = CandidateRequest {
            bases: &[base],
            target: &target(),
            keys: &self.keys,
            now: now(),
            newest: None,
            cache: None,
        };
        fetch(&self.cdn, &request).unwrap()
    }

    /// Returns a disk with the n-th release in slot a, boot loader files, and an empty slot b.
    pub(super) fn disk(&self, n: u64) -> Disk {
        let disk = Disk::new();
        disk.put("EFI/BOOT/BOOTX64.EFI", &[1; 700]);
        disk.put("etchaos/grub.cfg", &[2; 700]);
        disk.put(GRUBENV, &BootState::with_good(Slot::A).to_bytes());
        self.fill(&disk, Slot::A, n);
        disk
    }

    /// Writes the n-th release to a slot.
    pub(super) fn fill(&self, disk: &Disk, slot: Slot, n: u64) {
        for role in Role::BOOT {
            disk.put(
                &format!("{}/{}", slot.directory(), slot_file(role).unwrap()),
                &content(role, n),
            );
        }
        disk.put(&format!("{}/release.jwt", slot.directory()), self.token(n).as_bytes());
    }

    /// Updates as `updater update` does, from the inspection of the slots to the last write.
    pub(super) fn update(
        &self,
        disk: &Disk,
        running: Slot,
        boot: u32,
        candidate: &Candidate,
    ) -> Result<Step, String> {
        let request = Request {
            esp: disk,
            booted: Booted { slot: Some(running), on_trial: false, id: Some(BootId(boot)) },
            source: Source {
                candidate,
                cdn: &self.cdn,
                allowed_origins: &[],
                keys: &self.keys,
                host: &self.host,
                retry_failed: false,
            },
            allow: Permissions::default(),
        };
        let mut update = Update::decide(request);
        let (writes, before) = (update.writes(), disk.operations());
        update.carry_out(&Progress::new(Show::Nothing)).map_err(|error| error.to_string())?;
        // The updater mounts the ESP read-only for steps that do not write.
        assert!(writes || disk.operations() == before, "{:?} has written", update.step);
        Ok(update.step)
    }

    /// Confirms the running slot as `updater confirm` does. The boot was on trial if GRUB decremented the
    /// tries.
    pub(super) fn confirm(&self, disk: &Disk, running: Slot) -> Result<(), String> {
        let state = GrubenvFile::read(disk, running).state;
        let on_trial =
            state.trial.is_some_and(|trial| trial.slot == running && trial.tries < TRIES);
        let booted = Booted { slot: Some(running), on_trial, id: None };
        confirm(disk, booted).map(|_| ()).map_err(|error| error.to_string())
    }

    /// Rolls back as `updater rollback` does.
    pub(super) fn roll_back(&self, disk: &Disk, running: Slot) -> Result<(), String> {
        let slots = inspect(disk, &self.keys);
        let mut grubenv = GrubenvFile::read(disk, running);
        let rollback = roll_back(&grubenv.state, running, &slots, Some(BootId(9)));
        let (Rollback::Stay(state) | Rollback::Reboot(state, _)) =
            rollback.map_err(|e| e.to_string())?;
        grubenv.write(disk, state).map_err(|error| error.to_string())
    }

    /// Returns the slot that GRUB boots and the release in it, which must be complete. Counts a try as
    /// GRUB does.
    pub(super) fn boot(&self, disk: &Disk) -> Result<(Slot, Release), String> {
        let block = disk.read(GRUBENV).and_then(|bytes| Block::parse(&bytes).ok());
        let environment = block.as_ref().map(Environment::from).unwrap_or_default();
        let files = |slot| SlotFiles::find(slot, |path| disk.read(path).is_some());
        let decision = environment.decide(files, Save::Stored);
        let outcome = decision.outcome(Platform::Uefi, files, |_| Load::Works);
        if let Some(mut block) = block {
            for (name, value) in
                [(TRIES_LEFT, decision.saves), (BOOTS, decision.saves_boots(outcome))]
            {
                if let Some(value) = value {
                    block.set(name, &value.to_string());
                }
            }
            disk.put(GRUBENV, &block.to_bytes().unwrap());
        }
        let Outcome::Boots(Attempt { slot, .. }) = outcome else {
            return Err("nothing boots".into());
        };
        match inspect(disk, &self.keys).get(slot) {
            Content::Complete(manifest) => Ok((slot, manifest.release.clone())),
            other => Err(format!("GRUB would boot slot {slot}, which holds {other:?}")),
        }
    }

    /// Boots, confirms and updates until the candidate runs and is confirmed. Each boot must find a
    /// complete release. Returns the number of boots.
    pub(super) fn boot_until_updated(
        &self,
        disk: &Disk,
        candidate: &Candidate,
    ) -> Result<u32, String> {
        for boots in 1..=6 {
            let (running, release) = self.boot(disk)?;
            self.confirm(disk, running)?;
            self.update(disk, running, boots, candidate)?;
            if release.id() == candidate.release().id() {
                return Ok(boots);
            }
        }
        Err("the candidate does not run after six boots".into())
    }
}
