//! Checks the systemd units with systemd-analyze.

use std::path::{Path, PathBuf};
use std::process::Command;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

/// Returns the directory of the files that the builder copies into an image.
fn image_files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../builder/variants/files")
}

/// Runs systemd-analyze and returns its output, or `None` if it is not installed.
fn analyze(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("systemd-analyze");
    let ran = command.arg("--no-pager").args(arguments).current_dir(directory()).output();
    let Ok(output) = ran else {
        assert!(std::env::var("CI").is_err(), "systemd-analyze is needed for this test");
        eprintln!("SKIPPED: systemd-analyze is not installed");
        return None;
    };
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn the_services_are_sandboxed() {
    for name in ["updater", "host-settings", "host-settings-online"] {
        let unit = format!("etchaos-{name}.service");
        let Some(output) = analyze(&["security", "--offline=true", &unit]) else { return };
        let exposure = output.split(&format!("exposure level for {unit}: ")).nth(1);
        let exposure = exposure.and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
        let exposure = exposure.unwrap_or_else(|| panic!("{output}"));
        assert!(exposure < 3.0, "{output}");
    }
}

/// What is pulled is parsed in a sandbox as strict as that of updates.
#[test]
fn the_pull_service_is_sandboxed() {
    let Some(output) = analyze(&["security", "--offline=true", "etchaos-pull.service"]) else {
        return;
    };
    let exposure = output.split("exposure level for etchaos-pull.service: ").nth(1);
    let exposure = exposure.and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    assert!(exposure.is_some_and(|exposure| exposure < 3.0), "{output}");
}

/// A unit that fails makes the boot unhealthy, and a unit that is part of the boot delays the confirmation. Programs that
/// wait until all units have started, such as a Command, must not wait for servers that do not answer, nor for the unit
/// that runs them.
#[test]
fn sources_neither_delay_nor_fail_a_boot() {
    for unit in ["etchaos-sources.service", "etchaos-pull.service"] {
        let text = std::fs::read_to_string(directory().join(unit)).unwrap();
        let starts: Vec<&str> =
            text.lines().filter(|line| line.starts_with("ExecStart=")).collect();
        assert!(starts.len() == 1 && starts[0].starts_with("ExecStart=-/"), "{unit}: {starts:?}");
        assert!(!text.contains("[Install]"), "{unit}");
        assert!(text.contains("\nType=exec\n") && !text.contains("\nExecStartPre="), "{text}");
    }
}

/// The start of etchaos-pull.service does not wait for its end, so no order of starts makes the sources run after it.
#[test]
fn the_sources_run_when_the_pull_has_ended() {
    let text = |unit: &str| std::fs::read_to_string(directory().join(unit)).unwrap();
    let pull = text("etchaos-pull.service");
    for line in ["OnSuccess=etchaos-sources.service", "OnFailure=etchaos-sources.service"] {
        assert!(pull.lines().any(|found| found == line), "{line}");
    }
    assert!(text("etchaos-sources.timer").contains("\nUnit=etchaos-pull.service\n"));
    assert!(!text("etchaos-sources.service").contains("Wants=etchaos-pull.service"));
}

#[test]
fn systemd_accepts_the_units() {
    let mut units: Vec<String> = std::fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".service") || name.ends_with(".timer"))
        .collect();
    units.sort();
    assert!(units.len() >= 4, "{units:?}");
    let mut arguments = vec!["verify", "--man=no"];
    arguments.extend(units.iter().map(String::as_str));
    let Some(output) = analyze(&arguments) else { return };
    // The updater is not installed on the build host, and problems of other units do not matter.
    let is_ours = |line: &&str| line.contains("etchaos") && !line.contains("is not executable");
    let problems: Vec<&str> = output.lines().filter(is_ours).collect();
    assert_eq!(problems, [""; 0], "{output}");
}

/// The units that end a boot that hangs, and the one that resets the boot counter, must not wait for other units.
/// systemd orders a unit with one of these settings after the mounts, and one with PrivateTmp= after
/// systemd-tmpfiles-setup.service (systemd.exec(5), "Implicit dependencies").
#[test]
fn watchdog_units_have_no_dependencies() {
    for unit in ["etchaos-deadline.service", "etchaos-fallback.service", "etchaos-started.service"]
    {
        let text = std::fs::read_to_string(directory().join(unit)).unwrap();
        assert!(text.lines().any(|line| line == "DefaultDependencies=no"), "{unit}");
        for setting in
            ["PrivateTmp=", "StateDirectory=", "RequiresMountsFor=", "Requires=", "After="]
        {
            assert!(!text.lines().any(|line| line.starts_with(setting)), "{unit}: {setting}");
        }
    }
}

/// If a disk appears late or a mount fails, `config --require listen` ends with 255, and systemd restarts
/// the unit until it works. A unit that failed permanently would make the boot unhealthy. systemd continues
/// with ExecStart= after an exit code that counts as success, so SuccessExitStatus= must not contain an exit
/// code of `config --require`.
#[test]
fn the_listen_service_is_restarted_and_never_fails() {
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

/// Because there is no login, emergency and rescue mode end with a reboot. A boot on trial reboots soon, so
/// that the boot loader falls back. Any other host boots the same slot again, and must not do so every 15
/// seconds.
#[test]
fn emergency_mode_reboots_soon_only_on_trial() {
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
    // systemd would interpret these characters before the shell does.
    assert!(!script.contains(['$', '%', '\\', '\'']), "{script}");

    let directory = tempfile::tempdir().unwrap();
    let cmdline = directory.path().join("cmdline");
    let script = script.replace("/proc/cmdline", &cmdline.display().to_string());
    // The script prints the duration instead of sleeping.
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

/// The host settings must be written before the network starts, and must not make a boot unhealthy: a typing
/// error would undo an update.
#[test]
fn host_settings_come_before_the_network_and_never_fail() {
    let text = |name: &str| std::fs::read_to_string(directory().join(name)).unwrap();
    let (early, late) =
        (text("etchaos-host-settings.service"), text("etchaos-host-settings-online.service"));
    let before: Vec<&str> = early
        .lines()
        .filter_map(|line| line.strip_prefix("Before="))
        .flat_map(|units| units.split(' '))
        .collect();
    for unit in ["network-pre.target", "systemd-networkd.service", "systemd-timesyncd.service"] {
        assert!(before.contains(&unit), "{unit}: {early}");
    }
    for line in ["DefaultDependencies=no", "WantedBy=sysinit.target"] {
        assert!(early.lines().any(|found| found == line), "{line}");
    }
    for (unit, command) in [(&early, "host-settings --early"), (&late, "host-settings")] {
        let line = format!("ExecStart=-/usr/bin/etchaos-updater {command}");
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
    // A file of the image that comes before those of the settings would win.
    let network = image_files().join("usr/lib/systemd/network");
    for entry in std::fs::read_dir(network).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert_eq!(name, "80-etchaos.network");
    }
}

/// docker.service waits for the network, and a failed unit makes a boot unhealthy. A host without a network,
/// such as one that is updated from a USB stick, would roll back every update.
#[test]
fn a_missing_network_does_not_make_the_boot_unhealthy() {
    let drop_in = "usr/lib/systemd/system/systemd-networkd-wait-online.service.d/etchaos.conf";
    let text = std::fs::read_to_string(image_files().join(drop_in)).unwrap();
    let starts: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("ExecStart=")).collect();
    let [reset, start] = starts[..] else { panic!("{text}") };
    assert!(reset.is_empty() && start.starts_with('-'), "{text}");
}
