//! A host that Etcha administers: it pulls the manifest as a Pattern and runs its Commands with a shell.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use protocol::esp::Slot;
use protocol::grubenv::{Block, BootState, TRIES, Trial};
use protocol::pattern::{
    self, Entry, Invocation, Mode, Options, Outcome, Output, Pattern, Report, Shell, Stream,
};
use protocol::{Manifest, Role, Verified};

use crate::judge::skip;
use crate::server::Server;
use crate::world::World;

/// The shells that Patterns may be run with: Etcha's default, and that of EtchaOS until 0.2.
const FLAGS: [&[&str]; 2] = [&["-e", "-o", "pipefail", "-c"], &["-c"]];

/// A host with an ESP, and the programs that would act on the machine of the test.
struct Host {
    directory: tempfile::TempDir,
    flags: &'static [&'static str],
    /// The variables of the program that runs the Commands.
    env: BTreeMap<String, String>,
}

impl Host {
    /// Creates a host whose slot `a` is good, and which has variables of other programs in grubenv.
    fn new(server: &Server, flags: &'static [&'static str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["esp/etchaos/a", "esp/etchaos/b", "run", "bin"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        fs::write(path("esp/etchaos/grub.cfg"), "").unwrap();
        fs::write(path("esp/etchaos/a/vmlinuz"), "the good kernel").unwrap();
        let mut grubenv = Block::default();
        let state = BootState { boots: 2, ..BootState::with_good(Slot::A) };
        state.write(&mut grubenv);
        grubenv.set("other_program", "a value = with \"signs\" $(x) 'y' `z`");
        grubenv.set("etchaos_disk", "00112233aabbccdd");
        grubenv.set_displayed_version(Slot::A, "13.1");
        grubenv.set_displayed_version(Slot::B, "13.0");
        fs::write(path("esp/etchaos/grubenv"), grubenv.to_bytes().unwrap()).unwrap();
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let env = BTreeMap::from([
            ("ETCHAOS_CDN".into(), format!("{}/", server.url)),
            ("ETCHAOS_ESP".into(), text(path("esp"))),
            ("ETCHAOS_RUN".into(), text(path("run"))),
            ("PATH".into(), format!("{}:{}", text(path("bin")), std::env::var("PATH").unwrap())),
        ]);
        let host = Self { directory, flags, env };
        host.program("systemctl", "echo \"$*\" >>\"${0%/*}/../rebooted\"");
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Puts a program before all others of this name.
    fn program(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn grubenv(&self) -> Block {
        Block::parse(&fs::read(self.path("esp/etchaos/grubenv")).unwrap()).unwrap()
    }

    fn state(&self) -> BootState {
        BootState::read(&self.grubenv()).unwrap()
    }

    fn set_state(&self, change: impl FnOnce(&mut BootState)) {
        let (mut grubenv, mut state) = (self.grubenv(), self.state());
        change(&mut state);
        state.write(&mut grubenv);
        fs::write(self.path("esp/etchaos/grubenv"), grubenv.to_bytes().unwrap()).unwrap();
    }

    fn has_rebooted(&self) -> bool {
        self.path("rebooted").exists()
    }

    /// Runs the Commands of a manifest.
    fn run(&mut self, manifest: &Manifest) -> Report {
        self.run_in(manifest, Mode::Change)
    }

    fn run_in(&mut self, manifest: &Manifest, mode: Mode) -> Report {
        let options = Options::new(mode, "etcha");
        pattern::run(&pattern(manifest), None, &options, self).unwrap()
    }

    /// Asserts that slot `b` holds the release, and is on trial.
    fn assert_installed(&self, world: &World, manifest: &Manifest) {
        let release = &manifest.release;
        for (role, name) in [(Role::Kernel, "vmlinuz"), (Role::Initrd, "initrd")] {
            let bytes = fs::read(self.path("esp/etchaos/b").join(name)).unwrap();
            assert_eq!(protocol::digest::of_bytes(&bytes), release.artifact(role).unwrap().sha256);
        }
        let installed = fs::read_to_string(self.path("esp/etchaos/b/release.jwt")).unwrap();
        let ring = world.key("key").public().clone().into();
        let claims = protocol::token::verify(&installed, &ring).unwrap();
        assert_eq!(claims.etchaos_release.as_ref(), Some(release));
        assert_eq!(names(&self.path("esp/etchaos/b")), ["initrd", "release.jwt", "vmlinuz"]);
        let state = self.state();
        let trial = state.trial.unwrap();
        assert_eq!((trial.slot, trial.tries, trial.release), (Slot::B, TRIES, Some(release.id())));
        assert!(trial.since.is_some());
        assert_eq!((state.good, state.boots), (Slot::A, 2));
        let block = self.grubenv();
        assert_eq!(block.get("other_program"), Some("a value = with \"signs\" $(x) 'y' `z`"));
        assert_eq!(block.get("etchaos_disk"), Some("00112233aabbccdd"));
        assert_eq!(block.get("etchaos_version_a"), Some("13.1"));
        assert_eq!(block.get("etchaos_version_b"), Some(release.version.as_str()));
    }
}

impl Shell for Host {
    type Error = io::Error;

    fn run(&mut self, invocation: &Invocation<'_>) -> io::Result<Output> {
        let output = Command::new("bash")
            .args(self.flags)
            .arg(format!("exec 2>&1\n{}", invocation.script))
            .env_remove("ETCHAOS_CDN")
            .envs(&self.env)
            .envs(invocation.env)
            .current_dir("/")
            .stdin(Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(Output { code: output.status.code().unwrap_or(-1), text })
    }

    fn print(&mut self, id: &str, _: Stream, output: &str) {
        panic!("{id} prints {output}");
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = directory.read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Returns the rendered Pattern of a manifest.
fn pattern(manifest: &Manifest) -> Pattern {
    manifest.claims.etcha_pattern.as_ref().unwrap().pattern().unwrap()
}

fn outcomes(report: &Report) -> Vec<(&str, Outcome)> {
    report.results.iter().map(|result| (result.id.as_str(), result.outcome)).collect()
}

const INSTALLED: [(&str, Outcome); 2] =
    [("etchaos install", Outcome::Changed), ("etchaos reboot", Outcome::Changed)];
const NOTHING: [(&str, Outcome); 2] =
    [("etchaos install", Outcome::Ok), ("etchaos reboot", Outcome::Skipped)];

/// A world with a published release, its manifest, and a server of the CDN.
fn published() -> (World, Verified<Manifest>, Server) {
    let world = World::new();
    world.build("out", "one");
    world.publish("out", "").ok();
    let manifest = world.live("cdn", "key");
    let server = Server::start(&world.path("cdn"));
    (world, manifest, server)
}

/// Asserts that the installation fails with a text, that the good slot still boots, and that the host
/// does not reboot.
fn assert_fails(host: &mut Host, manifest: &Manifest, text: &str) {
    let report = host.run(manifest);
    let failed = report.failures().next().unwrap_or_else(|| panic!("{report:?}"));
    assert!(failed.output.contains(text), "expected {text:?} in {}", failed.output);
    assert!(!host.has_rebooted());
    let state = host.state();
    assert_eq!(state.good, Slot::A);
    assert!(state.trial.is_none_or(|trial| trial.tries == 0), "{state:?}");
}

#[test]
fn installs_the_release_and_reboots_once() {
    let (world, manifest, server) = published();
    for flags in FLAGS {
        let mut host = Host::new(&server, flags);
        let check = host.run_in(&manifest, Mode::Check);
        assert_eq!(check.unmet().count(), 1, "{check:?}");
        assert_eq!(names(&host.path("esp/etchaos/b")), [""; 0]);

        let report = host.run(&manifest);
        assert_eq!(outcomes(&report), INSTALLED, "{report:?}");
        host.assert_installed(&world, &manifest);
        let rebooted = fs::read_to_string(host.path("rebooted")).unwrap();
        assert_eq!(rebooted, "--no-block reboot\n");

        // The release boots and is confirmed.
        host.set_state(|state| *state = BootState::with_good(Slot::B));
        assert_eq!(outcomes(&host.run(&manifest)), NOTHING);
        // The other slot is next.
        world.build("out", "two");
        world.publish("out", "").ok();
        let newer = world.live("cdn", "key");
        let report = host.run(&newer);
        assert_eq!(outcomes(&report), INSTALLED, "{report:?}");
        assert_eq!(host.state().trial.unwrap().slot, Slot::A);
        // For the other shell.
        world.publish("out", "--to other").ok();
    }
}

#[test]
fn a_wrong_digest_is_never_installed() {
    let (world, manifest, server) = published();
    let mut host = Host::new(&server, FLAGS[0]);
    let initrd = manifest.release.artifact(Role::Initrd).unwrap();
    let mut bytes = fs::read(world.path("cdn").join(&initrd.url)).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    server.keep_in_cache(&initrd.url, bytes.clone());
    assert_fails(&mut host, &manifest, "another SHA-256");
    assert!(!host.path("esp/etchaos/b/initrd").exists());
    assert!(!host.path("esp/etchaos/b/release.jwt").exists());
    // Too long, too short, and an error page.
    bytes[last] ^= 1;
    server.keep_in_cache(&initrd.url, bytes[..1000].to_vec());
    assert_fails(&mut host, &manifest, "is incomplete");
    server.keep_in_cache(&initrd.url, [&b"x"[..], &bytes].concat());
    assert_fails(&mut host, &manifest, "another SHA-256");
    // The CDN is repaired.
    server.keep_in_cache(&initrd.url, bytes);
    let report = host.run(&manifest);
    assert_eq!(outcomes(&report), INSTALLED, "{report:?}");
    host.assert_installed(&world, &manifest);
}

#[test]
fn a_manifest_of_another_build_is_refused() {
    let (world, manifest, server) = published();
    let mut host = Host::new(&server, FLAGS[0]);
    world.build("out", "two");
    world.publish("out", "").ok();
    // The live manifest is that of a newer build; the history has this one.
    let report = host.run(&manifest);
    assert_eq!(outcomes(&report), INSTALLED, "{report:?}");
    host.assert_installed(&world, &manifest);

    let mut host = Host::new(&server, FLAGS[1]);
    let history = format!("deb_amd64/history/{}.jwt", manifest.release.build);
    for other in ["", "a.b.c", "<html>"] {
        server.keep_in_cache(&history, other.into());
        assert_fails(&mut host, &manifest, "is the manifest of build");
        assert_eq!(names(&host.path("esp/etchaos/b")), [""; 0]);
    }
}

#[test]
fn an_interrupted_installation_leaves_no_trial_and_is_continued() {
    let (world, manifest, server) = published();
    let mut host = Host::new(&server, FLAGS[0]);
    for name in ["release.jwt", "good", "started", "vmlinuz", "initrd"] {
        fs::write(host.path("esp/etchaos/b").join(name), "of an older release").unwrap();
    }
    host.set_state(|state| {
        state.trial = Some(Trial { slot: Slot::B, tries: 2, release: None, since: None });
    });
    // A program that fails stands for a power cut.
    host.program(
        "dd",
        "case $* in *iflag*) exit 1;; esac; exec /usr/bin/dd \"$@\" || exec /bin/dd \"$@\"",
    );
    let report = host.run(&manifest);
    assert_eq!(report.failures().count(), 1, "{report:?}");
    assert!(host.state().trial.is_none() && !host.has_rebooted());
    assert_eq!(names(&host.path("esp/etchaos/b")), ["partial.jwt", "vmlinuz"]);
    fs::remove_file(host.path("bin/dd")).unwrap();
    // What was downloaded is not downloaded again.
    let kernel = manifest.release.artifact(Role::Kernel).unwrap();
    server.keep_in_cache(&kernel.url, b"another".to_vec());
    let report = host.run(&manifest);
    assert_eq!(outcomes(&report), INSTALLED, "{report:?}");
    host.assert_installed(&world, &manifest);
}

#[test]
fn a_release_that_failed_is_not_installed_again() {
    let (_world, manifest, server) = published();
    let id = manifest.release.id();
    let mut host = Host::new(&server, FLAGS[0]);
    host.set_state(|state| state.failed = Some(id));
    let report = host.run(&manifest);
    assert_eq!(outcomes(&report), NOTHING, "{report:?}");
    assert!(report.results[0].output.contains("failed its trial"), "{report:?}");
    let mut host = Host::new(&server, FLAGS[0]);
    host.set_state(|state| {
        state.trial = Some(Trial { slot: Slot::B, tries: 0, release: Some(id), since: None });
    });
    assert_eq!(outcomes(&host.run(&manifest)), NOTHING);
}

#[test]
fn says_what_is_missing() {
    let (_world, manifest, server) = published();
    let mut host = Host::new(&server, FLAGS[1]);
    let cdn = host.env.remove("ETCHAOS_CDN").unwrap();
    assert_fails(&mut host, &manifest, "set ETCHAOS_CDN");
    host.env.insert("ETCHAOS_CDN".into(), "http://127.0.0.1:1".into());
    assert_fails(&mut host, &manifest, "is the manifest of build");
    host.env.insert("ETCHAOS_CDN".into(), cdn);
    fs::remove_file(host.path("esp/etchaos/grub.cfg")).unwrap();
    let report = host.run(&manifest);
    assert!(report.results[0].output.contains("is not an ESP of EtchaOS"), "{report:?}");
}

#[test]
fn mounts_the_esp_of_the_updater_and_waits_for_its_lock() {
    let (world, manifest, server) = published();
    let mut host = Host::new(&server, FLAGS[0]);
    host.env.insert("ETCHAOS_ESP".into(), String::new());
    let esp = host.path("esp");
    fs::write(host.path("run/boot-disk"), "").unwrap();
    // The directory of the mount point becomes a link to that of the ESP.
    host.program(
        "mount",
        &format!(
            "for to in \"$@\"; do :; done; rmdir \"$to\"; ln -s '{}' \"$to\"; echo x >>'{}'",
            esp.display(),
            host.path("mounted").display()
        ),
    );
    host.program("umount", &format!("rm \"$2\"; echo x >>'{}'", host.path("unmounted").display()));
    if ["/efi", "/boot/efi", "/boot"]
        .iter()
        .any(|at| Path::new(at).join("etchaos/grub.cfg").exists())
    {
        skip("this machine has an ESP of EtchaOS");
        return;
    }
    let report = host.run(&manifest);
    assert_eq!(outcomes(&report), INSTALLED, "{report:?}");
    host.assert_installed(&world, &manifest);
    let count = |name: &str| fs::read_to_string(host.path(name)).unwrap().lines().count();
    assert_eq!((count("mounted"), count("unmounted")), (2, 2));

    // The updater locks the directory.
    let mut host = Host::new(&server, FLAGS[0]);
    let directory = fs::File::open(host.path("run")).unwrap();
    directory.lock().unwrap();
    host.program("flock", "exec /usr/bin/flock -n 9");
    assert_fails(&mut host, &manifest, "another program writes to the ESP");
}

#[test]
fn shellcheck_accepts_the_commands() {
    let (_world, manifest, _server) = published();
    if Command::new("shellcheck").arg("--version").output().is_err() {
        skip("the Commands of a manifest cannot be checked: no shellcheck");
        return;
    }
    let mut scripts = Vec::new();
    for entry in pattern(&manifest).run {
        let Entry::Command(command) = entry else { panic!("{entry:?}") };
        scripts.extend([command.check, command.change].into_iter().flatten());
    }
    assert_eq!(scripts.len(), 3);
    let directory = tempfile::tempdir().unwrap();
    for script in scripts {
        let path = directory.path().join("script.sh");
        fs::write(&path, &script).unwrap();
        // Not every Command uses each value.
        let output = Command::new("shellcheck")
            .args(["--shell=bash", "--exclude=SC2034"])
            .arg(&path)
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}
