//! What a host keeps: partitions that are created once, found again, and grown.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::{Value, json};

use super::machine::{DATA_START, MIB, Machine, SIZE, is_done_in_namespace, run};

#[test]
fn keeps_files_in_the_free_space_of_the_disk_that_was_booted() {
    if is_done_in_namespace("data::keep::keeps_files_in_the_free_space_of_the_disk_that_was_booted")
    {
        return;
    }
    let machine = Machine::new(json!({"paths": ["/var/lib/app"]}));
    fs::create_dir_all(machine.var("lib/app")).unwrap();
    fs::set_permissions(machine.var("lib/app"), fs::Permissions::from_mode(0o750)).unwrap();
    let esp = machine.booted.describe(2);
    machine.start().ended(0);
    machine.booted.assert_data_partition(3);
    assert_eq!(machine.booted.describe(2), esp);
    assert_eq!(machine.booted.tag(3, "TYPE"), "ext4");
    let uuid = machine.booted.tag(3, "UUID");
    assert!(!machine.is_docker_stopped());
    let status = machine.status();
    assert_eq!(status["mounted"], true, "{status}");
    assert_eq!(status["fileSystem"], "ext4", "{status}");
    assert_eq!(
        status["device"],
        machine
            .world
            .path("host/dev")
            .join(machine.booted.partition(3).trim_start_matches("/dev/"))
            .to_str()
            .unwrap()
    );

    let journal = "log/journal/0123456789abcdef0123456789abcdef";
    for path in ["lib/docker", "lib/containerd", "lib/app", journal] {
        assert!(machine.is_mounted(path), "{path}");
        fs::write(machine.var(path).join("file"), path).unwrap();
    }
    assert_eq!(fs::metadata(machine.var("lib/app")).unwrap().mode() & 0o777, 0o750);
    let config = "host/run/systemd/journald.conf.d/90-etchaos-data.conf";
    let config = fs::read_to_string(machine.world.path(config)).unwrap();
    assert!(config.contains("Storage=persistent"), "{config}");
    let options =
        run("findmnt", &["-no", "OPTIONS", machine.var("lib/etchaos/data").to_str().unwrap()]);
    assert!(options.contains("nosuid") && options.contains("nodev"), "{options}");

    // A second start of the unit, and a reboot, after which the machine ID is another one.
    machine.start().ended(0);
    machine.stop();
    assert!(!machine.var("lib/docker/file").exists());
    machine.world.write("host/etc/machine-id", "ffffffffffffffffffffffffffffffff\n");
    machine.start().ended(0);
    let journal = "log/journal/ffffffffffffffffffffffffffffffff";
    for path in ["lib/docker", "lib/containerd", "lib/app", journal] {
        assert!(machine.var(path).join("file").exists(), "{path}");
    }
    assert_eq!(machine.booted.tag(3, "UUID"), uuid);
    machine.booted.assert_data_partition(3);
}

#[test]
fn keeps_nothing_without_the_member() {
    if is_done_in_namespace("data::keep::keeps_nothing_without_the_member") {
        return;
    }
    let machine = Machine::new(Value::Null);
    let digest = machine.booted.digest();
    let ran = machine.start().ended(0);
    assert!(ran.stdout.contains("nothing is kept"), "{}", ran.stdout);
    assert_eq!(machine.booted.digest(), digest);
    assert!(!machine.is_docker_stopped() && !machine.is_mounted("lib/docker"));
    assert_eq!(machine.status(), Value::Null);
}

#[test]
fn uses_a_disk_that_is_named_and_empty() {
    if is_done_in_namespace("data::keep::uses_a_disk_that_is_named_and_empty") {
        return;
    }
    let machine = Machine::new(Value::Null);
    let disk = machine.attach("data.raw", SIZE);
    let digest = machine.booted.digest();
    machine.configure(json!({"disk": disk.node, "fileSystem": "xfs", "journal": false}));
    // A host that was booted from the network has no boot disk.
    machine.world.write("host/proc/cmdline", "quiet\n");
    machine.start().ended(0);
    disk.assert_data_partition(1);
    assert_eq!(disk.tag(1, "TYPE"), "xfs");
    assert_eq!(machine.booted.digest(), digest);
    assert!(!machine.var("log/journal").exists());
    fs::write(machine.var("lib/docker/file"), "x").unwrap();
    machine.stop();
    // The file system of an existing partition stays as it is.
    machine.configure(json!({"disk": disk.node, "fileSystem": "btrfs"}));
    let ran = machine.start().ended(0);
    assert!(
        ran.stderr.contains("the data partition has xfs, and stays as it is"),
        "{}",
        ran.stderr
    );
    assert!(machine.var("lib/docker/file").exists());
}

#[test]
fn grows_with_the_disk() {
    if is_done_in_namespace("data::keep::grows_with_the_disk") {
        return;
    }
    for file_system in ["ext4", "xfs", "btrfs"] {
        let machine = Machine::new(json!({"fileSystem": file_system}));
        machine.start().ended(0);
        fs::write(machine.var("lib/docker/file"), "x").unwrap();
        let blocks = || {
            let found = nix::sys::statvfs::statvfs(&machine.var("lib/docker")).unwrap();
            found.blocks() * found.fragment_size()
        };
        let before = blocks();
        assert!(before > SIZE - DATA_START - 150 * MIB, "{file_system}: {before}");
        machine.stop();
        // A disk that gets larger while the host is off.
        machine.booted.grow(SIZE + 700 * MIB);
        let ran = machine.start().ended(0);
        machine.booted.assert_data_partition(3);
        assert!(ran.stderr.contains("growing the data partition"), "{}", ran.stderr);
        assert!(machine.var("lib/docker/file").exists());
        let status = machine.status();
        let may_resize = file_system != "ext4" || has_sys_resource();
        if may_resize {
            assert_eq!(status["problems"], json!([]), "{file_system}: {}", ran.stderr);
            assert!(blocks() > before + 600 * MIB, "{file_system}: {before}, {}", blocks());
        } else {
            eprintln!("SKIPPED: growing ext4 needs CAP_SYS_RESOURCE");
        }
        // Nothing is written if there is nothing to do.
        machine.stop();
        let digest = machine.booted.digest();
        machine.start().ended(0);
        assert_eq!(machine.booted.digest(), digest, "{file_system}");
    }
}

#[test]
fn starts_with_a_full_file_system() {
    if is_done_in_namespace("data::keep::starts_with_a_full_file_system") {
        return;
    }
    for file_system in ["ext4", "xfs", "btrfs"] {
        let machine = Machine::new(json!({"fileSystem": file_system}));
        machine.start().ended(0);
        let fill = "head -c 3G /dev/zero >\"$0\"; echo x >\"$0.2\"; sync";
        let file = machine.var("lib/docker/file");
        let output = std::process::Command::new("sh").args(["-c", fill]).arg(&file).output();
        let error = String::from_utf8(output.unwrap().stderr).unwrap();
        assert!(error.contains("No space left"), "{error}");
        machine.stop();
        machine.start().ended(0);
        assert!(file.exists() && !machine.is_docker_stopped());
        machine.world.publish(2);
        machine.world.run(&["update", "--no-reboot"]).ended(0);
    }
}

/// Returns whether this process has the capability with the number 24 (capability.h), which ext4 requires.
fn has_sys_resource() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap() & 1 << 24 != 0
}

#[test]
fn finishes_a_partition_that_a_power_cut_left_without_a_file_system() {
    if is_done_in_namespace(
        "data::keep::finishes_a_partition_that_a_power_cut_left_without_a_file_system",
    ) {
        return;
    }
    let machine = Machine::new(json!({}));
    let mkfs = "#!/bin/sh\necho 'the power was cut' >&2\nexit 1\n";
    machine.world.program("mkfs.ext4", mkfs);
    machine.assert_refused("the power was cut");
    assert!(machine.booted.describe(3).contains("Attribute flags: 0001000000000000"));
    // A part of a file system.
    machine.booted.write(DATA_START + 1024, &[0xef; 4096]);
    fs::remove_file(machine.world.path("bin/mkfs.ext4")).unwrap();
    machine.start().ended(0);
    machine.booted.assert_data_partition(3);
    assert!(machine.is_mounted("lib/docker"));
}

#[test]
fn restores_a_table_of_which_one_copy_is_lost() {
    if is_done_in_namespace("data::keep::restores_a_table_of_which_one_copy_is_lost") {
        return;
    }
    let machine = Machine::new(json!({}));
    machine.start().ended(0);
    fs::write(machine.var("lib/docker/file"), "x").unwrap();
    for offset in [SIZE - 512, 512] {
        machine.stop();
        machine.booted.write(offset, &[0xff; 512]);
        machine.start().ended(0);
        machine.booted.assert_data_partition(3);
        assert!(machine.var("lib/docker/file").exists());
    }
}
