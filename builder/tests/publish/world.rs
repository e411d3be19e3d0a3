//! Releases as a build leaves them, and runs of the builder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use protocol::release::{Document, document};
use protocol::token::{sign, verify};
use protocol::{Artifact, Claims, KeyRing, Manifest, PrivateKey, Release, Role, Target, Verified};
use serde_json::Value;
use tempfile::TempDir;

/// The validity of the manifests, in seconds.
pub(crate) const VALIDITY: u64 = 30 * 24 * 3600;
/// Variables that would change what the builder does.
const CLEARED: [&str; 8] = [
    "ETCHAOS_SIGNING_KEY",
    "ETCHAOS_SIGN_COMMAND",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
];

/// The time in Unix seconds.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The target of all releases.
pub(crate) fn target() -> Target {
    "deb_amd64".parse().unwrap()
}

/// Returns the sizes of the files, in KiB.
fn size(role: Role) -> usize {
    match role {
        Role::Kernel => 100,
        Role::Initrd => 400,
        Role::Disk => 200,
    }
}

/// Returns the content of a file: bytes that differ from those of every other file and release.
fn bytes(content: &str, name: &str, kibibytes: usize) -> Vec<u8> {
    format!("{content} {name}\n").into_bytes().into_iter().cycle().take(kibibytes << 10).collect()
}

/// A temporary directory with keys, releases and destinations.
pub(crate) struct World {
    directory: TempDir,
}

impl World {
    /// Creates the directory and the key `key`.
    pub(crate) fn new() -> Self {
        let world = Self { directory: tempfile::tempdir().unwrap() };
        world.keygen("key");
        world
    }

    /// Returns a path in the directory.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Runs `builder keygen`, as docs/keys.md says: the private key is in `NAME.key`, the public one in
    /// `NAME.pub`.
    pub(crate) fn keygen(&self, name: &str) {
        let public = self.run(&format!("keygen {name}.key")).ok();
        fs::write(self.path(&format!("{name}.pub")), public).unwrap();
    }

    /// Returns a private key.
    pub(crate) fn key(&self, name: &str) -> PrivateKey {
        fs::read_to_string(self.path(&format!("{name}.key"))).unwrap().parse().unwrap()
    }

    /// Writes a release to the artifacts directory of `<OUT>`, as `builder build` does.
    pub(crate) fn build(&self, out: &str, content: &str) {
        self.build_with(out, content, "key");
    }

    /// Writes a release that is signed with a key.
    pub(crate) fn build_with(&self, out: &str, content: &str, key: &str) {
        self.build_target(out, content, key, &target());
    }

    /// Writes a release of another target.
    pub(crate) fn build_target(&self, out: &str, content: &str, key: &str, target: &Target) {
        let directory = self.path(out).join(target.to_string());
        fs::create_dir_all(&directory).unwrap();
        let claims = claims(release(content, &directory, target));
        self.write_token(&directory.join(target.manifest_name()), &claims, key);
    }

    /// Signs claims and writes them to a directory under the name of the manifest.
    pub(crate) fn write_manifest(&self, directory: &Path, claims: &Claims, key: &str) {
        self.write_token(&directory.join(target().manifest_name()), claims, key);
    }

    /// Signs claims and writes them to a file.
    fn write_token(&self, file: &Path, claims: &Claims, key: &str) {
        let token = sign(&self.key(key), claims).unwrap() + "\n";
        fs::write(file, token).unwrap();
    }

    /// Returns the builder with arguments that are separated by spaces; paths are relative to the
    /// directory.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_builder"));
        command.current_dir(self.directory.path()).args(arguments.split_whitespace());
        for name in CLEARED {
            command.env_remove(name);
        }
        command
    }

    /// Runs the builder.
    pub(crate) fn run(&self, arguments: &str) -> Run {
        Run::of(self.command(arguments), arguments)
    }

    /// Publishes the release of `<OUT>` to `cdn`, with further options.
    pub(crate) fn publish(&self, out: &str, options: &str) -> Run {
        self.run(&publish(out, options))
    }

    /// Returns the manifest that is live in a directory, after `builder verify` has checked it.
    pub(crate) fn live(&self, cdn: &str, key: &str) -> Verified<Manifest> {
        let check = format!("verify deb --arch amd64 --from {cdn} --trusted-key @{key}.pub");
        self.run(&check).ok();
        let text = fs::read_to_string(self.path(cdn).join(target().manifest_name())).unwrap();
        let ring: KeyRing = self.key(key).public().clone().into();
        verify(&text, &ring).unwrap().try_into().unwrap()
    }

    /// Returns the content of the release that is live in a directory.
    pub(crate) fn content(&self, cdn: &str, key: &str) -> String {
        let live = self.live(cdn, key);
        let url = &live.release.artifact(Role::Kernel).unwrap().url;
        let text = fs::read_to_string(self.path(cdn).join(url)).unwrap();
        text.split(' ').next().unwrap().to_owned()
    }

    /// Returns all files below a directory, with their contents.
    pub(crate) fn tree(&self, directory: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = walkdir::WalkDir::new(self.path(directory)).into_iter().map(Result::unwrap);
        let files = entries.filter(|entry| entry.file_type().is_file());
        files.map(|entry| (entry.path().to_owned(), fs::read(entry.path()).unwrap())).collect()
    }
}

/// Returns the arguments of a publication to `cdn`. Options can name another destination or key.
pub(crate) fn publish(out: &str, options: &str) -> String {
    let or = |name: &str, default: &str| match options.split_whitespace().any(|word| word == name) {
        true => String::new(),
        false => format!("{name} {default}"),
    };
    format!(
        "publish deb --arch amd64 --out {out} --untested {} {} {options}",
        or("--to", "cdn"),
        or("--signing-key", "@key.key")
    )
}

/// Writes the files of a release and returns it.
fn release(content: &str, directory: &Path, target: &Target) -> Release {
    let write = |name: &str, kibibytes: usize| {
        let bytes = bytes(content, name, kibibytes);
        fs::write(directory.join(name), &bytes).unwrap();
        (bytes.len() as u64, protocol::digest::of_bytes(&bytes))
    };
    let artifact = |role: Role| {
        let name = target.artifact_name(role);
        let (size, sha256) = write(&name, size(role));
        Artifact { role, url: name.clone(), name, size, sha256, deltas: Vec::new() }
    };
    let name = format!("etchaos_{target}.spdx.json");
    let (size, sha256) = write(&name, 1);
    let kind = document::SBOM.to_owned();
    Release {
        schema: protocol::release::SCHEMA,
        variant: target.variant.clone(),
        arch: target.arch,
        version: format!("13.{content}"),
        build: 1,
        epoch: 1_763_600_000,
        kernel: "6.12.57".into(),
        recipe: "cd".repeat(32),
        artifacts: [Role::Kernel, Role::Initrd, Role::Disk].map(artifact).to_vec(),
        packages: Vec::new(),
        bootloader: Vec::new(),
        documents: vec![Document { kind, url: name.clone(), name, size, sha256 }],
        secure_boot: true,
        toolchain: BTreeMap::new(),
    }
}

/// Returns the claims of a manifest that is valid now.
pub(crate) fn claims(release: Release) -> Claims {
    Claims {
        iss: Some("etchaos".into()),
        iat: Some(now()),
        exp: Some(now() + VALIDITY),
        etchaos_release: Some(release),
        ..Claims::default()
    }
}

/// A run of the builder that has ended.
#[derive(Debug)]
pub(crate) struct Run {
    arguments: String,
    /// The exit code.
    pub(crate) code: Option<i32>,
    /// The standard output.
    pub(crate) stdout: String,
    /// The standard error.
    pub(crate) stderr: String,
}

impl Run {
    /// Runs a command to its end.
    pub(crate) fn of(mut command: Command, arguments: &str) -> Self {
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let run = Self {
            arguments: arguments.to_owned(),
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        };
        assert!(!run.stderr.contains("panicked"), "{run:#?}");
        run
    }

    /// Asserts that the run succeeded, and returns its standard output.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(
            self.code,
            Some(0),
            "{} failed:\n{}{}",
            self.arguments,
            self.stdout,
            self.stderr
        );
        self.stdout
    }

    /// Asserts that the run succeeded with `--json`, and returns the report of the publication.
    #[track_caller]
    pub(crate) fn report(self) -> Value {
        let value: Value = serde_json::from_str(&self.ok()).unwrap();
        value.get("release").cloned().unwrap_or(value)
    }

    /// Asserts that the run failed with exit code 1 and an error that contains all texts.
    #[track_caller]
    pub(crate) fn failed(self, texts: &[&str]) -> Self {
        assert_eq!(self.code, Some(1), "{self:#?}");
        for text in texts {
            assert!(self.stderr.contains(text), "expected {text:?} in\n{self:#?}");
        }
        self
    }
}
