//! A host with its ESP in a temporary directory, and a CDN on loopback.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::esp::{GRUBENV, Slot, slot_file};
use protocol::grubenv::{Block, BootState, TRIES, Trial};
use protocol::release::SCHEMA;
use protocol::token::sign;
use protocol::{Arch, Artifact, Claims, PrivateKey, Release, Role, Target};
use serde_json::Value;
use tempfile::TempDir;

use crate::server::{Reply, Server};

/// A host, the CDN from which it updates, and the key that signs the CDN's releases.
pub(crate) struct World {
    directory: TempDir,
    pub key: PrivateKey,
    pub cdn: Server,
}

/// The result of a run of the updater.
pub(crate) struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Returns the JSON in the last line of stdout. Events may precede it.
    pub(crate) fn json(&self) -> Value {
        let last = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }

    /// Asserts that the updater exited with this code.
    #[track_caller]
    pub(crate) fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Asserts that the updater failed, without a panic, and that stderr contains these texts.
    #[track_caller]
    pub(crate) fn failed(&self, expected: &[&str]) {
        assert_eq!(self.code, 1, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        for text in expected {
            assert!(self.stderr.contains(text), "no {text:?} in: {}", self.stderr);
        }
    }
}

/// Returns the Unix time in seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    protocol::digest::of_bytes(bytes)
}

/// Returns the target of all releases in these tests.
pub(crate) fn target() -> Target {
    Target { variant: "deb".parse().unwrap(), arch: Arch::native().unwrap() }
}

/// Returns the bytes of an artifact of the n-th release.
pub(crate) fn content(role: Role, n: u64) -> Vec<u8> {
    format!("{role} of release {n}\n").repeat(16_000 + n as usize).into_bytes()
}

/// Returns the n-th release, with build number n.
pub(crate) fn release(n: u64) -> Release {
    let artifact = |role: Role| {
        let bytes = content(role, n);
        let name = format!("{n}.{}", role.extension());
        let (size, sha256) = (bytes.len() as u64, sha256(&bytes));
        Artifact { role, url: name.clone(), name, size, sha256, deltas: Vec::new() }
    };
    Release {
        schema: SCHEMA,
        variant: target().variant,
        arch: target().arch,
        version: format!("13.{n}"),
        build: n,
        epoch: 1_700_000_000 + n,
        kernel: "6.12.0".into(),
        recipe: "ab".repeat(32),
        artifacts: Role::BOOT.map(artifact).to_vec(),
        packages: protocol::Package::parse_list(&format!("bash 5.{n} amd64")).unwrap(),
        bootloader: Vec::new(),
        documents: Vec::new(),
        secure_boot: true,
        toolchain: std::collections::BTreeMap::new(),
    }
}

/// Returns the claims of a manifest that is valid for an hour.
pub(crate) fn claims(release: &Release) -> Claims {
    Claims {
        iat: Some(now()),
        exp: Some(now() + 3600),
        etchaos_release: Some(release.clone()),
        ..Claims::default()
    }
}

impl World {
    /// Returns a host installed from a disk image: slot a runs release 1, and slot b is empty. The CDN offers
    /// release 1.
    pub(crate) fn new() -> Self {
        let world = Self {
            directory: tempfile::tempdir().unwrap(),
            key: PrivateKey::generate(),
            cdn: Server::start(),
        };
        world.write("host/usr/lib/etchaos/keys", world.key.public().to_string());
        world.write("host/etc/os-release", "ID=debian\nVARIANT_ID=deb\nIMAGE_VERSION=13.1\n");
        world.write(
            "host/usr/lib/etchaos/updater.json",
            format!(r#"{{"cdn": "{}"}}"#, world.cdn.url),
        );
        fs::create_dir(world.path("host/run")).unwrap();
        world.boot(Slot::A);
        world.fill(Slot::A, 1, 0);
        world.set_state(BootState::with_good(Slot::A));
        for program in ["systemctl", "systemd-run"] {
            let log = world.path("commands");
            let script = format!("#!/bin/sh\necho {program} \"$@\" >>{}\n", log.display());
            world.program(program, &script);
        }
        world.set_sessions("[]");
        world.set_inhibitors("[]");
        fs::create_dir_all(world.path("host/run")).unwrap();
        world.publish(1);
        world
    }

    /// Returns a path in the temporary directory.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.directory.path().join(relative)
    }

    /// Returns a path on the ESP.
    pub(crate) fn esp(&self, relative: &str) -> PathBuf {
        self.path("esp").join(relative)
    }

    /// Writes a file in the temporary directory, and creates its parent directories.
    pub(crate) fn write(&self, relative: &str, content: impl AsRef<[u8]>) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Boots a slot: sets the kernel command line as GRUB does, with the tries if the slot is on trial, and
    /// a new boot ID.
    pub(crate) fn boot(&self, slot: Slot) {
        let state = fs::read(self.esp(GRUBENV)).ok().and_then(|bytes| Block::parse(&bytes).ok());
        let trial = state.and_then(|block| BootState::read(&block).ok()?.trial);
        let trial = trial.filter(|trial| trial.slot == slot && trial.tries < TRIES);
        let trial = trial.map_or(String::new(), |trial| format!(" etchaos.trial={}", trial.tries));
        self.write("host/proc/cmdline", format!("quiet etchaos.slot={slot}{trial}\n"));
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
        self.write("host/proc/sys/kernel/random/boot_id", format!("{nanos:08x}-1111\n"));
    }

    /// Writes the n-th release to a slot, with a manifest of this build number.
    pub(crate) fn fill(&self, slot: Slot, n: u64, build: u64) {
        let directory = format!("esp/etchaos/{slot}");
        for role in Role::BOOT {
            self.write(&format!("{directory}/{}", slot_file(role).unwrap()), content(role, n));
        }
        let claims = Claims { iat: None, exp: None, ..claims(&Release { build, ..release(n) }) };
        self.write(&format!("{directory}/release.jwt"), sign(&self.key, &claims).unwrap());
    }

    /// Writes the boot state to grubenv.
    pub(crate) fn set_state(&self, state: BootState) {
        self.write("esp/etchaos/grubenv", state.to_bytes());
    }

    /// Returns the boot state in grubenv.
    pub(crate) fn state(&self) -> BootState {
        let bytes = fs::read(self.esp(GRUBENV)).unwrap();
        assert_eq!(bytes.len(), 1024);
        BootState::read(&Block::parse(&bytes).unwrap()).unwrap()
    }

    /// Returns the good slot, and the slot on trial with the remaining tries.
    pub(crate) fn boots(&self) -> (Slot, Option<(Slot, u8)>) {
        let BootState { good, trial, .. } = self.state();
        (good, trial.map(|trial| (trial.slot, trial.tries)))
    }

    /// Sets the remaining tries of a trial as GRUB does. Begins a trial if there is none in this slot.
    pub(crate) fn on_trial(&self, good: Slot, slot: Slot, tries: u8) {
        let state = BootState { good, ..self.state() };
        let trial = state.trial.filter(|trial| trial.slot == slot);
        let release = Some(release(99).id());
        let trial = trial.unwrap_or(Trial { slot, tries, release, since: None });
        self.set_state(BootState { trial: Some(Trial { tries, ..trial }), ..state });
    }

    /// Makes the CDN offer the n-th release.
    pub(crate) fn publish(&self, n: u64) {
        for role in Role::BOOT {
            let path = format!("/{n}.{}", role.extension());
            self.cdn.put(&path, Reply::ok(content(role, n)));
        }
        self.publish_manifest(&release(n));
    }

    /// Makes the CDN offer a manifest of this release.
    pub(crate) fn publish_manifest(&self, release: &Release) {
        self.publish_token(sign(&self.key, &claims(release)).unwrap());
    }

    /// Makes the CDN send these bytes as the manifest.
    pub(crate) fn publish_token(&self, token: impl Into<Vec<u8>>) {
        self.cdn.put(&format!("/{}", target().manifest_name()), Reply::ok(token));
    }

    /// Returns a command that runs the updater on this host.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_updater"));
        command.arg("--esp").arg(self.esp("")).arg("--host-root").arg(self.path("host"));
        command.arg("--longest-pause").arg("10").args(arguments);
        // The programs of this world take the place of the real systemctl.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.path("bin").display()));
        for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        command
    }

    /// Runs the updater on this host.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        Ran {
            code: status.code().expect("the updater was killed by a signal"),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Installs a program in the first directory of the updater's `PATH`.
    pub(crate) fn program(&self, name: &str, script: &str) {
        let path = format!("bin/{name}");
        self.write(&path, script);
        fs::set_permissions(self.path(&path), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Sets the JSON that loginctl prints as the list of sessions, as in systemd 256 and later.
    pub(crate) fn set_sessions(&self, json: &str) {
        let script = format!(
            "#!/bin/sh\ncase $1 in list-sessions) echo '{json}';; *) printf 'Class=user\\nState=active\\n';; esac\n"
        );
        self.program("loginctl", &script);
    }

    /// Sets the JSON that systemd-inhibit prints as the list of inhibitors, as in systemd 260 and later.
    pub(crate) fn set_inhibitors(&self, json: &str) {
        self.program("systemd-inhibit", &format!("#!/bin/sh\necho '{json}'\n"));
    }

    /// Returns the calls of systemctl and systemd-run since the last call of this function, one per line.
    pub(crate) fn commands(&self) -> String {
        let commands = fs::read_to_string(self.path("commands")).unwrap_or_default();
        let _ = fs::remove_file(self.path("commands"));
        commands
    }

    /// Returns whether a reboot was requested since the last call of this function or of
    /// [`Self::commands`].
    pub(crate) fn rebooted(&self) -> bool {
        self.commands().lines().any(|line| line.starts_with("systemctl reboot"))
    }

    /// Returns the digests of all files on the ESP except grubenv, for which there is [`Self::boots`].
    pub(crate) fn tree(&self) -> BTreeMap<PathBuf, String> {
        let mut files = tree(&self.esp(""));
        files.remove(&self.esp(GRUBENV));
        files
    }

    /// Asserts that a slot holds the complete n-th release.
    #[track_caller]
    pub(crate) fn assert_slot(&self, slot: Slot, n: u64) {
        self.assert_slot_with(slot, n, 0);
    }

    /// Asserts the same on a host with a broken source of configuration.
    #[track_caller]
    pub(crate) fn assert_slot_of_broken_host(&self, slot: Slot, n: u64) {
        self.assert_slot_with(slot, n, 1);
    }

    #[track_caller]
    fn assert_slot_with(&self, slot: Slot, n: u64, code: i32) {
        for role in Role::BOOT {
            let path = self.esp(&format!("etchaos/{slot}/{}", slot_file(role).unwrap()));
            assert!(fs::read(&path).unwrap() == content(role, n), "{}", path.display());
        }
        let status = self.run(&["status", "--json"]).ended(code).json();
        assert_eq!(status["slots"][slot.to_string()]["state"], "complete", "{status}");
    }
}

/// Waits for the end of a child. Returns the peak of its resident set, in KiB.
pub(crate) fn peak_memory(child: &mut Child) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(2));
    }
    peak
}

/// Returns the digests of all files in a directory and below.
pub(crate) fn tree(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let digest = sha256(&fs::read(&path).unwrap());
                found.insert(path, digest);
            }
        }
    }
    found
}
