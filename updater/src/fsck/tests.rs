use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;

use super::*;

struct Image {
    directory: TempDir,
}

impl Image {
    /// Creates a FAT image for disks with sectors of this size; `None` if mkfs.vfat is not installed.
    fn new(bits: &str, sector_size: &str) -> Option<Self> {
        let image = Self { directory: tempfile::tempdir().unwrap() };
        // A FAT32 has at least 65,525 clusters, each of at least one sector.
        let length = (80 << 10) * sector_size.parse::<u64>().unwrap();
        File::create(image.path()).unwrap().set_len(length).unwrap();
        let mut mkfs = Command::new("mkfs.vfat");
        let mkfs = mkfs
            .args(["-F", bits, "-S", sector_size])
            .arg(image.path())
            .env("PATH", path())
            .output();
        match mkfs {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(_) => {
                assert!(std::env::var("CI").is_err(), "mkfs.vfat is needed for this test");
                eprintln!("SKIPPED: mkfs.vfat is not installed");
                return None;
            }
        }
        Some(image)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    fn file(&self) -> File {
        OpenOptions::new().read(true).write(true).open(self.path()).unwrap()
    }

    /// Returns the exit code and the output of `fsck.vfat -n`.
    fn check(&self) -> (Option<i32>, String) {
        let fsck = Command::new(program()).arg("-n").arg(self.path()).output().unwrap();
        (fsck.status.code(), String::from_utf8_lossy(&fsck.stdout).into_owned())
    }
}

/// Returns PATH with the directories of system programs, which other users than root lack.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

fn program() -> String {
    let directories = path();
    let mut found = directories.split(':').map(|directory| format!("{directory}/{PROGRAM}"));
    found.find(|path| Path::new(path).exists()).unwrap()
}

#[test]
fn finds_the_dirty_bit_of_each_fat_type() {
    let types =
        [("32", "512", 0x41), ("32", "4096", 0x41), ("16", "512", 0x25), ("12", "512", 0x25)];
    for (bits, sector_size, at) in types {
        let Some(image) = Image::new(bits, sector_size) else { return };
        assert!(!is_dirty(&image.file()).unwrap(), "FAT{bits}");
        image.file().write_all_at(&[1], at).unwrap();
        assert!(is_dirty(&image.file()).unwrap(), "FAT{bits}");
        let (code, output) = image.check();
        assert!(code == Some(1) && output.contains("Dirty bit is set"), "{output}");
        run(&program(), &image.path(), TIMEOUT);
        assert!(!is_dirty(&image.file()).unwrap(), "FAT{bits}");
        assert_eq!(image.check().0, Some(0), "FAT{bits}");
    }
}

#[test]
fn ignores_sectors_that_are_not_fat() {
    assert!(!has_dirty_bit(&[0; SECTOR]));
    assert!(!has_dirty_bit(&[0xff; SECTOR]));
    let mut sector = [0; SECTOR];
    (sector[0x41], sector[12], sector[16]) = (1, 2, 2);
    assert!(!has_dirty_bit(&sector));
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    assert!(has_dirty_bit(&sector));
    let short = tempfile::NamedTempFile::new().unwrap();
    assert!(is_dirty(short.as_file()).is_err());
    // A device that cannot be read only causes a log line.
    repair(short.path());
    repair(Path::new("/nonexistent/x"));
}

/// A power cut can leave a cluster chain that is longer or shorter than the size of its file.
#[test]
fn repairs_cluster_chains_and_sizes() {
    for sector_size in ["512", "4096"] {
        let Some(image) = Image::new("32", sector_size) else { return };
        repairs_cluster_chains_of(&image);
    }
}

fn repairs_cluster_chains_of(image: &Image) {
    let content = image.directory.path().join("content");
    std::fs::write(&content, vec![7; 100_000]).unwrap();
    for name in ["::LONG", "::SHORT"] {
        let mut copy = Command::new("mcopy");
        copy.arg("-i").arg(image.path()).arg(&content).arg(name);
        let Ok(output) = copy.output() else {
            assert!(std::env::var("CI").is_err(), "mcopy is needed for this test");
            eprintln!("SKIPPED: mcopy is not installed");
            return;
        };
        assert!(output.status.success(), "{output:?}");
    }
    let mut bytes = std::fs::read(image.path()).unwrap();
    for (name, size) in [(b"LONG       ", 3_000_u32), (b"SHORT      ", 200_000)] {
        let entry = bytes.windows(11).position(|window| window == name).unwrap();
        bytes[entry + 28..entry + 32].copy_from_slice(&size.to_le_bytes());
    }
    bytes[0x41] |= 1;
    std::fs::write(image.path(), bytes).unwrap();
    let (code, output) = image.check();
    assert!(code == Some(1) && output.contains("cluster chain length"), "{output}");
    run(&program(), &image.path(), TIMEOUT);
    assert_eq!(image.check().0, Some(0));
}

#[test]
fn ends_a_program_that_hangs() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    std::fs::write(&program, "#!/bin/sh\necho \"$@\" >\"$0.args\"\nexec sleep 600\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, executable).unwrap();
    let start = Instant::now();
    run(program.to_str().unwrap(), Path::new("x"), Duration::from_secs(1));
    assert!(start.elapsed() < Duration::from_secs(60));
    let arguments = std::fs::read_to_string(directory.path().join("program.args")).unwrap();
    assert_eq!(arguments, "-a x\n");
    run("/nonexistent/fsck.vfat", Path::new("x"), TIMEOUT);
}
