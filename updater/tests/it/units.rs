//! The units, by systemd's own judgement.

use std::path::{Path, PathBuf};
use std::process::Command;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

/// systemd-analyze with these arguments: all that it says. Without it these tests prove nothing.
fn analyze(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("systemd-analyze");
    let ran = command.arg("--no-pager").args(arguments).current_dir(folder()).output();
    let Ok(output) = ran else {
        assert!(std::env::var("CI").is_err(), "systemd-analyze is needed for this test");
        eprintln!("SKIPPED: there is no systemd-analyze here");
        return None;
    };
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn the_update_service_is_in_a_sandbox() {
    let Some(said) = analyze(&["security", "--offline=true", "etchaos-updater.service"]) else {
        return;
    };
    let exposure = said.split("exposure level for etchaos-updater.service: ").nth(1);
    let exposure = exposure.and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    let exposure = exposure.unwrap_or_else(|| panic!("{said}"));
    assert!(exposure < 3.0, "{said}");
}

#[test]
fn systemd_knows_every_line_of_the_units() {
    let mut units: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".service") || name.ends_with(".timer"))
        .collect();
    units.sort();
    assert!(units.len() >= 4, "{units:?}");
    let mut arguments = vec!["verify", "--man=no"];
    arguments.extend(units.iter().map(String::as_str));
    let Some(said) = analyze(&arguments) else { return };
    // The program is not installed here. Of other units here we know nothing.
    let is_ours = |line: &&str| line.contains("etchaos") && !line.contains("is not executable");
    let complaints: Vec<&str> = said.lines().filter(is_ours).collect();
    assert_eq!(complaints, [""; 0], "{said}");
}

/// What ends a boot that hangs must not wait for it. systemd orders a unit with one of these after the
/// mounts, and the first one after systemd-tmpfiles-setup.service, too (systemd.exec(5), "Implicit
/// dependencies").
#[test]
fn what_watches_over_the_boot_waits_for_nothing() {
    for unit in ["etchaos-deadline.service", "etchaos-fallback.service"] {
        let text = std::fs::read_to_string(folder().join(unit)).unwrap();
        assert!(text.lines().any(|line| line == "DefaultDependencies=no"), "{unit}");
        for setting in
            ["PrivateTmp=", "StateDirectory=", "RequiresMountsFor=", "Requires=", "After="]
        {
            assert!(!text.lines().any(|line| line.starts_with(setting)), "{unit}: {setting}");
        }
    }
}

/// If a disk comes late or a mount fails, `config --require listen` ends with 255, and the unit is tried
/// again until it works. One that has failed for good would make the boot unhealthy. And an exit code
/// that counts as success goes on with ExecStart=, so it must not be one of `config --require`.
#[test]
fn who_listens_is_tried_again_and_never_fails() {
    let text = std::fs::read_to_string(folder().join("etchaos-listen.service")).unwrap();
    for line in [
        "ExecCondition=/usr/bin/etchaos-updater config --require listen",
        "Restart=on-failure",
        "StartLimitIntervalSec=0",
        "SuccessExitStatus=3",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
}

/// docker.service waits for the network, and a unit that fails makes a boot unhealthy: a host without a
/// network, such as one that is updated from a stick, would go back from every update.
#[test]
fn a_boot_without_a_network_is_not_unhealthy() {
    let drop_in = "../builder/variants/files/usr/lib/systemd/system/systemd-networkd-wait-online.service.d/etchaos.conf";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(drop_in);
    let text = std::fs::read_to_string(path).unwrap();
    let starts: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("ExecStart=")).collect();
    let [reset, start] = starts[..] else { panic!("{text}") };
    assert!(reset.is_empty() && start.starts_with('-'), "{text}");
}
