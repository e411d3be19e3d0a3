//! Disks that are reached by two paths, and disks that look like them.

use super::*;

/// Without multipathd, Linux shows a disk that is reached by two paths as two disks.
#[test]
fn counts_two_paths_to_a_disk_as_one_disk() {
    if is_missing_mkfs() {
        return;
    }
    let block = [(BOOTS, "1"), (DISK, "0000000000000007")];
    let with_wwids = |arguments: &str, wwids: [&str; 2], starts: [&str; 2], boots: &str| {
        let world = World::new(arguments);
        for (index, disk) in ["sda", "sdb"].into_iter().enumerate() {
            let other = [(BOOTS, boots), block[1]];
            let number = 1 + 16 * u8::try_from(index).unwrap();
            world.attach(disk, number, number, if index == 0 { &block } else { &other });
            let directory = format!("sys/devices/pci0000:00/block/{disk}");
            world.write(&format!("{directory}/device/wwid"), &format!("{}\n", wwids[index]));
            world.write(&format!("{directory}/{disk}1/start"), &format!("{}\n", starts[index]));
        }
        world
    };
    let told = "etchaos.boots=1 etchaos.disk=0000000000000007";
    let (naa, start) = ("naa.600140512345678", "2048");
    for arguments in [told, ""] {
        let world = with_wwids(arguments, [naa, naa], [start, start], "1");
        assert_eq!(world.found(), ("sda1".to_owned(), false), "{arguments}");
    }
    // One path fails later.
    let world = with_wwids(told, [naa, naa], [start, start], "1");
    for disk in ["sda", "sdb"] {
        world.remove_attribute(disk, "serial");
    }
    assert_eq!(world.found(), ("sda1".to_owned(), false));
    world.detach("sda");
    assert_eq!(world.found(), ("sdb1".to_owned(), false));
    for (wwids, starts, boots) in [
        // Copies on other disks, and in another partition.
        ([naa, "naa.600140512345679"], [start, start], "1"),
        ([naa, naa], [start, "4096"], "1"),
        // An identifier that was made of a serial number is not unique.
        (["t10.ATA QEMU HARDDISK QM00001"; 2], [start, start], "1"),
        (["", ""], [start, start], "1"),
    ] {
        let error = with_wwids(told, wwids, starts, boots).error();
        assert!(error.contains("one of 2 disks"), "{wwids:?} {starts:?}: {error}");
    }
    // Two disks that claim the same identifier, such as copied virtual disks, have another content.
    let world = with_wwids("", [naa, naa], [start, start], "2");
    assert!(world.error().contains("one of 2 disks"), "{}", world.error());
}

/// Some USB bridges report the same identifier for every disk, and none has a second path.
#[test]
fn does_not_count_two_usb_disks_with_the_same_identifier_as_one() {
    if is_missing_mkfs() {
        return;
    }
    let world = World::new("etchaos.boots=1");
    for (disk, number) in [("sda", 1), ("sdb", 17)] {
        world.attach(disk, number, number, &[(BOOTS, "1")]);
        let directory = format!("sys/devices/pci0000:00/block/{disk}");
        world.write(&format!("{directory}/idVendor"), "1234\n");
        world.write(&format!("{directory}/device/wwid"), "naa.5000000000000001\n");
        world.write(&format!("{directory}/{disk}1/start"), "2048\n");
    }
    assert!(world.error().contains("one of 2 disks"), "{}", world.error());
}
