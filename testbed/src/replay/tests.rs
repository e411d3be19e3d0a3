//! Tests of the replay, on disks made by mkfs.vfat and mtools, with writes in safe and unsafe orders.

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
use crate::host::is_installed;
use crate::inspect::disk::{Contents, Model, SECTOR, Sectors, find_esp};
use crate::inspect::fat::Fat;
use crate::inspect::judge::{Judge, Verdict};

/// The first sector of the ESP, in sectors of 512 bytes, and its size in sectors of its disk. With clusters of
/// one sector, it is large enough for FAT32.
const ESP: u64 = 64;
const ESP_SECTORS: u64 = 70_000;

/// A disk with a confirmed release in slot `a` and an empty slot `b`.
struct TestEnvironment {
    dir: TempDir,
    key: PrivateKey,
    disk: PathBuf,
}

/// The files of a slot.
type Files = Vec<(&'static str, Vec<u8>)>;

impl TestEnvironment {
    /// Returns `None` if the tools to make file systems are not installed. Panics instead if `CI=true`.
    fn new() -> Option<Self> {
        Self::with_sectors(SECTOR as u64)
    }

    /// Returns an environment whose disk has sectors of this size.
    fn with_sectors(size: u64) -> Option<Self> {
        let tools = ["/usr/sbin/mkfs.vfat", "mcopy", "mmd", "mdel"];
        if let Some(missing) = tools.iter().find(|tool| !is_installed(tool)) {
            let problem = format!("{missing} is missing (packages dosfstools and mtools)");
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{problem}");
            // The test harness hides the output of eprintln! in tests that pass.
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "SKIPPED: {problem}");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk.raw");
        let file = File::create_new(&disk).unwrap();
        let first = ESP * SECTOR as u64 / size;
        file.set_len((first + ESP_SECTORS + 64) * size).unwrap();
        file.write_all_at(b"EFI PART", size).unwrap();
        let esp_type = crate::inspect::disk::ESP_TYPE;
        file.write_all_at(&esp_type, 2 * size + 128).unwrap();
        let range = [first.to_le_bytes(), (first + ESP_SECTORS - 1).to_le_bytes()].concat();
        file.write_all_at(&range, 2 * size + 128 + 32).unwrap();

        let environment = Self { dir, key: PrivateKey::generate(), disk };
        let kilobytes = (ESP_SECTORS * size / 1024).to_string();
        let (size, offset) = (size.to_string(), first.to_string());
        let place = ["-F", "32", "-S", &size, "-s", "1", "--offset", &offset];
        let arguments = [&place[..], &["-n", "ETCHAOS", "DISK", &kilobytes]].concat();
        environment.tool("/usr/sbin/mkfs.vfat", &arguments);
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

    /// Runs a program. Replaces the arguments `DISK` by the disk and `IMAGE` by its ESP, as mtools name it.
    fn tool(&self, program: &str, arguments: &[&str]) {
        let disk = self.disk.to_str().unwrap();
        let image = format!("{disk}@@{}", ESP * SECTOR as u64);
        let arguments = arguments.iter().map(|argument| match *argument {
            "IMAGE" => &image,
            "DISK" => disk,
            argument => argument,
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

    /// Returns the files of a signed release.
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
            artifacts.push(Artifact { role: *role, name, size, sha256, url, deltas: Vec::new() });
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
            documents: Vec::new(),
            secure_boot: true,
            toolchain: std::collections::BTreeMap::new(),
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

    /// Returns the first sector of a file on the disk.
    fn first_sector(&self, path: &str) -> u64 {
        let disk = File::open(&self.disk).unwrap();
        let fat = Fat::open(&disk, ESP).unwrap();
        fat.sectors(&fat.find(path).unwrap().unwrap()).unwrap()[0]
    }

    /// Replays `log` on `base`. Panics if the result differs from the disk.
    fn replay(&self, base: &Path, log: &mut Writer) -> Tally {
        let search = SearchOptions {
            states: 300,
            seed: 1,
            crosschecks: 4,
            data_checks: 0,
            keep_bad: Some(self.path("bad")),
        };
        let job = Job {
            base,
            room: 0,
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

/// Logs the writes that turn the image `from` into `to`, each of at most 12 sectors.
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

/// Overwrites grubenv in place, as the updater and GRUB do.
fn write_grubenv(environment: &TestEnvironment, state: BootState, log: &mut Writer) {
    let sector = environment.first_sector(GRUBENV);
    let bytes = state.to_bytes();
    // The clusters of grubenv are adjacent: mtools wrote it to an empty file system.
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
fn finds_no_bad_state_if_the_slot_is_flushed_before_grubenv() {
    let Some(environment) = TestEnvironment::new() else { return };
    let base = environment.snapshot("base");
    let mut log = Writer::new();
    environment.install(Slot::B, &environment.release(2));
    difference(&base, &environment.disk, &mut log);
    log.flush();
    write_grubenv(&environment, trial(), &mut log);
    log.flush();
    // GRUB counts down the tries without a flush.
    write_grubenv(&environment, on_trial(TRIES - 1), &mut log);
    write_grubenv(&environment, BootState::with_good(Slot::B), &mut log);
    log.flush();

    let tally = environment.replay(&base, &mut log);
    assert_eq!((tally.bad(), tally.first_bad.as_ref().map(|bad| &bad.problem)), (0, None));
    assert!(tally.states() >= 300, "{tally}");
    let [update, trial] = &tally.phases[..] else { panic!("{tally}") };
    assert!(update.prefixes > 0 && trial.prefixes == 3 && trial.writes == 2, "{tally}");
    assert!(tally.crosschecked >= 3, "{tally}");
    for boot in ["slot a, last confirmed", "slot b, on trial", "slot b, last confirmed"] {
        assert!(tally.boots.contains_key(boot), "{tally}");
    }
    assert!(!environment.path("bad").exists());
}

#[test]
fn searches_the_same_states_for_the_same_seed() {
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

#[test]
fn finds_bad_states_for_unsafe_orders_of_writes() {
    type Order = fn(&TestEnvironment, &Path, &mut Writer);
    let orders: [(&str, Order, &str); 5] = [
        ("overwrites the confirmed slot", overwrite_confirmed, "slot a (last confirmed)"),
        ("writes grubenv before the slot", write_grubenv_first, "on trial"),
        ("does not flush between the slot and grubenv", skip_flush, "on trial"),
        ("removes the fallback before the confirmation", remove_fallback, "the fallback"),
        ("replaces the boot loader", replace_loader, "boot loader"),
    ];
    for (name, order, problem) in orders {
        let Some(environment) = TestEnvironment::new() else { return };
        let base = environment.snapshot("base");
        let mut log = Writer::new();
        order(&environment, &base, &mut log);
        let tally = environment.replay(&base, &mut log);
        let bad = tally.first_bad.as_ref().unwrap_or_else(|| panic!("{name}: {tally}"));
        assert!(bad.problem.contains(problem), "{name}: {bad:?}");
        // The kept disk is bad for the same reason, except for a changed boot loader: a judge that has
        // not seen the original accepts it.
        let kept = File::open(environment.path("bad/bad.raw")).unwrap();
        let verdict = Judge::new(environment.key.public().clone().into(), ESP).judge(&kept);
        if problem != "boot loader" {
            assert_eq!(verdict, Verdict::Bad(bad.problem.clone()), "{name}");
        }
    }
}

fn overwrite_confirmed(environment: &TestEnvironment, base: &Path, log: &mut Writer) {
    let release = environment.release(2);
    for (name, bytes) in &release {
        let sector = environment.first_sector(&format!("etchaos/a/{name}"));
        let file = File::options().write(true).open(&environment.disk).unwrap();
        file.write_all_at(bytes, sector * SECTOR as u64).unwrap();
    }
    difference(base, &environment.disk, log);
    log.flush();
}

fn write_grubenv_first(environment: &TestEnvironment, _: &Path, log: &mut Writer) {
    write_grubenv(environment, trial(), log);
    log.flush();
    let trial = environment.snapshot("trial");
    environment.install(Slot::B, &environment.release(2));
    difference(&trial, &environment.disk, log);
    log.flush();
}

fn skip_flush(environment: &TestEnvironment, base: &Path, log: &mut Writer) {
    environment.install(Slot::B, &environment.release(2));
    difference(base, &environment.disk, log);
    write_grubenv(environment, trial(), log);
    log.flush();
}

fn remove_fallback(environment: &TestEnvironment, base: &Path, log: &mut Writer) {
    environment.install(Slot::B, &environment.release(2));
    difference(base, &environment.disk, log);
    log.flush();
    write_grubenv(environment, trial(), log);
    log.flush();
    let trial = environment.snapshot("trial");
    environment.tool("mdel", &["-i", "IMAGE", "::etchaos/a/initrd"]);
    difference(&trial, &environment.disk, log);
    log.flush();
    write_grubenv(environment, BootState::with_good(Slot::B), log);
    log.flush();
}

fn replace_loader(environment: &TestEnvironment, base: &Path, log: &mut Writer) {
    environment.put("EFI/BOOT/BOOTX64.EFI", &[8; 3000]);
    difference(base, &environment.disk, log);
}

#[test]
fn rejects_a_recording_of_another_disk() {
    let Some(environment) = TestEnvironment::new() else { return };
    let base = environment.snapshot("base");
    environment.put("etchaos/config.json", b"{}");
    let search =
        SearchOptions { states: 1, seed: 1, crosschecks: 0, data_checks: 0, keep_bad: None };
    let job = Job {
        base: &base,
        room: 0,
        log: &Writer::new().save(environment.dir.path()),
        end: Some(&environment.disk),
        phases: &[],
        keys: &environment.key.public().clone().into(),
        search: &search,
        cancel: &Cancel::default(),
    };
    assert!(matches!(replay(&job), Err(ReplayError::End { .. })));
    let untrusted = PrivateKey::generate().public().clone().into();
    let error = replay(&Job { keys: &untrusted, ..job }).map(drop).unwrap_err();
    assert!(error.to_string().contains("before the first recorded write"), "{error}");
}

#[test]
fn reads_files_as_mtools_does() {
    for size in [512, 4096] {
        let Some(environment) = TestEnvironment::with_sectors(size) else { return };
        reads_files_of(&environment, ESP_SECTORS * size / SECTOR as u64);
    }
}

/// Reads files of a disk whose ESP has this size in sectors of 512 bytes.
fn reads_files_of(environment: &TestEnvironment, esp_sectors: u64) {
    // Fragmented files, deleted entries, and names of three entries each.
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
    assert_eq!(find_esp(&model).unwrap(), Some((ESP, esp_sectors)));
    crosscheck::compare(&model, ESP..ESP + esp_sectors).unwrap();
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
fn judges_damaged_disks_without_a_panic() {
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
        // The verdict depends on the damage, so only panics and endless loops fail this test.
        let _ = judge.judge(&model);
        model.set(sector, before);
    }
    assert_eq!(judge.judge(&model), healthy);
}

#[test]
fn reads_all_files_of_the_esp_and_stops_in_a_directory_that_contains_itself() {
    let Some(environment) = TestEnvironment::new() else { return };
    let read = || {
        let mut found = std::collections::BTreeMap::new();
        let disk = File::open(&environment.disk).unwrap();
        let result = crate::inspect::files::visit_esp(&disk, &mut |path, size, content| {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(content, &mut bytes)?;
            assert_eq!(bytes.len() as u64, size);
            found.insert(path.to_ascii_lowercase(), bytes);
            Ok(())
        });
        result.map(|()| found)
    };
    let found = read().unwrap();
    assert_eq!(found["/efi/boot/bootx64.efi"], [9; 3000]);
    assert_eq!(found["/etchaos/grub.cfg"], b"# grub.cfg");
    assert!(found.contains_key("/etchaos/a/initrd") && found.contains_key("/etchaos/grubenv"));
    let loaders = || crate::inspect::files::boot_loaders(&File::open(&environment.disk).unwrap());
    assert_eq!(loaders().unwrap(), [Arch::Amd64]);
    environment.put("EFI/BOOT/BOOTAA64.EFI", &[9; 3000]);
    assert_eq!(loaders().unwrap(), [Arch::Amd64, Arch::Arm64]);

    environment.tool("mmd", &["-i", "IMAGE", "::LOOP", "::LOOP/INNER"]);
    let mut bytes = fs::read(&environment.disk).unwrap();
    let inner = bytes.windows(12).position(|bytes| bytes == b"INNER      \x10").unwrap();
    // The first entry of a directory, two entries before, points to the directory itself.
    for at in [20, 21, 26, 27] {
        bytes[inner + at] = bytes[inner - 64 + at];
    }
    fs::write(&environment.disk, bytes).unwrap();
    let error = read().unwrap_err().to_string();
    assert!(error.contains("more than 10000 files"), "{error}");
}
