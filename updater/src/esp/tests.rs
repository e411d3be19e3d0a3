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
