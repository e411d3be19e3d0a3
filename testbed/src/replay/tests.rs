//! The replay on disks made by mkfs.vfat and mtools, with writes in good and in bad orders.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use fastrand::Rng;
use protocol::esp::{GRUBENV, MANIFEST, Slot};
use protocol::grubenv::{BootState, TRIES, Trial};
use protocol::{Arch, Artifact, Claims, PrivateKey, Release, Role, token};
use tempfile::TempDir;

use super::log::tests::Writer;
use super::tally::Tally;
use super::{Job, ReplayError, SearchOptions, crosscheck, replay};
use crate::cancel::Cancel;
use crate::host::is_there;
use crate::inspect::disk::{Contents, Model, SECTOR, Sectors, find_esp};
use crate::inspect::fat::Fat;
use crate::inspect::judge::{Judge, Verdict};

/// Where the ESP begins, and how large it is: so many clusters of one sector that it is FAT32.
const ESP: u64 = 64;
const ESP_SECTORS: u64 = 70_000;

/// A disk with a release in slot `a`, which is good, and room for another one.
struct TestEnvironment {
    dir: TempDir,
    key: PrivateKey,
    disk: PathBuf,
}

/// The files of a slot.
type Files = Vec<(&'static str, Vec<u8>)>;

impl TestEnvironment {
    /// None where the programs are missing that make file systems; with `CI=true` that is a failure.
    fn new() -> Option<Self> {
        let tools = ["/usr/sbin/mkfs.vfat", "mcopy", "mmd", "mdel"];
        if let Some(missing) = tools.iter().find(|tool| !is_there(tool)) {
            let why = format!("no judge: {missing} (packages dosfstools and mtools)");
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
            // Not by a macro, whose output tests that pass keep to themselves.
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk.raw");
        let file = File::create_new(&disk).unwrap();
        file.set_len((ESP + ESP_SECTORS + 64) * SECTOR as u64).unwrap();
        file.write_all_at(b"EFI PART", SECTOR as u64).unwrap();
        let esp_type = crate::inspect::disk::ESP_TYPE;
        file.write_all_at(&esp_type, 2 * SECTOR as u64 + 128).unwrap();
        let range = [ESP.to_le_bytes(), (ESP + ESP_SECTORS - 1).to_le_bytes()].concat();
        file.write_all_at(&range, 2 * SECTOR as u64 + 128 + 32).unwrap();

        let environment = Self { dir, key: PrivateKey::generate(), disk };
        let sectors = (ESP_SECTORS / 2).to_string();
        let offset = ESP.to_string();
        environment.tool(
            "/usr/sbin/mkfs.vfat",
            &["-F", "32", "-s", "1", "--offset", &offset, "-n", "ETCHAOS", "DISK", &sectors],
        );
        for directory in ["EFI", "EFI/BOOT", "etchaos", "etchaos/a", "etchaos/b"] {
            environment.tool("mmd", &["-i", "IMAGE", &format!("::{directory}")]);
        }
        environment.put("EFI/BOOT/BOOTX64.EFI", &[9; 3000]);
        environment.put("etchaos/grub.cfg", b"# grub.cfg");
        environment.put(GRUBENV, &BootState::with_good(Slot::A).to_bytes());
        environment.install(Slot::A, &environment.release(1));
        Some(environment)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a program; `IMAGE` is the ESP for mtools.
    fn tool(&self, program: &str, arguments: &[&str]) {
        let disk = self.disk.to_str().unwrap();
        let image = format!("{disk}@@{}", ESP * SECTOR as u64);
        let arguments = arguments.iter().map(|word| match *word {
            "IMAGE" => &image,
            "DISK" => disk,
            word => word,
        });
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let file = self.path("put");
        fs::write(&file, bytes).unwrap();
        self.tool("mcopy", &["-o", "-i", "IMAGE", file.to_str().unwrap(), &format!("::{path}")]);
    }

    fn install(&self, slot: Slot, files: &Files) {
        for (name, bytes) in files {
            self.put(&format!("{}/{name}", slot.directory()), bytes);
        }
    }

    /// A signed release.
    fn release(&self, build: u64) -> Files {
        let bytes = |seed: u64, length: usize| {
            let mut rng = Rng::with_seed(build * 100 + seed);
            (0..length).map(|_| rng.u8(..)).collect::<Vec<u8>>()
        };
        let files =
            [(Role::Kernel, "vmlinuz", bytes(1, 3000)), (Role::Initrd, "initrd", bytes(2, 20_000))];
        let mut artifacts = Vec::new();
        for (role, name, bytes) in &files {
            let path = self.path("measured");
            fs::write(&path, bytes).unwrap();
            let (size, sha256) = crate::artifacts::measure(&path).unwrap();
            let (name, url) = ((*name).to_owned(), (*name).to_owned());
            artifacts.push(Artifact { role: *role, name, size, sha256, url });
        }
        let release = Release {
            schema: protocol::release::SCHEMA,
            variant: "deb".parse().unwrap(),
            arch: Arch::Amd64,
            version: "1".into(),
            build,
            epoch: 1,
            kernel: "6".into(),
            recipe: "cd".repeat(32),
            artifacts,
            packages: Vec::new(),
            bootloader: Vec::new(),
        };
        let claims = Claims { etchaos_release: Some(release), ..Claims::default() };
        let manifest = token::sign(&self.key, &claims).unwrap().into_bytes();
        let [(_, _, kernel), (_, _, initrd)] = files;
        vec![("vmlinuz", kernel), ("initrd", initrd), (MANIFEST, manifest)]
    }

    fn snapshot(&self, name: &str) -> PathBuf {
        let to = self.path(name);
        crate::disk::copy_sparse(&self.disk, &to).unwrap();
        to
    }

    /// The first sector of a file on the disk.
    fn first_sector(&self, path: &str) -> u64 {
        let disk = File::open(&self.disk).unwrap();
        let fat = Fat::open(&disk, ESP).unwrap();
        fat.sectors(&fat.find(path).unwrap().unwrap()).unwrap()[0]
    }

    /// Replays `log` on `base`, and demands that it leads to the disk as it is now.
    fn replay(&self, base: &Path, log: &mut Writer) -> Tally {
        let search = SearchOptions {
            states: 300,
            seed: 1,
            crosschecks: 4,
            keep_bad: Some(self.path("bad")),
        };
        let job = Job {
            base,
            log: &log.save(self.dir.path()),
            end: Some(&self.disk),
            phases: &[("update".to_owned(), 1 << 40)],
            keys: &self.key.public().clone().into(),
            search: &search,
            cancel: &Cancel::default(),
        };
        replay(&job).unwrap()
    }
}

/// The writes that make one image of another: runs of sectors, and no long ones.
fn difference(from: &Path, to: &Path, log: &mut Writer) {
    let (from, to) = (fs::read(from).unwrap(), fs::read(to).unwrap());
    let (from, to) = (from.as_chunks::<SECTOR>().0, to.as_chunks::<SECTOR>().0);
    let mut at = 0;
    while at < to.len() {
        let length = (at..to.len()).take(12).take_while(|at| from[*at] != to[*at]).count();
        if length > 0 {
            log.write(at as u64, to[at..at + length].as_flattened());
        }
        at += length.max(1);
    }
}

/// grubenv in place, as the updater and GRUB write it.
fn flip(environment: &TestEnvironment, state: BootState, log: &mut Writer) {
    let sector = environment.first_sector(GRUBENV);
    let bytes = state.to_bytes();
    // mkfs.vfat and mtools give one file neighbouring clusters on an empty disk.
    File::options()
        .write(true)
        .open(&environment.disk)
        .unwrap()
        .write_all_at(&bytes, sector * SECTOR as u64)
        .unwrap();
    log.write(sector, &bytes);
}

fn trial() -> BootState {
    on_trial(TRIES)
}

fn on_trial(tries: u8) -> BootState {
    let trial = Trial { slot: Slot::B, tries, release: None, since: None };
    BootState { trial: Some(trial), ..BootState::with_good(Slot::A) }
}

#[test]
fn a_slot_that_is_flushed_before_anything_points_to_it_is_never_bad() {
    let Some(environment) = TestEnvironment::new() else { return };
    let base = environment.snapshot("base");
    let mut log = Writer::new();
    environment.install(Slot::B, &environment.release(2));
    difference(&base, &environment.disk, &mut log);
    log.flush();
    flip(&environment, trial(), &mut log);
    log.flush();
    // GRUB counts, and flushes nothing.
    flip(&environment, on_trial(TRIES - 1), &mut log);
    flip(&environment, BootState::with_good(Slot::B), &mut log);
    log.flush();

    let tally = environment.replay(&base, &mut log);
    assert_eq!((tally.bad(), tally.first_bad.as_ref().map(|bad| &bad.problem)), (0, None));
    assert!(tally.states() >= 300, "{tally}");
    let [update, trial] = &tally.phases[..] else { panic!("{tally}") };
    assert!(update.prefixes > 0 && trial.prefixes == 3 && trial.writes == 2, "{tally}");
    assert!(tally.crosschecked >= 3, "{tally}");
    for how in ["slot a, last confirmed", "slot b, on trial", "slot b, last confirmed"] {
        assert!(tally.boots.contains_key(how), "{tally}");
    }
    assert!(!environment.path("bad").exists());
}

#[test]
fn the_same_seed_finds_the_same_states() {
    let Some(environment) = TestEnvironment::new() else { return };
    let base = environment.snapshot("base");
    let mut log = Writer::new();
    environment.install(Slot::B, &environment.release(2));
    difference(&base, &environment.disk, &mut log);
    let [first, second] = [(); 2].map(|()| {
        let tally = Tally { seconds: 0.0, ..environment.replay(&base, &mut log) };
        serde_json::to_string(&tally).unwrap()
    });
    assert_eq!(first, second);
}

/// Every order that is wrong must be found out, or the judge is worth nothing.
#[test]
fn wrong_orders_are_bad() {
    type Order = fn(&TestEnvironment, &Path, &mut Writer);
    let orders: [(&str, Order, &str); 5] = [
        ("the good slot is overwritten in place", overwrite_good, "slot a (last confirmed)"),
        ("grubenv points to a slot that is not written yet", flip_first, "on trial"),
        ("nothing is flushed between the slot and grubenv", no_flush, "on trial"),
        ("a slot is confirmed and the way back is removed too early", no_way_back, "the fallback"),
        ("the boot loader is replaced", replace_loader, "boot loader"),
    ];
    for (what, order, why) in orders {
        let Some(environment) = TestEnvironment::new() else { return };
        let base = environment.snapshot("base");
        let mut log = Writer::new();
        order(&environment, &base, &mut log);
        let tally = environment.replay(&base, &mut log);
        let bad = tally.first_bad.as_ref().unwrap_or_else(|| panic!("{what}: {tally}"));
        assert!(bad.problem.contains(why), "{what}: {bad:?}");
        // What was kept is bad for the same reason. The boot loader is another matter: on its own
        // disk it is as it was.
        let kept = File::open(environment.path("bad/bad.raw")).unwrap();
        let verdict = Judge::new(environment.key.public().clone().into(), ESP).judge(&kept);
        if why != "boot loader" {
            assert_eq!(verdict, Verdict::Bad(bad.problem.clone()), "{what}");
        }
    }
}

fn overwrite_good(environment: &TestEnvironment, base: &Path, log: &mut Writer) {
    let release = environment.release(2);
    for (name, bytes) in &release {
        let sector = environment.first_sector(&format!("etchaos/a/{name}"));
        let file = File::options().write(true).open(&environment.disk).unwrap();
        file.write_all_at(bytes, sector * SECTOR as u64).unwrap();
    }
    difference(base, &environment.disk, log);
    log.flush();
}

fn flip_first(environment: &TestEnvironment, _: &Path, log: &mut Writer) {
    flip(environment, trial(), log);
    log.flush();
    let flipped = environment.snapshot("flipped");
    environment.install(Slot::B, &environment.release(2));
    difference(&flipped, &environment.disk, log);
    log.flush();
}

fn no_flush(environment: &TestEnvironment, base: &Path, log: &mut Writer) {
    environment.install(Slot::B, &environment.release(2));
    difference(base, &environment.disk, log);
    flip(environment, trial(), log);
    log.flush();
}

fn no_way_back(environment: &TestEnvironment, base: &Path, log: &mut Writer) {
    environment.install(Slot::B, &environment.release(2));
    difference(base, &environment.disk, log);
    log.flush();
    flip(environment, trial(), log);
    log.flush();
    let flipped = environment.snapshot("flipped");
    environment.tool("mdel", &["-i", "IMAGE", "::etchaos/a/initrd"]);
    difference(&flipped, &environment.disk, log);
    log.flush();
    flip(environment, BootState::with_good(Slot::B), log);
    log.flush();
}

fn replace_loader(environment: &TestEnvironment, base: &Path, log: &mut Writer) {
    environment.put("EFI/BOOT/BOOTX64.EFI", &[8; 3000]);
    difference(base, &environment.disk, log);
}

#[test]
fn a_recording_of_another_disk_is_found_out() {
    let Some(environment) = TestEnvironment::new() else { return };
    let base = environment.snapshot("base");
    environment.put("etchaos/config.json", b"{}");
    let search = SearchOptions { states: 1, seed: 1, crosschecks: 0, keep_bad: None };
    let job = Job {
        base: &base,
        log: &Writer::new().save(environment.dir.path()),
        end: Some(&environment.disk),
        phases: &[],
        keys: &environment.key.public().clone().into(),
        search: &search,
        cancel: &Cancel::default(),
    };
    assert!(matches!(replay(&job), Err(ReplayError::End { .. })));
    let stranger = PrivateKey::generate().public().clone().into();
    let error = replay(&Job { keys: &stranger, ..job }).map(drop).unwrap_err();
    assert!(error.to_string().contains("before the first recorded write"), "{error}");
}

#[test]
fn mtools_and_our_reader_see_the_same() {
    let Some(environment) = TestEnvironment::new() else { return };
    // Fragments, deleted entries, and a name that needs three entries.
    for number in 0..20 {
        environment
            .put(&format!("etchaos/a file with a long name, number {number}.txt"), &[1; 600]);
    }
    for number in (0..20).step_by(2) {
        let path = format!("::etchaos/a file with a long name, number {number}.txt");
        environment.tool("mdel", &["-i", "IMAGE", &path]);
    }
    environment.install(Slot::B, &environment.release(2));
    let model = Model::load(&environment.disk, Contents::default()).unwrap();
    assert_eq!(find_esp(&model).unwrap(), Some((ESP, ESP_SECTORS)));
    crosscheck::compare(&model, ESP..ESP + ESP_SECTORS).unwrap();
    let fat = Fat::open(&model, ESP).unwrap();
    let names: Vec<String> =
        fat.files("etchaos").unwrap().into_iter().map(|(path, _)| path).collect();
    assert!(
        names.contains(&"etchaos/a file with a long name, number 7.txt".to_owned()),
        "{names:?}"
    );
    assert!(!names.contains(&"etchaos/a file with a long name, number 8.txt".to_owned()));
    assert!(fat.find("ETCHAOS/A/VMLINUZ").unwrap().is_some());
    assert!(fat.find("etchaos/a/vmlinuz/x").unwrap().is_none());
}

#[test]
fn no_damage_makes_the_judge_panic_or_err() {
    let Some(environment) = TestEnvironment::new() else { return };
    let mut model = Model::load(&environment.disk, Contents::default()).unwrap();
    let mut judge = Judge::new(environment.key.public().clone().into(), ESP);
    judge.remember_loader(&model).unwrap();
    let healthy = judge.judge(&model);
    assert!(matches!(healthy, Verdict::Boots(Slot::A, _)));
    let mut rng = Rng::with_seed(3);
    let used: Vec<u64> = (ESP..ESP + ESP_SECTORS).filter(|at| model.id(*at) != Some(0)).collect();
    for _ in 0..2000 {
        let sector = used[rng.usize(..used.len())];
        let mut bytes = model.read(sector).unwrap();
        for _ in 0..rng.usize(1..8) {
            bytes[rng.usize(..SECTOR)] = rng.u8(..);
        }
        let id = model.contents().add(&bytes);
        let before = model.set(sector, id);
        // What it says depends on the damage; that it says something, and soon, does not.
        let _ = judge.judge(&model);
        model.set(sector, before);
    }
    assert_eq!(judge.judge(&model), healthy);
}
