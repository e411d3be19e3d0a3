//! What a host never overwrites.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};

use super::machine::{DATA_START, MIB, Machine, SIZE, is_done_in_namespace, run};

#[test]
fn refuses_named_disks_that_are_not_empty() {
    if is_done_in_namespace("data::refuse::refuses_named_disks_that_are_not_empty") {
        return;
    }
    let machine = Machine::new(Value::Null);
    let disk = machine.attach("data.raw", SIZE);
    type Fill = fn(&str);
    let contents: [(&str, Fill); 6] = [
        ("ext4", |node| drop(run("mkfs.ext4", &["-q", "-F", node, "200M"]))),
        ("swap", |node| drop(run("mkswap", &[node]))),
        ("btrfs", |node| drop(run("mkfs.btrfs", &["-q", "-f", node]))),
        ("a partition table", |node| drop(run("sgdisk", &["--new=1:0:0", node]))),
        ("dos", |node| {
            drop(run("sh", &["-c", "echo , | sfdisk -q --no-reread --label dos \"$0\"", node]))
        }),
        ("data of an unknown format", |node| {
            let output = format!("of={node}");
            drop(run("dd", &["if=/dev/urandom", &output, "bs=1M", "count=1", "conv=fsync"]))
        }),
    ];
    machine.configure(json!({"disk": disk.node}));
    for (name, fill) in contents {
        fill(&disk.node);
        let digest = disk.digest();
        machine.assert_refused(&format!("is not empty ({name}"));
        assert_eq!(disk.digest(), digest, "{name}");
        let _ = std::process::Command::new("partx").args(["--delete", &disk.node]).output();
        run("wipefs", &["--all", "--force", "--quiet", &disk.node]);
        disk.write(0, &vec![0; MIB as usize]);
    }
    // A partition of which the table is lost.
    run("mkfs.ext4", &["-q", "-F", "-E", "offset=1048576", &disk.node, "200M"]);
    let digest = disk.digest();
    machine.assert_refused("has ext4 at byte 1048576");
    assert_eq!(disk.digest(), digest);
    disk.write(MIB, &vec![0; MIB as usize]);
    machine.configure(json!({"disk": "/dev/disk/by-id/none"}));
    machine.assert_refused("which does not exist");
    machine.configure(json!({"disk": machine.booted.partition(2)}));
    machine.assert_refused("which is not a whole disk");
    machine.configure(json!({"disk": machine.booted.node}));
    machine.assert_refused("is not empty (a partition table)");
    machine.configure(json!({"disk": disk.node}));
    machine.start().ended(0);
}

#[test]
fn refuses_free_space_with_data_of_an_earlier_installation() {
    if is_done_in_namespace("data::refuse::refuses_free_space_with_data_of_an_earlier_installation")
    {
        return;
    }
    let machine = Machine::new(json!({}));
    let image = fs::read(&machine.booted.file).unwrap()[..DATA_START as usize].to_vec();
    machine.start().ended(0);
    fs::write(machine.var("lib/docker/file"), "x").unwrap();
    machine.stop();
    // The image is written to the disk again, with its backup table at the end of the image.
    machine.booted.write(0, &image);
    run("partx", &["--delete", "--nr", "3", &machine.booted.node]);
    let digest = machine.booted.digest();
    machine.assert_refused(&format!("lists a data partition from byte {DATA_START} to"));
    assert_eq!(machine.booted.digest(), digest);
    // Somebody repairs the end of the disk, but the file system is still there.
    machine.change_table(&["--move-second-header"]);
    let digest = machine.booted.digest();
    machine.assert_refused(&format!("has ext4 at byte {DATA_START}"));
    assert_eq!(machine.booted.digest(), digest);
    // What docs/operators.md says about getting the data back.
    let start = (DATA_START / 512).to_string();
    let arguments = [
        format!("--new=3:{start}:0"),
        "--typecode=3:7c3d1a4e-95f2-4b0c-8d6a-e7c4a05d11d8".to_owned(),
        "--change-name=3:etchaos-data".to_owned(),
    ];
    let [new, kind, name] = arguments.each_ref().map(String::as_str);
    machine.change_table(&[new, kind, name]);
    machine.start().ended(0);
    assert!(machine.var("lib/docker/file").exists());
}

#[test]
fn refuses_free_space_with_data_behind_a_smaller_image() {
    if is_done_in_namespace("data::refuse::refuses_free_space_with_data_behind_a_smaller_image") {
        return;
    }
    for file_system in ["ext4", "xfs", "btrfs"] {
        let machine = Machine::new(json!({"fileSystem": file_system}));
        let offset = DATA_START + 37 * MIB;
        let file = machine.world.path("file-system.raw");
        File::create(&file).unwrap().set_len(400 * MIB).unwrap();
        run(&format!("mkfs.{file_system}"), &["-q", file.to_str().unwrap()]);
        machine.booted.write(offset, &fs::read(&file).unwrap()[..MIB as usize]);
        let digest = machine.booted.digest();
        machine.assert_refused(&format!("has {file_system} at byte {offset}"));
        assert_eq!(machine.booted.digest(), digest);
        // Random data may have the magic number of ext4, which has two bytes.
        machine.booted.write(offset, &[0x53, 0xef].repeat(MIB as usize / 2));
        machine.start().ended(0);
    }
}

#[test]
fn never_formats_a_partition_again() {
    if is_done_in_namespace("data::refuse::never_formats_a_partition_again") {
        return;
    }
    let machine = Machine::new(json!({}));
    machine.start().ended(0);
    machine.stop();
    let partition = machine.booted.partition(3);
    // A part of the superblock and its first copies, so that fsck cannot repair it without a decision.
    let saved = {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; 4 * MIB as usize];
        File::open(&partition).unwrap().read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    machine.booted.write(DATA_START + 4096, &vec![0xa5; 3 * MIB as usize]);
    machine.assert_refused("is damaged and cannot be repaired without a decision");
    run("wipefs", &["--all", "--quiet", &partition]);
    machine.assert_refused("has no file system although it had one before");
    run("mkswap", &[&partition]);
    machine.assert_refused("has swap, expected ext4, xfs or btrfs");
    // The host still updates.
    machine.world.publish(2);
    machine.world.run(&["update", "--no-reboot"]).ended(0);
    machine.booted.write(DATA_START, &saved);
    machine.start().ended(0);
    assert!(!machine.is_docker_stopped());
}

#[test]
fn refuses_a_disk_without_room_and_several_partitions() {
    if is_done_in_namespace("data::refuse::refuses_a_disk_without_room_and_several_partitions") {
        return;
    }
    let machine = Machine::new(json!({}));
    machine.change_table(&["--move-second-header", "--new=4:0:+900M"]);
    let digest = machine.booted.digest();
    machine.assert_refused("systemd-repart");
    assert_eq!(machine.booted.digest(), digest);
    let kind = "7c3d1a4e-95f2-4b0c-8d6a-e7c4a05d11d8";
    let [four, five] = [4, 5].map(|number| format!("--typecode={number}:{kind}"));
    machine.change_table(&["--new=5:0:+10M", &four, &five]);
    machine.assert_refused("has 2 data partitions, expected one");
}

/// An image need not have the programs of all file systems, nor those for encryption.
#[test]
fn creates_nothing_if_a_program_is_missing() {
    if is_done_in_namespace("data::refuse::creates_nothing_if_a_program_is_missing") {
        return;
    }
    let machine = Machine::new(Value::Null);
    let digest = machine.booted.digest();
    let all = machine.world.path("programs");
    for (settings, program) in [
        (json!({}), "systemd-repart"),
        (json!({}), "wipefs"),
        (json!({}), "fsck.ext4"),
        (json!({"fileSystem": "btrfs"}), "mkfs.btrfs"),
        (json!({"encrypt": "tpm"}), "systemd-cryptenroll"),
    ] {
        machine.configure(settings);
        link_programs_except(&all, program);
        let mut command = machine.world.command(&["data"]);
        let output = command.env("PATH", &all).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        let expected = "needs programs that this image does not have (";
        assert!(text.contains(expected) && text.contains(program), "{program}: {text}");
        assert!(machine.is_docker_stopped());
        assert_eq!(machine.booted.digest(), digest, "{program}");
    }
    // A partition that exists is used without the programs that only create one.
    machine.configure(json!({}));
    machine.start().ended(0);
    machine.stop();
    link_programs_except(&all, "systemd-repart");
    let output = machine.world.command(&["data"]).env("PATH", &all).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Makes a directory with links to all programs in PATH but one.
fn link_programs_except(directory: &Path, missing: &str) {
    let _ = fs::remove_dir_all(directory);
    fs::create_dir(directory).unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let directories = std::env::split_paths(&path).filter_map(|path| fs::read_dir(path).ok());
    for file in directories.flatten().flatten().filter(|file| file.file_name() != missing) {
        // The first directory of PATH that has a program counts.
        let _ = symlink(file.path(), directory.join(file.file_name()));
    }
}

#[test]
fn does_not_start_docker_if_a_broken_source_mentions_data() {
    if is_done_in_namespace("data::refuse::does_not_start_docker_if_a_broken_source_mentions_data")
    {
        return;
    }
    let machine = Machine::new(json!({}));
    let digest = machine.booted.digest();
    for text in [r#"{"data": {"disk": 7}}"#, r#"{"data": {"#, r#"{"data": {"paths": ["/etc"]}}"#] {
        machine.world.write("esp/etchaos/config.json", text);
        machine.assert_refused("`data` from ESP etchaos/config.json cannot be read");
    }
    assert_eq!(machine.booted.digest(), digest);
    // The member is valid, although the source is not.
    machine.world.write("esp/etchaos/config.json", r#"{"data": {}, "rateLimit": "x"}"#);
    machine.start().ended(0);
    assert!(machine.is_mounted("lib/docker"));
}

#[test]
fn follows_no_links_of_the_data_partition() {
    if is_done_in_namespace("data::refuse::follows_no_links_of_the_data_partition") {
        return;
    }
    let machine = Machine::new(json!({}));
    machine.start().ended(0);
    let docker = machine.var("lib/etchaos/data/docker");
    run("umount", &[machine.var("lib/docker").to_str().unwrap()]);
    fs::remove_dir(&docker).unwrap();
    std::os::unix::fs::symlink("/etc", &docker).unwrap();
    machine.stop();
    machine.assert_refused("on the data partition is not a directory");
}
