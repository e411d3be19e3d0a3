//! Compiles the updater for the image.
//!
//! Its programs are static, so that they run with the libc of every variant. The same source gives the
//! same bytes in every directory: the paths that compilers embed are remapped, for Rust and for the C
//! code of the crypto library.
//!
//! For another architecture, the pinned toolchain compiles with a standard library that rustup installs. Where
//! rustup cannot, Debian's compiler does, in a sandbox that has both.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use protocol::Arch;
use protocol::pattern::Exec;

use crate::cargo::Cargo;
use crate::command::Tool;
use crate::lock::lock_or_wait;
use crate::log_file::{LogFile, Origin};
use crate::sandbox::namespace::NamespaceSandbox;
use crate::sandbox::{Sandbox, Script};
use crate::triple;

/// Separates flags in `CARGO_ENCODED_RUSTFLAGS`; `RUSTFLAGS` would split paths at spaces.
const FLAG_SEPARATOR: &str = "\x1f";

/// Packs relative relocations: 8 bytes describe up to 63 pointers, instead of 24 bytes for each pointer. A process
/// reads all of its relocations when it starts, so this saves the updater 300 KiB of memory.
const PACK_RELOCATIONS: &str = "-Clink-arg=-Wl,-z,pack-relative-relocs";
/// The first version of glibc whose static programs apply packed relocations.
const GLIBC_WITH_PACKED: (u32, u32) = (2, 36);

/// The directories in the sandbox. Compilers embed the first two, which have the names that replace paths of
/// the build host.
const SANDBOX_WORKSPACE: &str = "/etchaos";
const SANDBOX_CARGO_HOME: &str = "/cargo";
const SANDBOX_TARGET: &str = "/target";

/// The compiled updater.
#[derive(Debug)]
pub(crate) struct UpdaterBinary {
    /// The program `etchaos-updater`.
    pub path: PathBuf,
    /// The program `etchaos-render`, which must be in the same directory on a host.
    pub renderer: PathBuf,
    /// The programs that compiled it, with their versions.
    pub toolchain: BTreeMap<String, String>,
    /// Keeps other builds from compiling it again.
    _lock: File,
}

/// Compiles the package `updater` of the workspace.
///
/// Calls `sandbox` if the toolchain of this machine cannot compile for the architecture. It returns a sandbox
/// with Rust and a C compiler for it.
pub(crate) fn build(
    workspace: &Path,
    arch: Arch,
    sandbox: impl FnOnce(&mut LogFile) -> Result<NamespaceSandbox>,
    log: &mut LogFile,
) -> Result<UpdaterBinary> {
    let compilation = Compilation { workspace, arch, target: workspace.join("target/image") };
    let temporary = compilation.temporary();
    fs::create_dir_all(&temporary).with_context(|| format!("creating {}", temporary.display()))?;
    // Builds for several architectures can run at the same time. Those for one share a home of cargo, the result,
    // and the base of the sandbox in the cache.
    let directory = compilation.target.join(triple::rust(arch));
    fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
    let lock = lock_or_wait(&directory.join("lock"), || {
        log.step("waiting for another build, which compiles the updater");
    })?;
    let cargo = Cargo::open(workspace, &directory, log)?;
    let (directory, toolchain) = if !compilation.is_foreign()
        || cargo.add_target(triple::rust(arch), log)?
    {
        compilation.on_host(&cargo, log)?
    } else {
        log.step(&format!("compiling the updater for {arch} with Debian's compiler in a sandbox"));
        compilation.in_sandbox(&cargo, sandbox(log)?, log)?
    };
    let (path, renderer) = (directory.join("updater"), directory.join("etchaos-render"));
    Ok(UpdaterBinary { path, renderer, toolchain, _lock: lock })
}

/// The directory of the compiled programs, and the programs that compiled them, with their versions.
type Compiled = (PathBuf, BTreeMap<String, String>);

struct Compilation<'a> {
    workspace: &'a Path,
    arch: Arch,
    target: PathBuf,
}

impl Compilation<'_> {
    fn is_foreign(&self) -> bool {
        Arch::native() != Some(self.arch)
    }

    fn temporary(&self) -> PathBuf {
        self.target.join("tmp")
    }

    /// Returns the directory of the programs below the target directory.
    fn programs(&self) -> PathBuf {
        Path::new(triple::rust(self.arch)).join("image")
    }

    fn on_host(&self, cargo: &Cargo, log: &mut LogFile) -> Result<Compiled> {
        let mut tool = cargo.tool("cargo").args(self.arguments());
        for (name, path) in [
            ("--manifest-path", self.workspace.join("Cargo.toml")),
            ("--target-dir", self.target.clone()),
        ] {
            tool = tool.arg(name).arg(path);
        }
        let mut flags = rust_flags(&cargo.remaps());
        if !self.is_foreign() && applies_packed_relocations(&libc_version(log)?) {
            flags.push(PACK_RELOCATIONS.to_owned());
        }
        for (name, value) in self.environment(&cargo.remaps(), &flags) {
            tool = tool.env(&name, value);
        }
        let tool = tool.env("TMPDIR", self.temporary());
        log.timed("compile the updater", Origin::Built, |log| tool.run(log))
            .context("compiling the updater")?;
        let toolchain = cargo.toolchain(&self.versions(), log)?;
        Ok((self.target.join(self.programs()), toolchain))
    }

    /// Compiles in a sandbox, without network: cargo of this machine fetches the sources.
    fn in_sandbox(
        &self,
        cargo: &Cargo,
        sandbox: NamespaceSandbox,
        log: &mut LogFile,
    ) -> Result<Compiled> {
        self.fetch(cargo, log).context("fetching the sources of the updater")?;
        let target = self.target.join("sandbox");
        fs::create_dir_all(&target).with_context(|| format!("creating {}", target.display()))?;
        let home = |name: &str| Path::new(SANDBOX_CARGO_HOME).join(name);
        let sandbox = sandbox
            .with_bind(self.workspace, Path::new(SANDBOX_WORKSPACE))
            .with_bind(&target, Path::new(SANDBOX_TARGET))
            .with_bind(&cargo.home().join("config.toml"), &home("config.toml"))
            .with_bind(&cargo.home().join("registry"), &home("registry"))
            .with_bind(&cargo.home().join("git"), &home("git"));
        let mut env = self.environment(&[], &rust_flags(&[]));
        for (name, value) in
            [("CARGO_HOME", SANDBOX_CARGO_HOME), ("HOME", "/root"), ("LC_ALL", "C.UTF-8")]
        {
            env.insert(name.to_owned(), value.to_owned());
        }
        let script = format!(
            "cargo {} --manifest-path {SANDBOX_WORKSPACE}/Cargo.toml --target-dir {SANDBOX_TARGET} --offline",
            self.arguments().join(" ")
        );
        let compile = |log: &mut LogFile| run(&sandbox, &script, &env, log);
        log.timed("compile the updater", Origin::Built, compile)
            .context("compiling the updater")?;
        let mut toolchain = BTreeMap::new();
        let rustc = ("rustc", vec!["rustc".to_owned(), "--version".to_owned()]);
        for (name, command) in [rustc].into_iter().chain(self.versions()) {
            let words: Vec<String> = command.iter().map(|word| format!("'{word}'")).collect();
            let text = run(&sandbox, &words.join(" "), &env, log)?;
            let first = text.lines().next().unwrap_or_default().trim();
            toolchain.insert(name.to_owned(), first.to_owned());
        }
        Ok((target.join(self.programs()), toolchain))
    }

    /// Downloads the sources for the updater, and for the build scripts, which run on this machine.
    fn fetch(&self, cargo: &Cargo, log: &mut LogFile) -> Result<()> {
        let native = Arch::native().map_or(triple::rust(self.arch), triple::rust);
        let fetch = cargo.tool("cargo").args([
            "fetch",
            "--locked",
            "--target",
            native,
            "--target",
            triple::rust(self.arch),
        ]);
        fetch.arg("--manifest-path").arg(self.workspace.join("Cargo.toml")).run(log)?;
        Ok(())
    }

    /// Returns the arguments of cargo, except for paths.
    fn arguments(&self) -> [&'static str; 8] {
        let triple = triple::rust(self.arch);
        ["build", "--profile", "image", "--locked", "--package", "updater", "--target", triple]
    }

    /// Returns the variables that decide how cargo compiles.
    fn environment(&self, remaps: &[String], rust_flags: &[String]) -> BTreeMap<String, String> {
        let name = triple::rust(self.arch).replace('-', "_");
        let mut env = BTreeMap::from([
            ("CARGO_ENCODED_RUSTFLAGS".to_owned(), rust_flags.join(FLAG_SEPARATOR)),
            (format!("CFLAGS_{name}"), c_flags(remaps)),
            // Lets the crate `cc` read the quotes of `c_flags`.
            ("CC_SHELL_ESCAPED_FLAGS".to_owned(), "1".to_owned()),
            ("CARGO_INCREMENTAL".to_owned(), "0".to_owned()),
        ]);
        if self.is_foreign() {
            let prefix = triple::gnu(self.arch);
            env.insert(format!("CC_{name}"), format!("{prefix}-gcc"));
            env.insert(format!("AR_{name}"), format!("{prefix}-ar"));
            let linker = format!("CARGO_TARGET_{}_LINKER", name.to_uppercase());
            env.insert(linker, format!("{prefix}-gcc"));
        }
        env
    }

    /// Returns the commands that print the versions of the C compiler, the linker, and the C library, which is
    /// linked into the program.
    fn versions(&self) -> Vec<(&'static str, Vec<String>)> {
        let of = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        if !self.is_foreign() {
            let programs = [("cc", "cc"), ("ld", "ld"), ("libc", "ldd")];
            return programs.map(|(name, program)| (name, of(&[program, "--version"]))).into();
        }
        let prefix = triple::gnu(self.arch);
        let (_, libc) = triple::packages(self.arch);
        vec![
            ("cc", of(&[&format!("{prefix}-gcc"), "--version"])),
            ("ld", of(&[&format!("{prefix}-ld"), "--version"])),
            ("libc", of(&["dpkg-query", "--show", "--showformat=${Package} ${Version}", libc])),
        ]
    }
}

/// Runs a script in the sandbox and returns its standard output.
fn run(
    sandbox: &NamespaceSandbox,
    text: &str,
    env: &BTreeMap<String, String>,
    log: &mut LogFile,
) -> Result<String> {
    log.forget_tail();
    log.quote(text);
    let finished = sandbox.run(&Script { exec: &Exec::new("/bin/bash", "-c"), text, env }, log)?;
    ensure!(
        finished.code == 0,
        "{text}\n  ended with exit code {} in the sandbox; its last lines:\n{}",
        finished.code,
        log.tail()
    );
    Ok(finished.stdout)
}

fn rust_flags(remaps: &[String]) -> Vec<String> {
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.extend(remaps.iter().map(|map| format!("--remap-path-prefix={map}")));
    flags
}

/// Returns the version of this machine's C library, such as `glibc 2.41`.
fn libc_version(log: &mut LogFile) -> Result<String> {
    let version = Tool::new("getconf").arg("GNU_LIBC_VERSION").run(log);
    version.context("determining the version of the C library")
}

/// Returns whether static programs with this C library apply packed relocations. With an older one they crash.
fn applies_packed_relocations(libc: &str) -> bool {
    let numbers = libc.trim().strip_prefix("glibc ").and_then(|version| {
        let mut parts = version.split('.').map(str::parse::<u32>);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    });
    numbers.is_some_and(|version| version >= GLIBC_WITH_PACKED)
}

/// Returns the flags for C, each quoted as for a shell.
fn c_flags(remaps: &[String]) -> String {
    let quoted = remaps.iter().map(|map| {
        let flag = format!("-ffile-prefix-map={map}");
        format!("'{}'", flag.replace('\'', r"'\''"))
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::skip;
    use crate::progress::Bar;

    /// Writes a workspace whose updater prints the path of its source, and returns its directory.
    fn workspace(directory: &Path) -> PathBuf {
        let workspace = directory.join("it's a checkout");
        fs::create_dir_all(workspace.join("src")).unwrap();
        let manifest = "[package]\nname = \"updater\"\nedition = \"2024\"\n\
                        [profile.image]\ninherits = \"release\"\n";
        fs::write(workspace.join("Cargo.toml"), manifest).unwrap();
        let pin = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rust-toolchain.toml");
        fs::copy(pin, workspace.join("rust-toolchain.toml")).unwrap();
        // Settings of the build host must not change the program, or break it.
        let config = "[build]\nrustc-wrapper = 'false'\n[env]\nCARGO_ENCODED_RUSTFLAGS = 'x'\n";
        fs::create_dir(directory.join(".cargo")).unwrap();
        fs::write(directory.join(".cargo/config.toml"), config).unwrap();
        fs::write(
            workspace.join("Cargo.lock"),
            "version = 4\n[[package]]\nname = \"updater\"\nversion = \"0.0.0\"\n",
        )
        .unwrap();
        fs::write(workspace.join("src/main.rs"), "fn main() { println!(\"{}\", file!()) }")
            .unwrap();
        workspace
    }

    /// Compiles the updater of a workspace for this machine.
    fn build_native(workspace: &Path, arch: Arch, log: &Path) -> UpdaterBinary {
        let mut log = LogFile::create(log, Bar::start("test")).unwrap();
        let sandbox = |_: &mut LogFile| anyhow::bail!("a native build needs no sandbox");
        build(workspace, arch, sandbox, &mut log).unwrap()
    }

    /// Returns the architecture to compile for, or skips the test.
    fn native() -> Option<Arch> {
        if !nix::unistd::geteuid().is_root() {
            skip("the command runner needs root");
            return None;
        }
        if Arch::native().is_none() {
            skip("EtchaOS does not support the architecture of this machine");
        }
        Arch::native()
    }

    #[test]
    fn compiles_in_directory_with_space() {
        let Some(arch) = native() else { return };
        let directory = tempfile::tempdir().unwrap();
        let workspace = workspace(directory.path());
        let updater = build_native(&workspace, arch, &directory.path().join("log"));
        assert!(updater.path.is_file(), "{}", updater.path.display());
        let program = fs::read(&updater.path).unwrap();
        let path = b"a checkout";
        assert!(
            !program.windows(path.len()).any(|text| text == path),
            "the path is in the program"
        );
        let names: Vec<&str> = updater.toolchain.keys().map(String::as_str).collect();
        assert_eq!(names, ["cc", "ld", "libc", "rustc"]);
    }

    #[test]
    fn builds_at_the_same_time_get_the_same_program() {
        let Some(arch) = native() else { return };
        let directory = tempfile::tempdir().unwrap();
        let workspace = workspace(directory.path());
        let compile = |number: u32| {
            let log = directory.path().join(format!("log{number}"));
            let updater = build_native(&workspace, arch, &log);
            // The others wait while this one reads the program.
            (fs::read(&updater.path).unwrap(), fs::read_to_string(log).unwrap())
        };
        let compile = &compile;
        let all = std::thread::scope(|scope| {
            let threads = [1, 2, 3].map(|number| scope.spawn(move || compile(number)));
            threads.map(|thread| thread.join().unwrap())
        });
        assert!(all.iter().all(|(program, _)| *program == all[0].0));
        let waited = all.iter().filter(|(_, log)| log.contains("waiting for another build"));
        assert!(waited.count() >= 1);
    }

    #[test]
    fn compiles_foreign_code_with_the_compilers_of_its_architecture() {
        let arch = if Arch::native() == Some(Arch::Arm64) { Arch::Amd64 } else { Arch::Arm64 };
        let target = PathBuf::new();
        let foreign = Compilation { workspace: Path::new("/a"), arch, target };
        let prefix = triple::gnu(arch);
        let name = triple::rust(arch).replace('-', "_");
        let env = foreign.environment(&[], &[]);
        assert_eq!(env[&format!("CC_{name}")], format!("{prefix}-gcc"));
        let linker = format!("CARGO_TARGET_{}_LINKER", name.to_uppercase());
        assert_eq!(env[&linker], format!("{prefix}-gcc"));
        let versions = foreign.versions();
        let names: Vec<&str> = versions.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["cc", "ld", "libc"]);
        assert!(versions.iter().all(|(_, command)| command.len() >= 2), "{versions:?}");
        assert_eq!(versions[0].1[0], format!("{prefix}-gcc"));
    }

    #[test]
    fn packs_relocations_if_the_c_library_applies_them() {
        for (libc, expected) in [
            ("glibc 2.36\n", true),
            ("glibc 2.41", true),
            ("glibc 3.0", true),
            ("glibc 2.35", false),
            ("glibc 2.4.1", false),
            ("glibc", false),
            ("musl 2.36", false),
            ("", false),
        ] {
            assert_eq!(applies_packed_relocations(libc), expected, "{libc:?}");
        }
    }

    #[test]
    fn quotes_flags_with_spaces() {
        let remaps = ["/a b=/etchaos".to_owned(), "/it's=/cargo".to_owned()];
        assert_eq!(
            rust_flags(&remaps),
            [
                "-Ctarget-feature=+crt-static",
                "--remap-path-prefix=/a b=/etchaos",
                "--remap-path-prefix=/it's=/cargo"
            ]
        );
        assert_eq!(
            c_flags(&remaps),
            r"'-ffile-prefix-map=/a b=/etchaos' '-ffile-prefix-map=/it'\''s=/cargo'"
        );
    }
}
