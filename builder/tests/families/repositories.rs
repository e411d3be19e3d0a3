//! Repositories of packages that the test makes, and variants that are built from these.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::Server;

/// The scripts that make the repositories.
const SCRIPTS: [(&str, &str); 4] = [
    ("amend.sh", include_str!("amend.sh")),
    ("pacman.sh", include_str!("pacman.sh")),
    ("repositories.sh", include_str!("repositories.sh")),
    ("rpm.sh", include_str!("rpm.sh")),
];
/// The mark that ends a script in the input of a shell.
const END: &str = "END_OF_SCRIPT";

/// Two repositories with the same packages, one of RPM packages and one of pacman packages, on a server on
/// loopback.
pub(crate) struct Repositories {
    directory: TempDir,
    /// The directory that is served. It also has the keys.
    root: PathBuf,
    server: Server,
}

impl Repositories {
    /// Repackages Debian's packages in a sandbox that the builder makes. Takes minutes.
    pub(crate) fn make() -> Self {
        let out = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("out");
        fs::create_dir_all(&out).unwrap();
        let directory = tempfile::tempdir_in(out).unwrap();
        fs::create_dir(directory.path().join("own")).unwrap();
        let root = directory.path().join("repositories");
        let made = Self { server: Server::start(&root), directory, root };
        made.write("tbase", &format!("(import {}).base\n", json!(library())));
        let output = made.builder(&["render", "tbase", "--arch", "amd64"]);
        let rendered: Value = serde_json::from_slice(&output.stdout).unwrap();
        let packages = rendered["packages"].as_array().unwrap();
        let packages: Vec<&str> = packages.iter().map(|name| name.as_str().unwrap()).collect();
        made.shell("tbase", &script(&packages));
        fs::rename(made.out("tbase_amd64/work/repositories"), &made.root).unwrap();
        fs::rename(made.out("tbase_amd64/work/base.tar"), made.base()).unwrap();
        made
    }

    /// Writes a variant of `families.libsonnet`, whose packages have to be signed with a key: `key` or
    /// `other`.
    pub(crate) fn write_variant(&self, name: &str, key: &str, fingerprint: &str) {
        let read = |name: String| fs::read_to_string(self.root.join(name)).unwrap();
        let repository = json!({
            "url": self.server.url,
            "key": read(format!("{key}.asc")),
            "fingerprint": read(format!("{fingerprint}.fingerprint")).trim(),
        });
        let (library, base) = (json!(library()), json!(self.base()));
        self.write(name, &format!("(import {library}).{name}({repository}, {base})\n"));
    }

    /// Runs the builder with the variants, in the directory of the test.
    pub(crate) fn builder(&self, arguments: &[&str]) -> Output {
        let output = self.command(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}:\n{text}");
        output
    }

    /// Runs the builder, which has to fail, and returns its error.
    pub(crate) fn builder_fails(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}:\n{text}");
        text
    }

    /// Returns the path of a file in the output directory.
    pub(crate) fn out(&self, path: &str) -> PathBuf {
        self.directory.path().join("out").join(path)
    }

    /// Returns the path of a file in the directory of variants.
    pub(crate) fn own(&self, path: &str) -> PathBuf {
        self.directory.path().join("own").join(path)
    }

    /// Writes a file to the directory of variants.
    pub(crate) fn write_own(&self, path: &str, content: &str) {
        let path = self.own(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn write(&self, variant: &str, content: &str) {
        self.write_own(&format!("{variant}.jsonnet"), content);
    }

    fn base(&self) -> PathBuf {
        self.directory.path().join("base.tar")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_builder"));
        command.current_dir(self.directory.path()).args(["--variants", "own"]).args(arguments);
        command
    }

    /// Runs a script in the sandbox of a variant.
    fn shell(&self, variant: &str, script: &str) {
        let arguments =
            ["build", variant, "--arch", "amd64", "--engine", "namespace", "--shell", "init"];
        let mut child = self
            .command(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(output.status.success(), "making the repositories failed:\n{text}");
        eprintln!("{text}");
    }
}

fn library() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/families.libsonnet")
}

/// Returns what makes the repositories with these packages and their dependencies, and the sandbox of the
/// variants, in the work directory of a build.
fn script(packages: &[&str]) -> String {
    let mut text = String::from("set -eu\ncd /build\nmkdir scripts repositories\n");
    for (name, script) in SCRIPTS {
        text += &format!("cat >scripts/{name} <<'{END}'\n{script}{END}\n");
    }
    let packages = packages.join(" ");
    // Other file systems are mounted on these directories, and their files change while tar reads them. The archive
    // gets empty directories instead.
    text += "mkdir empty empty/dev empty/proc empty/run empty/sys\n\
             tar --create --file=base.tar --xattrs --numeric-owner --one-file-system --exclude=./build/* \
             --exclude=./dev --exclude=./proc --exclude=./run --exclude=./sys --directory=/ . \
             --directory=/build/empty dev proc run sys\n";
    // Programs must not read the rest of this script as their input.
    text += &format!(
        "JOBS=$(nproc) bash scripts/repositories.sh repositories {packages} </dev/null\n\
         rm -rf repositories/debs repositories/trees repositories/gnupg-*\n"
    );
    text
}
