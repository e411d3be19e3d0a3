use super::*;

#[test]
fn accepts_only_fat_uuids() {
    assert_eq!(fat_uuid("ab12-cd34").unwrap(), "AB12-CD34");
    for bad in ["", "..", "../x", "ABCD1234", "ABCD-123/", "ABCDE-123"] {
        assert!(fat_uuid(bad).is_err(), "{bad}");
    }
}

#[test]
fn locks_out_other_writers_but_not_readers() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::new("/nonexistent");
    let open = |access| Esp::open(&host, Some(directory.path()), access);
    let write = Access::Write { wait: Duration::ZERO };
    let first = open(write).unwrap();
    assert!(matches!(open(write), Err(EspError::Busy(_))));
    assert!(open(Access::Read).is_ok());
    drop(first);
    // A child process that another test has just forked holds the lock until its exec.
    assert!(open(Access::Write { wait: Duration::from_secs(60) }).is_ok());
}

#[test]
fn finds_no_esp_if_the_host_was_not_booted_from_one() {
    let host = Host::new("/nonexistent");
    assert!(Esp::open(&host, None, Access::Read).unwrap().is_none());
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A loop device with an image of this type, detached when dropped.
struct Device {
    directory: tempfile::TempDir,
    path: PathBuf,
}

impl Device {
    fn new(mkfs: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        File::create(&image).unwrap().set_len(40 << 20).unwrap();
        let image = image.to_str().unwrap();
        run(mkfs[0], &[&mkfs[1..], &[image]].concat());
        let path = run("losetup", &["--find", "--show", image]).into();
        Self { directory, path }
    }

    fn open(&self, name: &str, access: Access) -> Result<Volume, EspError> {
        let (target, types) = (self.directory.path().join(name), ["vfat", "ext4"]);
        mount(&self.path, &target, &types, access, Duration::from_secs(20))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        run("losetup", &["--detach", self.path.to_str().unwrap()]);
    }
}

const WRITE: Access = Access::Write { wait: Duration::ZERO };

/// Run it as root with `cargo test -p updater -- --ignored`. It uses ext4, because build hosts may lack
/// vfat, and the result does not depend on the file system.
#[test]
#[ignore = "needs root, a loop device and mkfs.ext4"]
fn mounts_for_readers_and_one_writer_and_unmounts_all() {
    let device = Device::new(&["mkfs.ext4", "-q"]);
    let (release, released) = std::sync::mpsc::channel();
    // All threads are started here, because a thread inherits the mounts of the one that starts it.
    std::thread::scope(|scope| {
        let both = scope.spawn(|| {
            let writer = device.open("writer", WRITE).unwrap();
            std::fs::write(writer.path("x"), "1").unwrap();
            let reader = device.open("reader", Access::Read).unwrap();
            assert_eq!(std::fs::read(reader.path("x")).unwrap(), b"1");
        });
        both.join().unwrap();
        let device = &device;
        let reader = scope.spawn(move || {
            let reader = device.open("reader", Access::Read).unwrap();
            assert!(std::fs::write(reader.path("y"), "1").is_err());
            released.recv().unwrap();
        });
        std::thread::sleep(Duration::from_secs(1));
        // The volume is leaked, so that only the end of its thread unmounts it.
        let waiting = scope.spawn(move || std::mem::forget(device.open("waiter", WRITE).unwrap()));
        std::thread::sleep(Duration::from_secs(1));
        assert!(!waiting.is_finished());
        release.send(()).unwrap();
        reader.join().unwrap();
        waiting.join().unwrap();
    });
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(device.directory.path().to_str().unwrap()), "{mounts}");
}

#[test]
#[ignore = "needs root, a loop device and mkfs.ext4"]
fn a_reader_blocks_a_writer_in_the_same_thread() {
    let device = Device::new(&["mkfs.ext4", "-q"]);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let reader = device.open("reader", Access::Read).unwrap();
            let target = device.directory.path().join("writer");
            let soon = Duration::from_millis(300);
            let error = mount(&device.path, &target, &["ext4"], WRITE, soon).unwrap_err();
            let EspError::Io { error: cause, .. } = &error else { panic!("{error}") };
            assert_eq!(cause.raw_os_error(), Some(Errno::EBUSY as i32), "{error}");
            drop(reader);
            let writer = device.open("writer", WRITE).unwrap();
            std::fs::write(writer.path("x"), "1").unwrap();
        });
        thread.join().unwrap();
    });
}

impl Device {
    /// Writes a file grubenv, and the boot sector of a FAT32 with the volume ID 0123-ABCD, which the ext4 that
    /// begins at 1024 bytes does not use.
    fn with_grubenv(lines: &str) -> Self {
        use std::os::unix::fs::FileExt;
        let device = Self::new(&["mkfs.ext4", "-q"]);
        let mut sector = [0; 512];
        sector[0x43..0x47].copy_from_slice(&[0xcd, 0xab, 0x23, 0x01]);
        sector[0x52..0x57].copy_from_slice(b"FAT32");
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        File::options().write(true).open(&device.path).unwrap().write_all_at(&sector, 0).unwrap();
        std::thread::scope(|scope| {
            let write = scope.spawn(|| {
                let volume = device.open("new", WRITE).unwrap();
                std::fs::create_dir(volume.path("etchaos")).unwrap();
                let text = format!("# GRUB Environment Block\n{lines}");
                std::fs::write(volume.path(GRUBENV), text).unwrap();
            });
            write.join().unwrap();
        });
        device
    }

    fn content(&self) -> Vec<u8> {
        run("sync", &[]);
        std::fs::read(self.directory.path().join("image")).unwrap()
    }
}

/// Searches for the disk among devices with these names, whose attributes are in a directory tree.
fn search(devices: &[(&str, &Device)], arguments: &str) -> Result<PathBuf, BootDiskError> {
    let directory = tempfile::tempdir().unwrap();
    let write = |path: String, text: &str| {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("proc/cmdline".into(), &format!("etchaos.slot=a {arguments}\n"));
    write("proc/uptime".into(), "1000.00 1.00\n");
    for (name, device) in devices {
        write(format!("sys/class/block/{name}/dev"), "7:1\n");
        write(format!("sys/class/block/{name}/size"), "81920\n");
        std::fs::create_dir_all(directory.path().join("dev")).unwrap();
        let node = directory.path().join("dev").join(name);
        std::os::unix::fs::symlink(&device.path, node).unwrap();
    }
    let (host, run_directory) = (Host::new(directory.path()), directory.path().join("run"));
    std::fs::create_dir(&run_directory).unwrap();
    let target = run_directory.join("candidate");
    let read_grubenv = |device: &Path| inspect(device.to_owned(), target.clone(), &["ext4"]);
    let found = Search {
        host: &host,
        uuid: "0123-ABCD",
        run_directory: &run_directory,
        read_grubenv: &read_grubenv,
    }
    .run()?;
    Ok(found.node.canonicalize().unwrap())
}

#[test]
#[ignore = "needs root, a loop device and mkfs.ext4"]
fn finds_the_disk_that_was_booted_and_writes_to_none() {
    let tag = "etchaos_disk=0000000000000007\n";
    let booted = Device::with_grubenv(&format!("{tag}etchaos_boots=2\n"));
    let copy = Device::with_grubenv(&format!("{tag}etchaos_boots=0\n"));
    let before = [booted.content(), copy.content()];
    let arguments = "etchaos.boots=2 etchaos.disk=0000000000000007";
    for devices in [[("vda", &booted), ("vdb", &copy)], [("vda", &copy), ("vdb", &booted)]] {
        assert_eq!(search(&devices, arguments).unwrap(), booted.path);
    }
    assert!(search(&[("vda", &copy), ("vdb", &copy)], arguments).is_err());
    assert!([booted.content(), copy.content()] == before, "a search has written to a disk");
    // A disk that another process has mounted for writing cannot be read, and is not left out: the copy is not
    // taken for it.
    std::thread::scope(|scope| {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let booted = &booted;
        scope.spawn(move || {
            let volume = booted.open("writer", WRITE).unwrap();
            ready.send(()).unwrap();
            let _ = released.recv();
            drop(volume);
        });
        is_ready.recv().unwrap();
        let error = search(&[("vda", &copy), ("vdb", booted)], arguments).unwrap_err();
        assert!(error.to_string().contains("one of 2 disks"), "{error}");
        drop(release);
    });
}

/// A volume that is in use may be dirty only because a program is writing to it.
#[test]
#[ignore = "needs root, a loop device, mkfs.vfat and fsck.vfat"]
fn repairs_a_volume_only_if_it_is_not_in_use() {
    use std::os::unix::fs::{FileExt, OpenOptionsExt};
    let device = Device::new(&["mkfs.vfat", "-F", "32"]);
    let mut options = std::fs::OpenOptions::new();
    let device_file = options.read(true).write(true).open(&device.path).unwrap();
    device_file.write_all_at(&[1], 0x41).unwrap();
    let dirty_bit = || {
        let mut byte = [0];
        File::open(&device.path).unwrap().read_exact_at(&mut byte, 0x41).unwrap();
        byte[0]
    };
    let exclusive = nix::fcntl::OFlag::O_EXCL.bits();
    let other = File::options().read(true).custom_flags(exclusive).open(&device.path).unwrap();
    fsck::repair(&device.path);
    assert_eq!(dirty_bit(), 1);
    drop(other);
    fsck::repair(&device.path);
    assert_eq!(dirty_bit(), 0);
}
