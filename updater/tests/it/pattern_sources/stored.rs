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
