//! The units, by systemd's own judgement.

use std::path::{Path, PathBuf};
use std::process::Command;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

/// What the builder puts into an image.
fn image_files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../builder/variants/files")
}

/// systemd-analyze with these arguments: all that it says. Without it these tests prove nothing.
fn analyze(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("systemd-analyze");
    let ran = command.arg("--no-pager").args(arguments).current_dir(directory()).output();
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
    let mut units: Vec<String> = std::fs::read_dir(directory())
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
        let text = std::fs::read_to_string(directory().join(unit)).unwrap();
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
    let text = std::fs::read_to_string(directory().join("etchaos-listen.service")).unwrap();
    for line in [
        "ExecCondition=/usr/bin/etchaos-updater config --require listen",
        "Restart=on-failure",
        "StartLimitIntervalSec=0",
        "SuccessExitStatus=3",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
}

/// Where nobody can log in, emergency and rescue mode end with a reboot: on trial at once, so that the
/// boot loader falls back. Any other host comes back to the same, and must not go round every 15 seconds.
#[test]
fn a_host_that_gives_up_reboots_soon_only_on_trial() {
    let text = |unit: &str| {
        let drop_in = format!("usr/lib/systemd/system/{unit}.service.d/etchaos.conf");
        std::fs::read_to_string(image_files().join(drop_in)).unwrap()
    };
    let emergency = text("emergency");
    assert_eq!(emergency, text("rescue"));
    for line in ["SuccessAction=reboot-force", "FailureAction=reboot-force", "ExecStart="] {
        assert!(emergency.lines().any(|found| found == line), "{line}: {emergency}");
    }
    let start = emergency.lines().rfind(|line| line.starts_with("ExecStart=")).unwrap();
    let script = start.strip_prefix("ExecStart=/bin/sh -c '").unwrap().strip_suffix('\'').unwrap();
    // systemd would read these before the shell does.
    assert!(!script.contains(['$', '%', '\\', '\'']), "{script}");

    let directory = tempfile::tempdir().unwrap();
    let cmdline = directory.path().join("cmdline");
    let script = script.replace("/proc/cmdline", &cmdline.display().to_string());
    // It says how long it would sleep, in place of sleeping.
    let script = format!("sleep() {{ echo \"$@\"; exit; }}\n{script}");
    for (arguments, seconds) in [
        ("quiet etchaos.slot=b etchaos.trial=2\n", "15\n"),
        ("etchaos.trial=0 quiet\n", "15\n"),
        ("quiet etchaos.slot=b etchaos.esp=ABCD-1234\n", "600\n"),
        ("", "600\n"),
    ] {
        std::fs::write(&cmdline, arguments).unwrap();
        let output = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), seconds, "{arguments:?}: {script}");
    }
}

/// docker.service waits for the network, and a unit that fails makes a boot unhealthy: a host without a
/// network, such as one that is updated from a stick, would go back from every update.
#[test]
fn a_boot_without_a_network_is_not_unhealthy() {
    let drop_in = "usr/lib/systemd/system/systemd-networkd-wait-online.service.d/etchaos.conf";
    let text = std::fs::read_to_string(image_files().join(drop_in)).unwrap();
    let starts: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("ExecStart=")).collect();
    let [reset, start] = starts[..] else { panic!("{text}") };
    assert!(reset.is_empty() && start.starts_with('-'), "{text}");
}
