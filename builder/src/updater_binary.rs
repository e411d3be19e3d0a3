//! Compiles the updater for the image.
//!
//! The program is static, so that it runs with the libc of every variant. The same source gives the
//! same bytes in every directory: the paths that compilers embed are remapped, for Rust and for the C
//! code of the crypto library.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use protocol::Arch;

use crate::cargo::Cargo;
use crate::log_file::LogFile;

/// Separates flags in `CARGO_ENCODED_RUSTFLAGS`; `RUSTFLAGS` would split paths at spaces.
const FLAG_SEPARATOR: &str = "\x1f";

/// The compiled updater.
#[derive(Debug)]
pub(crate) struct UpdaterBinary {
    /// The program.
    pub path: PathBuf,
    /// The programs that compiled it, with their versions.
    pub toolchain: BTreeMap<String, String>,
}

/// Compiles the package `updater` of the workspace.
pub(crate) fn build(workspace: &Path, arch: Arch, log: &mut LogFile) -> Result<UpdaterBinary> {
    if Arch::native() != Some(arch) {
        bail!("cannot compile the updater for {arch} on this machine; build on an {arch} machine");
    }
    let triple = match arch {
        Arch::Amd64 => "x86_64-unknown-linux-gnu",
        Arch::Arm64 => "aarch64-unknown-linux-gnu",
    };
    let target = workspace.join("target/image");
    let temporary = target.join("tmp");
    fs::create_dir_all(&temporary).with_context(|| format!("creating {}", temporary.display()))?;
    let cargo = Cargo::open(workspace, &target, log)?;
    let remaps = cargo.remaps();
    let cflags = format!("CFLAGS_{}", triple.replace('-', "_"));
    cargo
        .tool("cargo")
        .args(["build", "--profile", "image", "--locked", "--package", "updater"])
        .args(["--target", triple])
        .arg("--manifest-path")
        .arg(workspace.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(&remaps))
        .env(&cflags, c_flags(&remaps))
        // Lets the crate `cc` read the quotes of `c_flags`.
        .env("CC_SHELL_ESCAPED_FLAGS", "1")
        .env("CARGO_INCREMENTAL", "0")
        .env("TMPDIR", &temporary)
        .run(log)
        .context("compiling the updater")?;
    let path = target.join(triple).join("image/updater");
    Ok(UpdaterBinary { path, toolchain: cargo.toolchain(log)? })
}

fn rust_flags(remaps: &[String]) -> String {
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.extend(remaps.iter().map(|map| format!("--remap-path-prefix={map}")));
    flags.join(FLAG_SEPARATOR)
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

    #[test]
    fn compiles_in_directory_with_space() {
        if !nix::unistd::geteuid().is_root() {
            return skip("the command runner needs root");
        }
        let Some(arch) = Arch::native() else {
            return skip("EtchaOS does not support the architecture of this machine");
        };
        let directory = tempfile::tempdir().unwrap();
        let workspace = directory.path().join("it's a checkout");
        fs::create_dir_all(workspace.join("src")).unwrap();
        let manifest = "[package]\nname = \"updater\"\nedition = \"2024\"\n\
                        [profile.image]\ninherits = \"release\"\n";
        fs::write(workspace.join("Cargo.toml"), manifest).unwrap();
        let pin = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rust-toolchain.toml");
        fs::copy(pin, workspace.join("rust-toolchain.toml")).unwrap();
        // Settings of the build host must not change the program, or break it.
        let config = "[build]\nrustc-wrapper = 'false'\n[env]\nCARGO_ENCODED_RUSTFLAGS = 'x'\n";
        fs::create_dir(directory.path().join(".cargo")).unwrap();
        fs::write(directory.path().join(".cargo/config.toml"), config).unwrap();
        fs::write(
            workspace.join("Cargo.lock"),
            "version = 4\n[[package]]\nname = \"updater\"\nversion = \"0.0.0\"\n",
        )
        .unwrap();
        fs::write(workspace.join("src/main.rs"), "fn main() { println!(\"{}\", file!()) }")
            .unwrap();
        let log = directory.path().join("log");
        let mut log = LogFile::create(&log, Bar::start("test")).unwrap();
        let updater = build(&workspace, arch, &mut log).unwrap();
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
    fn quotes_flags_with_spaces() {
        let remaps = ["/a b=/etchaos".to_owned(), "/it's=/cargo".to_owned()];
        assert_eq!(
            rust_flags(&remaps).split('\x1f').collect::<Vec<_>>(),
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
