use super::*;

#[test]
fn a_uuid_stays_in_its_folder() {
    assert_eq!(fat_uuid("ab12-cd34").unwrap(), "AB12-CD34");
    for bad in ["", "..", "../x", "ABCD1234", "ABCD-123/", "ABCDE-123"] {
        assert!(fat_uuid(bad).is_err(), "{bad}");
    }
}

#[test]
fn there_is_one_writer_and_readers_do_not_mind() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::new("/nonexistent");
    let open = |access| Esp::open(&host, Some(folder.path()), access);
    let write = Access::Write { wait: Duration::ZERO };
    let first = open(write).unwrap();
    assert!(matches!(open(write), Err(EspError::Busy(_))));
    assert!(open(Access::Read).is_ok());
    drop(first);
    assert!(open(write).is_ok());
}

#[test]
fn a_host_that_was_not_booted_from_one_has_none() {
    let host = Host::new("/nonexistent");
    assert!(Esp::open(&host, None, Access::Read).unwrap().is_none());
}

/// By hand, as root: `cargo test -p updater -- --ignored`. Not vfat, which build hosts may lack;
/// what is shown here is not vfat's.
#[test]
#[ignore = "needs root, a loop device and mkfs.ext4"]
fn readers_and_a_writer_share_a_disk_and_leave_nothing_behind() {
    let run = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let image = image.to_str().unwrap();
    run("mkfs.ext4", &["-q", image]);
    let device = run("losetup", &["--find", "--show", image]);
    let (device_path, targets) = (Path::new(&device), folder.path());
    let open = move |name: &str, access| {
        mount(device_path, &targets.join(name), &["vfat", "ext4"], access)
    };
    let write = Access::Write { wait: Duration::ZERO };
    let (go, gone) = std::sync::mpsc::channel();
    // Each from here: a thread begins with the mounts of the one that starts it.
    std::thread::scope(|scope| {
        let both = scope.spawn(|| {
            let writer = open("writer", write).unwrap();
            std::fs::write(writer.path("x"), "1").unwrap();
            let joined = open("reader", Access::Read).unwrap();
            assert_eq!(std::fs::read(joined.path("x")).unwrap(), b"1");
        });
        both.join().unwrap();
        let reader = scope.spawn(move || {
            let reader = open("reader", Access::Read).unwrap();
            assert!(std::fs::write(reader.path("y"), "1").is_err());
            gone.recv().unwrap();
        });
        std::thread::sleep(Duration::from_secs(1));
        // Forgotten, not dropped: the end of its thread unmounts it.
        let waits = scope.spawn(|| std::mem::forget(open("waiter", write).unwrap()));
        std::thread::sleep(Duration::from_secs(1));
        assert!(!waits.is_finished());
        go.send(()).unwrap();
        reader.join().unwrap();
        waits.join().unwrap();
    });
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    run("losetup", &["--detach", &device]);
    assert!(!mounts.contains(folder.path().to_str().unwrap()), "{mounts}");
}
