mod paths;

use std::fs;
use std::process::Command;

use protocol::grubenv::{BOOTS, DISK};

use super::*;

const UUID: &str = "0123-ABCD";

/// A host with disks, whose ESPs are images of mkfs.vfat, in a directory tree.
struct World {
    directory: tempfile::TempDir,
}

impl World {
    fn new(arguments: &str) -> Self {
        let world = Self { directory: tempfile::tempdir().unwrap() };
        world.write(
            "proc/cmdline",
            &format!("quiet etchaos.esp={UUID} etchaos.slot=a {arguments}\n"),
        );
        world.write("proc/uptime", "1000.00 1.00\n");
        world
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Attaches a disk with one partition, whose grubenv has these variables.
    fn attach(&self, disk: &str, number: u8, sequence: u8, block: &[(&str, &str)]) {
        let directory = format!("sys/devices/pci0000:00/block/{disk}");
        let partition = format!("{directory}/{disk}1");
        self.write(&format!("{directory}/diskseq"), &format!("{sequence}\n"));
        self.write(&format!("{directory}/serial"), &format!(" S-{disk}\u{7}\n"));
        self.write(&format!("{partition}/partition"), "1\n");
        self.write(&format!("{partition}/size"), "2048\n");
        self.write(&format!("{partition}/dev"), &format!("254:{number}\n"));
        self.write(&format!("{partition}/uevent"), &format!("MAJOR=254\nDEVNAME={disk}1\n"));
        let class = self.path("sys/class/block");
        fs::create_dir_all(&class).unwrap();
        std::os::unix::fs::symlink(self.path(&partition), class.join(format!("{disk}1"))).unwrap();
        self.format(&format!("dev/{disk}1"), UUID);
        let lines: Vec<String> =
            block.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.write(&format!("dev/{disk}1.grubenv"), &lines.join("\n"));
    }

    fn format(&self, path: &str, uuid: &str) {
        self.write(path, "");
        let image = fs::File::options().write(true).open(self.path(path)).unwrap();
        image.set_len(40 << 20).unwrap();
        let mut mkfs = Command::new("mkfs.vfat");
        mkfs.args(["-F", "32", "-i", &uuid.replace('-', "")]).arg(self.path(path));
        assert!(mkfs.output().unwrap().status.success());
    }

    fn detach(&self, disk: &str) {
        fs::remove_file(self.path("sys/class/block").join(format!("{disk}1"))).unwrap();
        fs::remove_dir_all(self.path("sys/devices/pci0000:00/block").join(disk)).unwrap();
    }

    /// Removes a file of a disk in sysfs, as if the driver did not know it.
    fn remove_attribute(&self, disk: &str, name: &str) {
        let directory = self.path("sys/devices/pci0000:00/block").join(disk);
        fs::remove_file(directory.join(name)).unwrap();
    }

    fn search<T>(&self, run: impl FnOnce(&Search<'_>) -> T) -> T {
        let host = Host::new(self.directory.path());
        fs::create_dir_all(self.path("run")).unwrap();
        let read_grubenv = |node: &Path| {
            let text = fs::read(node.with_extension("grubenv")).ok()?;
            Some([b"# GRUB Environment Block\n", &text[..], b"\n"].concat())
        };
        let run_directory = self.path("run");
        run(&Search {
            host: &host,
            uuid: UUID,
            run_directory: &run_directory,
            read_grubenv: &read_grubenv,
        })
    }

    /// Returns the name of the device that is found, and whether it needs a tag.
    fn found(&self) -> (String, bool) {
        let disk = self.search(|search| search.run()).unwrap();
        (disk.node.file_name().unwrap().to_str().unwrap().to_owned(), disk.needs_tag)
    }

    fn error(&self) -> String {
        self.search(|search| search.run()).unwrap_err().to_string()
    }
}

fn is_missing_mkfs() -> bool {
    let is_missing = Command::new("mkfs.vfat").arg("--help").output().is_err();
    assert!(!is_missing || std::env::var("CI").is_err(), "mkfs.vfat is needed for this test");
    if is_missing {
        eprintln!("SKIPPED: mkfs.vfat is not installed");
    }
    is_missing
}

#[test]
fn finds_a_disk_with_sectors_of_4096_bytes() {
    if is_missing_mkfs() {
        return;
    }
    let world = World::new("etchaos.boots=1");
    world.attach("vda", 1, 1, &[(BOOTS, "1")]);
    let mut mkfs = Command::new("mkfs.vfat");
    mkfs.args(["-F", "32", "-S", "4096", "-i", &UUID.replace('-', "")]);
    assert!(mkfs.arg(world.path("dev/vda1")).output().unwrap().status.success());
    assert_eq!(world.found(), ("vda1".to_owned(), true));
}

#[test]
fn finds_the_fresh_copy_that_was_booted_and_keeps_to_it() {
    if is_missing_mkfs() {
        return;
    }
    for (booted, other) in [("vda", "vdb"), ("vdb", "vda")] {
        let world = World::new("etchaos.boots=1");
        world.attach(booted, 1, 1, &[(BOOTS, "1")]);
        world.attach(other, 17, 2, &[(BOOTS, "0")]);
        assert_eq!(world.found(), (format!("{booted}1"), true));
        world.search(|search| search.record_tag(DiskTag(7))).unwrap();
        // The host has set the count to 0, and now both disks look the same.
        world
            .write(&format!("dev/{booted}1.grubenv"), &format!("{BOOTS}=0\n{DISK}={}", DiskTag(7)));
        assert_eq!(world.found(), (format!("{booted}1"), false));
        let link = fs::read_link(world.path("run/boot-disk")).unwrap();
        assert_eq!(link, world.path(&format!("dev/{booted}1")));
        // Its device gets another name, and its old name belongs to another disk.
        world.detach(booted);
        world.detach(other);
        world.attach(booted, 1, 3, &[(BOOTS, "0")]);
        world.attach("sda", 33, 4, &[(BOOTS, "0"), (DISK, "0000000000000007")]);
        world.write("sys/devices/pci0000:00/block/sda/serial", &format!("S-{booted}\n"));
        assert_eq!(world.found(), ("sda1".to_owned(), false));
        world.detach("sda");
        assert!(world.error().contains("is missing; found only "), "{}", world.error());
    }
}

#[test]
fn refuses_copies_that_look_the_same_and_names_both() {
    if is_missing_mkfs() {
        return;
    }
    for arguments in ["etchaos.boots=1 etchaos.disk=0000000000000007", ""] {
        let world = World::new(arguments);
        for (disk, number) in [("vda", 1), ("vdb", 17)] {
            world.attach(disk, number, number, &[(BOOTS, "1"), (DISK, "0000000000000007")]);
        }
        let error = world.error();
        for part in ["one of 2 disks", "/dev/vda1 (serial S-vda)", "/dev/vdb1 (serial S-vdb)"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(!world.path("run/disk.json").exists());
    }
}

/// GRUB reads more of a damaged grubenv than the updater, which repairs it later.
#[test]
fn finds_a_disk_whose_grubenv_is_damaged() {
    if is_missing_mkfs() {
        return;
    }
    for damage in ["\nno equals sign", "\n\\x=1", &"\n#".repeat(1000)] {
        let world = World::new("etchaos.boots=2 etchaos.disk=0000000000000007");
        world.attach("vda", 1, 1, &[(BOOTS, "2"), (DISK, "0000000000000007")]);
        let path = "dev/vda1.grubenv";
        let text = fs::read_to_string(world.path(path)).unwrap();
        world.write(path, &format!("{text}{damage}"));
        assert_eq!(world.found(), ("vda1".to_owned(), false), "{damage:?}");
    }
}

#[test]
fn names_disks_by_the_serial_number_that_their_driver_knows() {
    if is_missing_mkfs() {
        return;
    }
    let usb = ("../usb1/serial", "../usb1/idVendor");
    for (files, device, serial) in [
        (&["device/serial"][..], "nvme0", "serial 7, at"),
        (&["device/wwid"], "x", "serial 7, at"),
        (&["wwid"], "x", "serial 7, at"),
        (&[usb.0, usb.1, "device/wwid"], "usb1/1-1/host6", "serial 7, at pci0000:00/block/usb1"),
    ] {
        let world = World::new("");
        world.attach("vda", 1, 1, &[]);
        world.attach("sda", 2, 2, &[]);
        let disk = "sys/devices/pci0000:00/block/sda";
        fs::remove_file(world.path(disk).join("serial")).unwrap();
        let target = world.path(disk).parent().unwrap().join(device);
        fs::create_dir_all(&target).unwrap();
        std::os::unix::fs::symlink(target, world.path(disk).join("device")).unwrap();
        for file in files {
            let is_wwid = files.len() == 3 && file.ends_with("wwid");
            world.write(&format!("{disk}/{file}"), if is_wwid { "8\n" } else { "7\n" });
        }
        assert!(world.error().contains(serial), "{files:?}: {}", world.error());
    }
}

#[test]
fn ignores_devices_that_grub_cannot_have_booted() {
    if is_missing_mkfs() {
        return;
    }
    let world = World::new("");
    for (disk, number) in [("vda", 1), ("loop0", 2), ("sda", 3), ("sdb", 4), ("sdc", 5), ("sdd", 6)]
    {
        world.attach(disk, number, number, &[]);
    }
    let disks = "sys/devices/pci0000:00/block";
    world.write(&format!("{disks}/loop0/loop/backing_file"), "/x\n");
    world.write(&format!("{disks}/sda/holders/dm-0/dev"), "253:0\n");
    world.write(&format!("{disks}/sdb/sdb1/holders/md0/dev"), "9:0\n");
    world.write(&format!("{disks}/sdc/sdc1/size"), "0\n");
    world.format("dev/sdd1", "0123-ABCE");
    world.write("sys/class/block/sde1/dev", "8:65\n");
    world.write("sys/class/block/sde1/size", "2048\n");
    assert_eq!(world.found(), ("vda1".to_owned(), false));
}

#[test]
fn waits_for_the_disk_that_was_booted() {
    if is_missing_mkfs() {
        return;
    }
    let world = World::new("etchaos.boots=2 etchaos.disk=0000000000000007");
    world.attach("vda", 1, 1, &[(BOOTS, "2")]);
    std::thread::scope(|scope| {
        let search = scope.spawn(|| world.found());
        std::thread::sleep(Duration::from_millis(500));
        assert!(!search.is_finished());
        world.attach("vdb", 2, 2, &[(BOOTS, "2"), (DISK, "0000000000000007")]);
        assert_eq!(search.join().unwrap(), ("vdb1".to_owned(), false));
    });
}

#[test]
fn uses_the_only_disk_although_it_does_not_store_the_count() {
    if is_missing_mkfs() {
        return;
    }
    for arguments in ["etchaos.boots=1", "etchaos.boots=1 etchaos.disk=0000000000000007"] {
        let world = World::new(arguments);
        let tag = arguments.ends_with('7').then_some((DISK, "0000000000000007"));
        world.attach("vda", 1, 1, tag.as_slice());
        assert_eq!(world.found(), ("vda1".to_owned(), false));
        // It may be a copy of a disk for which Linux has no driver, so it is only read, also by the next command.
        let since = Instant::now();
        for _ in 0..2 {
            assert!(!world.search(|search| search.run()).unwrap().is_proven);
        }
        assert!(since.elapsed() < TIMEOUT, "the commands wait {:?}", since.elapsed());
        // The disk that was booted appears after all.
        world.attach(
            "vdb",
            17,
            2,
            &[(BOOTS, "1"), (DISK, "0000000000000007")][..tag.map_or(1, |_| 2)],
        );
        assert!(world.search(|search| search.run()).unwrap().is_proven);
        assert_eq!(world.found().0, "vdb1");
    }
    let none = World::new("etchaos.boots=1");
    assert!(none.error().contains("no disk has a FAT file system with the UUID 0123-ABCD"));
}

/// A copy that was made of the disk while it was in use has its tag, but not its serial number.
#[test]
fn does_not_mistake_a_copy_for_the_removed_disk() {
    if is_missing_mkfs() {
        return;
    }
    let world = World::new("etchaos.boots=1 etchaos.disk=0000000000000007");
    let block = [(BOOTS, "0"), (DISK, "0000000000000007")];
    world.attach("sda", 1, 1, &[(BOOTS, "1"), block[1]]);
    assert_eq!(world.found(), ("sda1".to_owned(), false));
    world.attach("sdb", 17, 2, &block);
    world.detach("sda");
    assert!(world.error().contains("is missing; found only "), "{}", world.error());
    // The disk itself is attached again and has another name.
    world.attach("sdc", 33, 3, &block);
    world.write("sys/devices/pci0000:00/block/sdc/serial", "S-sda\n");
    // The copy has the same tag.
    assert_eq!(world.found(), ("sdc1".to_owned(), true));
}

/// Without serial numbers, a copy with the same tag looks like the disk itself.
#[test]
fn does_not_mistake_a_copy_for_a_removed_disk_without_a_serial_number() {
    if is_missing_mkfs() {
        return;
    }
    let world = World::new("etchaos.boots=1 etchaos.disk=0000000000000007");
    let tag = (DISK, "0000000000000007");
    for (disk, number, boots) in [("sda", 1, "1"), ("sdb", 17, "0")] {
        world.attach(disk, number, number, &[(BOOTS, boots), tag]);
        world.remove_attribute(disk, "serial");
    }
    assert_eq!(world.found().0, "sda1");
    world.detach("sda");
    assert!(world.error().contains("is missing; found only "), "{}", world.error());
}

/// An older grub.cfg passes neither a tag nor a count.
#[test]
fn does_not_mistake_a_copy_for_a_removed_disk_without_a_tag() {
    if is_missing_mkfs() {
        return;
    }
    let world = World::new("");
    world.attach("sda", 1, 1, &[]);
    assert_eq!(world.found(), ("sda1".to_owned(), false));
    world.attach("sdb", 17, 2, &[]);
    world.detach("sda");
    assert!(world.error().contains("is missing; found only "), "{}", world.error());
    // The disk itself is attached again and has another name.
    world.attach("sdc", 33, 3, &[]);
    world.write("sys/devices/pci0000:00/block/sdc/serial", "S-sda\n");
    assert_eq!(world.found(), ("sdc1".to_owned(), false));
}

/// Linux before 5.15 has no sequence numbers, and gives the name and number of a removed disk to the next one.
#[test]
fn recognises_another_disk_with_the_same_name_without_a_sequence_number() {
    if is_missing_mkfs() {
        return;
    }
    let world = World::new("etchaos.boots=1");
    world.attach("sda", 1, 1, &[(BOOTS, "1")]);
    world.remove_attribute("sda", "diskseq");
    assert_eq!(world.found(), ("sda1".to_owned(), true));
    let old = world.path("sys/devices/pci0000:00/old");
    fs::rename(world.path("sys/devices/pci0000:00/block/sda"), old).unwrap();
    fs::remove_file(world.path("sys/class/block/sda1")).unwrap();
    world.attach("sda", 1, 2, &[(BOOTS, "0")]);
    world.remove_attribute("sda", "diskseq");
    assert!(world.error().contains("is missing; found only "), "{}", world.error());
}

#[test]
fn finds_the_disk_although_it_cannot_be_recorded() {
    if is_missing_mkfs() {
        return;
    }
    let world = World::new("etchaos.boots=1");
    world.attach("vda", 1, 1, &[(BOOTS, "1")]);
    fs::create_dir_all(world.path("run/disk.json/x")).unwrap();
    assert_eq!(world.found(), ("vda1".to_owned(), true));
}

/// Two copies are there before the disk that was booted.
#[test]
fn waits_for_the_disk_that_was_booted_although_copies_are_there() {
    if is_missing_mkfs() {
        return;
    }
    let world = World::new("etchaos.boots=2 etchaos.disk=0000000000000007");
    let tag = (DISK, "0000000000000007");
    world.attach("vda", 1, 1, &[(BOOTS, "0"), tag]);
    world.attach("vdb", 2, 2, &[(BOOTS, "1"), tag]);
    std::thread::scope(|scope| {
        let search = scope.spawn(|| world.found());
        std::thread::sleep(Duration::from_millis(500));
        world.attach("vdc", 3, 3, &[(BOOTS, "2"), tag]);
        assert_eq!(search.join().unwrap(), ("vdc1".to_owned(), true));
    });
}
