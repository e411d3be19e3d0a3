//! Compiles the updater for the image.
//!
//! The program is static, so that it runs with the libc of every variant. The same source gives the
//! same bytes in every directory: the paths that compilers embed are remapped, for Rust and for the C
//! code of the crypto library.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use protocol::Arch;

use crate::command::Tool;
use crate::log_file::LogFile;

/// Separates flags in `CARGO_ENCODED_RUSTFLAGS`; `RUSTFLAGS` would split paths at spaces.
const FLAG_SEPARATOR: &str = "\x1f";

/// Compiles the package `updater` of the workspace and returns the program's path.
pub(crate) fn build(workspace: &Path, arch: Arch, log: &mut LogFile) -> Result<PathBuf> {
    if Arch::native() != Some(arch) {
        bail!("cannot compile the updater for {arch} on this machine; build on an {arch} machine");
    }
    let triple = match arch {
        Arch::Amd64 => "x86_64-unknown-linux-gnu",
        Arch::Arm64 => "aarch64-unknown-linux-gnu",
    };
    let target = workspace.join("target/image");
    let remaps = remaps(workspace)?;
    let cflags = format!("CFLAGS_{}", triple.replace('-', "_"));
    let mut cargo = Tool::new("cargo")
        .args(["build", "--profile", "image", "--locked", "--package", "updater"])
        .args(["--target", triple])
        .arg("--manifest-path")
        .arg(workspace.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target);
    // Flags in the caller's environment must not change the image.
    for name in ["RUSTFLAGS", "RUSTC_WRAPPER", "CFLAGS", "CARGO_BUILD_RUSTFLAGS"] {
        cargo = cargo.env_remove(name);
    }
    cargo
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(&remaps))
        .env(&cflags, c_flags(&remaps))
        // Lets the crate `cc` read the quotes of `c_flags`.
        .env("CC_SHELL_ESCAPED_FLAGS", "1")
        .env("CARGO_INCREMENTAL", "0")
        .run(log)
        .context("compiling the updater")?;
    Ok(target.join(triple).join("image/updater"))
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

/// Returns `from=to` for every directory whose path could end up in the program.
fn remaps(workspace: &Path) -> Result<Vec<String>> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    let map = |from: &Path, to: &str| format!("{}={to}", from.display());
    Ok(vec![map(&home, "/cargo"), map(workspace, "/etchaos")])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::skip;
    use crate::progress::Bar;
    use std::fs;

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
        fs::write(
            workspace.join("Cargo.lock"),
            "version = 4\n[[package]]\nname = \"updater\"\nversion = \"0.0.0\"\n",
        )
        .unwrap();
        fs::write(workspace.join("src/main.rs"), "fn main() { println!(\"{}\", file!()) }")
            .unwrap();
        let log = directory.path().join("log");
        let mut log = LogFile::create(&log, Bar::start("test")).unwrap();
        let program = build(&workspace, arch, &mut log).unwrap();
        assert!(program.is_file(), "{}", program.display());
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
