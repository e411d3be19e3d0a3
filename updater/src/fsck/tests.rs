use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

struct Image {
    directory: TempDir,
}

impl Image {
    /// A FAT image, or a loud skip.
    fn new(bits: &str) -> Option<Self> {
        let image = Self { directory: tempfile::tempdir().unwrap() };
        File::create(image.path()).unwrap().set_len(40 << 20).unwrap();
        let mut mkfs = Command::new("mkfs.vfat");
        let mkfs = mkfs.args(["-F", bits]).arg(image.path()).env("PATH", path()).output();
        match mkfs {
            Ok(output) => assert!(output.status.success(), "{output:?}"),
            Err(_) => {
                assert!(std::env::var("CI").is_err(), "mkfs.vfat is needed for this test");
                eprintln!("SKIPPED: there is no mkfs.vfat");
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

    /// What the independent judge says: its exit code and its words.
    fn judged(&self) -> (Option<i32>, String) {
        let judge = Command::new(program()).arg("-n").arg(self.path()).output().unwrap();
        (judge.status.code(), String::from_utf8_lossy(&judge.stdout).into_owned())
    }
}

/// Where root's programs are, also for those who are not root.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

fn program() -> String {
    let directories = path();
    let mut found = directories.split(':').map(|directory| format!("{directory}/{PROGRAM}"));
    found.find(|path| Path::new(path).exists()).unwrap()
}

#[test]
fn the_mark_is_where_linux_sets_it() {
    for (bits, at) in [("32", 0x41), ("16", 0x25), ("12", 0x25)] {
        let Some(image) = Image::new(bits) else { return };
        assert!(!is_dirty(&image.file()).unwrap(), "FAT{bits}");
        image.file().write_all_at(&[1], at).unwrap();
        assert!(is_dirty(&image.file()).unwrap(), "FAT{bits}");
        // The judge looks at the same place.
        let (code, said) = image.judged();
        assert!(code == Some(1) && said.contains("Dirty bit is set"), "{said}");
        run(&program(), &image.path());
        assert!(!is_dirty(&image.file()).unwrap(), "FAT{bits}");
        assert_eq!(image.judged().0, Some(0), "FAT{bits}");
    }
}

#[test]
fn what_is_no_fat_has_no_mark() {
    assert!(!has_mark(&[0; SECTOR]));
    assert!(!has_mark(&[0xff; SECTOR]));
    let mut sector = [0; SECTOR];
    (sector[0x41], sector[12], sector[16]) = (1, 2, 2);
    assert!(!has_mark(&sector));
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    assert!(has_mark(&sector));
    let short = tempfile::NamedTempFile::new().unwrap();
    assert!(is_dirty(short.as_file()).is_err());
    // Whatever it is, nothing but a log line comes of it.
    repair(short.path());
    repair(Path::new("/nonexistent/x"));
}

/// The damage of a power cut: a chain that is longer than the file, and one that is shorter.
#[test]
fn chains_and_sizes_are_made_to_fit() {
    let Some(image) = Image::new("32") else { return };
    let content = image.directory.path().join("content");
    std::fs::write(&content, vec![7; 100_000]).unwrap();
    for name in ["::LONG", "::SHORT"] {
        let mut copy = Command::new("mcopy");
        copy.arg("-i").arg(image.path()).arg(&content).arg(name);
        let Ok(output) = copy.output() else {
            assert!(std::env::var("CI").is_err(), "mcopy is needed for this test");
            eprintln!("SKIPPED: there is no mcopy");
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
    let (code, said) = image.judged();
    assert!(code == Some(1) && said.contains("cluster chain length"), "{said}");
    run(&program(), &image.path());
    assert_eq!(image.judged().0, Some(0));
}

#[test]
fn what_a_program_says_is_bounded_and_so_is_its_time() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    let script = "#!/bin/sh\necho \"$1\"\nhead -c 1000000 /dev/zero | tr '\\0' x\nexit 3\n";
    std::fs::write(&program, script).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, executable).unwrap();
    let (code, said) = output(program.to_str().unwrap(), Path::new("x")).unwrap();
    assert_eq!((code, said.len() as u64), (Some(3), OUTPUT_MAX));
    assert!(said.starts_with("-a\nxxx"));
    let child = Command::new("sleep").arg("600").spawn().unwrap();
    assert_eq!(wait(child, Duration::from_millis(200)).unwrap(), None);
    run("/nonexistent/fsck.vfat", Path::new("x"));
}
