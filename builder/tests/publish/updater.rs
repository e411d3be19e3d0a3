//! A host that runs the real updater.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use protocol::esp::Slot;
use protocol::grubenv::BootState;
use protocol::token::{sign, verify};
use protocol::{Claims, KeyRing, Manifest, PrivateKey, Release, Role, Verified};
use tempfile::TempDir;

use crate::world::target;

/// The files that the running release has in slot a; their content does not matter here.
const FILES: [(&str, Role); 2] = [("vmlinuz", Role::Kernel), ("initrd", Role::Initrd)];

/// Compiles the updater, if that has not been done, and returns the path of the program.
pub(crate) fn compile() -> PathBuf {
    let directory = Path::new(env!("CARGO_BIN_EXE_builder")).parent().unwrap();
    let profile = directory.file_name().unwrap().to_str().unwrap().replace("debug", "dev");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "updater", "--bin", "updater"])
        .args(["--profile", &profile])
        .arg("--target-dir")
        .arg(directory.parent().unwrap())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(status.unwrap().success(), "the updater cannot be compiled");
    directory.join("updater")
}

/// A host with an ESP, which runs a release in slot a.
pub(crate) struct RealHost {
    directory: TempDir,
    updater: PathBuf,
    trusted: KeyRing,
}

impl RealHost {
    /// Installs a release on a host that polls `url`.
    pub(crate) fn new(updater: PathBuf, url: &str, key: &PrivateKey, running: &Release) -> Self {
        let trusted = key.public().clone().into();
        let host = Self { directory: tempfile::tempdir().unwrap(), updater, trusted };
        host.write("host/usr/lib/etchaos/keys", key.public().to_string());
        host.write("host/etc/os-release", "ID=debian\nVARIANT_ID=deb\nIMAGE_VERSION=13.1\n");
        host.write("host/usr/lib/etchaos/updater.json", format!(r#"{{"cdn": "{url}"}}"#));
        host.write("host/proc/cmdline", "quiet etchaos.slot=a\n");
        host.write("host/proc/sys/kernel/random/boot_id", "00000001-1111\n");
        host.write("host/run/x", "");
        let mut release = Release { build: 0, ..running.clone() };
        for (name, role) in FILES {
            host.write(&format!("esp/etchaos/a/{name}"), name);
            let artifact = release.artifacts.iter_mut().find(|it| it.role == role).unwrap();
            artifact.size = name.len() as u64;
            artifact.sha256 = protocol::digest::of_bytes(name.as_bytes());
        }
        let claims = Claims { etchaos_release: Some(release), ..Claims::default() };
        host.write("esp/etchaos/a/release.jwt", sign(key, &claims).unwrap());
        for program in ["systemctl", "systemd-run", "loginctl", "systemd-inhibit"] {
            host.write(&format!("bin/{program}"), "#!/bin/sh\necho '[]'\n");
            let path = host.path(&format!("bin/{program}"));
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Updates the host, which has nothing in slot b. Returns the build number that was installed.
    ///
    /// # Errors
    /// Fails as the updater does.
    pub(crate) fn update(&self) -> Result<u64, String> {
        let _ = fs::remove_dir_all(self.path("esp/etchaos/b"));
        self.write("esp/etchaos/grubenv", BootState::with_good(Slot::A).to_bytes());
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new(&self.updater)
            .arg("--esp")
            .arg(self.path("esp"))
            .arg("--host-root")
            .arg(self.path("host"))
            .arg("update")
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("no_proxy", "*")
            .output()
            .unwrap();
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = fs::read_to_string(self.path("esp/etchaos/b/release.jwt")).unwrap();
        let manifest: Verified<Manifest> =
            verify(&text, &self.trusted).unwrap().try_into().unwrap();
        assert_eq!(manifest.release.target(), target());
        for (name, role) in FILES {
            let bytes = fs::read(self.path(&format!("esp/etchaos/b/{name}"))).unwrap();
            let expected = &manifest.release.artifact(role).unwrap().sha256;
            assert_eq!(protocol::digest::of_bytes(&bytes), *expected, "{name}");
        }
        Ok(manifest.release.build)
    }
}
