//! Where what is accepted is kept.

use std::fs;

use serde_json::json;

use super::host::Host;

#[test]
fn a_damaged_record_is_reported_and_the_pattern_runs() {
    let host = Host::new();
    host.publish(host.token(100, json!([host.command("a")])));
    host.run().ended(0);
    let directory = host.world.esp("etchaos/sources");
    let file = fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    host.reboot();
    let ran = host.run().ended(0);
    assert!(ran.stderr.contains("it is damaged"), "{}", ran.stderr);
    assert_eq!(host.state(), ["a"]);
    host.reboot();
    let ran = host.run().ended(0);
    assert!(!ran.stderr.contains("damaged"), "{}", ran.stderr);
    assert_eq!(host.state(), ["a"]);
}

#[test]
fn a_large_pattern_is_kept_on_the_data_partition_only() {
    let host = Host::new();
    let mut large = host.command("large");
    large["stdin"] = json!("x".repeat(100_000));
    host.publish(host.token(100, json!([large])));
    host.run().ended(0);
    let status = host.status();
    assert_eq!(status["kept"], "memory");
    assert!(status["problems"].to_string().contains("cannot be kept on the ESP"), "{status}");

    let mounts = "37 36 253:2 / /var/lib/etchaos/data rw - ext4 /dev/vda3 rw\n";
    host.world.write("host/proc/self/mountinfo", mounts);
    fs::create_dir_all(host.world.path("host/var/lib/etchaos/data")).unwrap();
    host.run().ended(0);
    let status = host.status();
    assert_eq!((&status["kept"], &status["problems"]), (&json!("data"), &json!([])));
    host.reboot();
    host.world.cdn.remove(super::host::PATH);
    host.run().ended(0);
    assert_eq!(host.state(), ["large"]);
}

#[test]
fn a_boot_without_the_data_partition_does_not_replace_what_is_on_it() {
    let host = Host::new();
    host.publish(host.token(100, json!([host.command("a")])));
    host.run().ended(0);
    let mount = |mounts: &str| host.world.write("host/proc/self/mountinfo", mounts);
    let mounts = "37 36 253:2 / /var/lib/etchaos/data rw - ext4 /dev/vda3 rw\n";
    fs::create_dir_all(host.world.path("host/var/lib/etchaos/data")).unwrap();
    mount(mounts);
    host.publish(host.token(50, json!([host.command("b")])));
    host.run().ended(0);
    assert_eq!((host.status()["kept"].clone(), host.state()), (json!("data"), vec!["b".into()]));
    host.reboot();
    mount("");
    host.world.cdn.remove(super::host::PATH);
    host.run();
    assert!(host.state().is_empty());
    // The operator repairs or unlocks the partition.
    mount(mounts);
    host.world.run(&["sources", "--all"]).ended(0);
    assert_eq!(host.state(), ["b"]);
}

/// The ESP has the time of the newest Pattern, but not the Pattern.
#[test]
fn a_pattern_that_is_lost_with_the_boot_is_pulled_again() {
    let host = Host::new();
    host.publish(host.token(100, json!([host.command("small")])));
    host.run().ended(0);
    let mut large = host.command("large");
    large["stdin"] = json!("x".repeat(100_000));
    host.publish(host.token(50, json!([large])));
    host.run().ended(0);
    assert_eq!(host.status()["kept"], "memory");
    host.reboot();
    host.run().ended(0);
    assert_eq!(host.state(), ["large"]);
    // An older one is refused nevertheless.
    host.reboot();
    host.publish(host.token(51, json!([host.command("older")])));
    host.pull().failed(&["was signed at"]);
    host.world.run(&["sources", "--all"]);
    assert!(host.state().is_empty());
}

#[test]
fn patterns_run_although_nothing_can_be_kept() {
    let host = Host::new();
    // A directory that cannot be created.
    host.world.write("esp/etchaos/sources", "a file");
    host.publish(host.token(100, json!([host.command("a")])));
    host.run().ended(0);
    assert_eq!(host.state(), ["a"]);
    assert_eq!(host.status()["kept"], "memory");
    // It is compared with its successor in the same boot.
    host.publish(host.token(50, json!([host.command("b")])));
    host.run().ended(0);
    assert_eq!(host.state(), ["b"]);
}
