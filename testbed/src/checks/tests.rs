//! Tests of the checks with fake guests: a directory of files, and programs with a given output.

use super::*;
use protocol::release::{Artifact, Package};
use protocol::role::Role;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command as Program;

fn release() -> Release {
    let artifact = |role: Role| Artifact {
        role,
        name: format!("x.{}", role.extension()),
        size: 1,
        sha256: "ab".repeat(32),
        url: format!("x.{}", role.extension()),
        deltas: Vec::new(),
    };
    Release {
        schema: protocol::release::SCHEMA,
        variant: "deb".parse().unwrap(),
        arch: protocol::Arch::Amd64,
        version: "13.20261120".into(),
        build: 1,
        epoch: 1,
        kernel: "6.12.1-cloud".into(),
        recipe: "cd".repeat(32),
        artifacts: [Role::Kernel, Role::Initrd, Role::Disk].map(artifact).to_vec(),
        packages: Package::parse_list("bash 5.2 amd64\nadduser 3.1 all\n").unwrap(),
        bootloader: Vec::new(),
        documents: Vec::new(),
        secure_boot: true,
        toolchain: std::collections::BTreeMap::new(),
    }
}

fn script(id: &str) -> String {
    script_for(id, Firmware::UefiSecureboot)
}

fn script_for(id: &str, firmware: Firmware) -> String {
    script_of(id, firmware, Some(Slot::A))
}

fn script_of(id: &str, firmware: Firmware, slot: Option<Slot>) -> String {
    let release = release();
    let expected = Expected { release: &release, slot, firmware, updater_version: "0.1.0" };
    let pattern = pattern(&checks(&expected));
    pattern
        .run
        .iter()
        .find_map(|entry| match entry {
            Entry::Command(command) if command.id == id => command.check.clone(),
            _ => None,
        })
        .unwrap_or_else(|| panic!("no check {id:?}"))
}

/// A fake guest of files and programs.
struct Guest(tempfile::TempDir);

impl Guest {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        Self(dir)
    }

    fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn program(self, path: &str, script: &str) -> Self {
        let guest = self.file(path, format!("#!/bin/sh\n{script}\n"));
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(guest.0.path().join(path), mode).unwrap();
        guest
    }

    /// Runs a check and returns whether it passes, and its output.
    fn run(&self, script: &str) -> (bool, String) {
        let root = self.0.path();
        let path = format!("{}:{}", root.join("bin").display(), std::env::var("PATH").unwrap());
        let output = Program::new("/bin/sh")
            .args(["-c", script])
            .env("TESTBED_ROOT", root)
            .env("TESTBED_TIMEOUT", "0")
            .env("PATH", path)
            .output()
            .unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(printed).unwrap())
    }

    #[track_caller]
    fn passes(&self, script: &str) {
        let (passed, output) = self.run(script);
        assert!(passed, "{output}");
    }

    #[track_caller]
    fn fails(&self, script: &str, problem: &str) {
        let (passed, output) = self.run(script);
        assert!(!passed && output.contains(problem), "passed: {passed}, output: {output}");
    }
}

#[test]
fn uses_valid_posix_shell() {
    let firmware = [Firmware::UefiSecureboot, Firmware::Uefi, Firmware::Bios];
    for (firmware, slot) in firmware.into_iter().zip([Some(Slot::B), None, Some(Slot::A)]) {
        for (id, _) in
            checks(&Expected { release: &release(), slot, firmware, updater_version: "1" })
        {
            let parsed = Program::new("/bin/sh")
                .args(["-n", "-c", &script_of(id, firmware, slot)])
                .output()
                .unwrap();
            assert!(parsed.status.success(), "{id}: {parsed:?}");
        }
    }
}

#[test]
fn distinguishes_firmware() {
    const VARIABLE: &str =
        "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    let (secure, plain, bios) = (
        script("firmware"),
        script_for("firmware", Firmware::Uefi),
        script_for("firmware", Firmware::Bios),
    );
    let on = Guest::new().file(VARIABLE, [6, 0, 0, 0, 1]);
    on.passes(&secure);
    on.passes(&plain);
    on.fails(&bios, "expected a BIOS");
    let off = Guest::new().file(VARIABLE, [6, 0, 0, 0, 0]);
    off.fails(&secure, "expected Secure Boot to be enabled");
    Guest::new().file("sys/firmware/efi/x", "").fails(&secure, "found none");
    Guest::new().passes(&bios);
    Guest::new().fails(&plain, "expected UEFI");
}

#[test]
fn logs_the_running_check_to_the_console() {
    let guest = Guest::new().program("bin/uname", "echo 6.12.1-cloud").file("dev/kmsg", "");
    guest.passes(&script("kernel"));
    let logged = fs::read_to_string(guest.0.path().join("dev/kmsg")).unwrap();
    assert_eq!(logged, "<4>testbed: checking: kernel\n");
}

#[test]
fn checks_kernel_and_command_line() {
    let guest = Guest::new().program("bin/uname", "echo 6.12.1-cloud");
    guest.passes(&script("kernel"));
    let other = Guest::new().program("bin/uname", "echo 6.12.2-cloud");
    other.fails(&script("kernel"), "expected kernel 6.12.1-cloud, 6.12.2-cloud is running");

    let line = |line: &str| Guest::new().file("proc/cmdline", format!("{line}\n"));
    line("etchaos.slot=a console=tty0 console=ttyS0,115200").passes(&script("kernel command line"));
    line("etchaos.slot=b console=tty0 console=ttyS0,115200")
        .fails(&script("kernel command line"), "expected etchaos.slot=a");

    let arm = format!("{PRELUDE}{}", command_line(Some(Slot::A), Arch::Arm64));
    line("etchaos.slot=a console=tty0 console=ttyAMA0,115200").passes(&arm);
    line("etchaos.slot=a console=tty0 console=ttyS0,115200")
        .fails(&arm, "expected console=ttyAMA0,115200");
}

#[test]
fn reads_quoted_values_of_os_release() {
    let release = |version: &str| {
        let content = format!("IMAGE_ID=etchaos\nVARIANT_ID=deb\nIMAGE_VERSION={version}\n");
        Guest::new().file("etc/os-release", content)
    };
    release("\"13.20261120\"").passes(&script("os-release"));
    release("12").fails(&script("os-release"), "expected IMAGE_VERSION=13.20261120, found '12'");
}

#[test]
fn lists_packages_missing_on_either_side() {
    const SCRIPT: &str = "usr/lib/etchaos/packages";
    let guest = |lines: &str| Guest::new().program(SCRIPT, &format!("printf '{lines}'"));
    guest("bash 5.2 amd64\\nadduser 3.1 all\\n").passes(&script("packages"));
    let other = guest("adduser 3.1 all\\nbash 5.3 amd64\\n");
    other.fails(
        &script("packages"),
        "only the manifest has:\nbash 5.2 amd64\nonly the image has:\nbash 5.3 amd64",
    );
    Guest::new().fails(&script("packages"), "/usr/lib/etchaos/packages failed");
}

#[test]
fn checks_mounts_of_root_and_usr() {
    let guest = |mounts: &str| Guest::new().file("proc/1/mounts", mounts);
    let usr = script("/usr is read-only");
    // The fake guest has no directory usr, so the write fails.
    guest("/dev/loop0 /usr squashfs ro,nodev,relatime 0 0\n").passes(&usr);
    guest("/dev/loop0 /usr squashfs rw,relatime 0 0\n").fails(&usr, "expected a read-only mount");
    guest("root / tmpfs rw 0 0\n").fails(&usr, "expected a mount at /usr");
    guest("/dev/loop0 /usr squashfs ro 0 0\n").file("usr/x", "").fails(&usr, "a file was created");

    let root = script("root is in memory");
    guest("rootfs / rootfs rw 0 0\nroot / tmpfs rw,size=1 0 0\n").passes(&root);
    guest("/dev/vda1 / ext4 rw 0 0\n").fails(&root, "found: /dev/vda1 / ext4");
}

#[test]
fn requires_a_running_confirmed_slot_without_a_trial() {
    let guest = |slot: &str, good: &str, trial: &str| {
        let json = format!(
            r#"{{
  "updaterVersion": "0.1.0",
  "running": {{"slot": "{slot}", "version": "13.20261120", "build": 7, "kernel": "6.12.1-cloud"}},
  "good": "{good}",
  "trial": {trial},
  "slots": {{"a": {{"state": "complete"}}, "b": {{"state": "empty"}}}}
}}"#
        );
        Guest::new()
            .program("bin/etchaos-updater", &format!("echo '{json}'"))
            .program("bin/journalctl", "echo the journal")
    };
    let check = script("slot is confirmed");
    guest("a", "a", "null").passes(&check);
    guest("b", "a", "null").fails(&check, r#"expected "slot":"a""#);
    guest("a", "b", "null").fails(&check, "the journal");
    guest("a", "a", r#"{"slot": "a", "tries": 2}"#).fails(&check, r#""tries": 2"#);
}

#[test]
fn requires_no_slot_and_skipped_units_after_network_boot() {
    let guest = |running: &str, unit: &str| {
        let json = format!(r#"{{"running": {running}, "slots": null}}"#);
        Guest::new()
            .program("bin/etchaos-updater", &format!("echo '{json}'"))
            .program("bin/systemctl", &format!("[ $2 != {unit} ]"))
    };
    let check = script_of("no slot", Firmware::Uefi, None);
    guest("null", "none").passes(&check);
    guest(r#"{"slot": "a"}"#, "none").fails(&check, "expected no running slot");
    guest("null", "etchaos-updater.service").fails(&check, "etchaos-updater.service to be skipped");

    let check = script_of("kernel command line", Firmware::Uefi, None);
    let consoles = "console=tty0 console=ttyS0,115200";
    Guest::new().file("proc/cmdline", format!("{consoles} panic=10\n")).passes(&check);
    Guest::new()
        .file("proc/cmdline", format!("{consoles} etchaos.slot=a\n"))
        .fails(&check, "expected no slot");
}

#[test]
fn allows_only_listed_listeners() {
    let guest = |lines: &str| Guest::new().program("bin/ss", &format!("cat <<'E'\n{lines}\nE"));
    let check = script("no unexpected listening port");
    guest("").passes(&check);
    let known = "udp UNCONN 0 0 10.0.2.15%ens3:68 0.0.0.0:*\ntcp LISTEN 0 9 0.0.0.0:4000 0.0.0.0:* users\n\
        tcp LISTEN 0 9 [::]:4000 [::]:*\ntcp LISTEN 0 9 *:4000 *:*\ntcp LISTEN 0 9 127.0.0.1:41233 0.0.0.0:*\n\
        tcp LISTEN 0 9 [::1]:22 [::]:*";
    guest(known).passes(&check);
    for unknown in [
        "tcp LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:((\"sshd\"))",
        "tcp LISTEN 0 128 [::]:22 [::]:*",
        "udp UNCONN 0 0 0.0.0.0:4000 0.0.0.0:*",
        "tcp LISTEN 0 1 *:14000 *:*",
    ] {
        let port = unknown.split(' ').nth(4).unwrap();
        guest(&format!("{known}\n{unknown}")).fails(&check, port);
    }
}

#[test]
fn finds_passwords_and_private_keys() {
    let guest = |shadow: &str| {
        Guest::new()
            .file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
            .file("etc/shadow", format!("daemon:*:1::::::\nsystemd:!*:1::::::\n{shadow}\n"))
            .file("root/x", "")
            .file("home/x", "")
    };
    let check = script("no passwords");
    guest("root:!:1::::::").passes(&check);
    for shadow in ["root:$6$salt$hash:1::::::", "root:!$6$salt$hash:1::::::", "root::1::::::"] {
        guest(shadow).fails(&check, "or an empty one: root");
    }
    let keys = script("no private keys");
    guest("").passes(&keys);
    let key = "-----BEGIN OPENSSH PRIVATE KEY-----\n";
    guest("").file("etc/ssh/ssh_host_rsa_key", key).fails(&keys, "etc/ssh/ssh_host_rsa_key");
}

#[test]
fn checks_units_docker_updater_and_tpm() {
    let running = Guest::new().program("bin/systemctl", "echo running");
    running.passes(&script("no failed unit"));
    let degraded = Guest::new()
        .program(
            "bin/systemctl",
            "case $* in *--failed*) echo x.service loaded failed;; *system*) echo degraded;; esac",
        )
        .program("bin/journalctl", "echo journal $*");
    degraded.fails(&script("no failed unit"), "failed: x.service\njournal -b");

    let docker = Guest::new().program("bin/docker", "echo 26.1").program("bin/journalctl", "");
    docker.passes(&script("Docker answers"));
    let silent =
        Guest::new().program("bin/docker", "exit 1").program("bin/journalctl", "echo journal");
    silent.fails(&script("Docker answers"), "journal");

    let updater = Guest::new().program("bin/etchaos-updater", "echo etchaos-updater 0.1.0");
    updater.passes(&script("updater version"));
    let old = Guest::new().program("bin/etchaos-updater", "echo etchaos-updater 0.0.9");
    old.fails(&script("updater version"), "expected version 0.1.0, found: etchaos-updater 0.0.9");

    Guest::new().file("sys/class/tpm/tpm0/tpm_version_major", "2\n").passes(&script("TPM 2.0"));
    Guest::new().fails(&script("TPM 2.0"), "expected a TPM");
}

#[test]
fn creates_no_files_outside_the_guest() {
    assert!(!Path::new("/usr/testbed-was-here").exists());
}

#[test]
fn a_release_that_secure_boot_refuses_is_booted_without_it() {
    let release = release();
    assert_eq!(Firmware::uefi(&release), Firmware::UefiSecureboot);
    let refused = Release { secure_boot: false, ..release };
    assert_eq!(Firmware::uefi(&refused), Firmware::Uefi);
}
