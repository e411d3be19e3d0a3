//! Compiles the updater for the image.
//!
//! Static, so that it runs on every variant's libc. The same source gives the same bytes wherever
//! the workspace lies: paths are remapped, for Rust and for the C parts of the crypto library.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use protocol::Arch;

use crate::command::Tool;
use crate::log_file::LogFile;

/// Builds `updater` of this workspace and returns the program's path.
pub fn build(workspace: &Path, arch: Arch, log: &mut LogFile) -> Result<PathBuf> {
    if Arch::native() != Some(arch) {
        bail!("the updater cannot be compiled for {arch} on this machine");
    }
    let triple = match arch {
        Arch::Amd64 => "x86_64-unknown-linux-gnu",
        Arch::Arm64 => "aarch64-unknown-linux-gnu",
    };
    let target = workspace.join("target/image");
    let remaps = remaps(workspace)?;
    let prefixes =
        |flag: &str| remaps.iter().map(|map| format!(" {flag}={map}")).collect::<String>();
    let rust = format!("-Ctarget-feature=+crt-static{}", prefixes("--remap-path-prefix"));
    let cflags = format!("CFLAGS_{}", triple.replace('-', "_"));
    let mut cargo = Tool::new("cargo")
        .args([
            "build",
            "--profile",
            "image",
            "--locked",
            "--package",
            "updater",
            "--target",
            triple,
        ])
        .arg("--manifest-path")
        .arg(workspace.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target);
    // Flags of whoever runs the builder must not change the image.
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "CFLAGS", "CARGO_BUILD_RUSTFLAGS"] {
        cargo = cargo.env_remove(name);
    }
    cargo
        .env("RUSTFLAGS", rust)
        .env(&cflags, prefixes("-ffile-prefix-map"))
        .env("CARGO_INCREMENTAL", "0")
        .run(log)
        .context("compiling the updater")?;
    Ok(target.join(triple).join("image/updater"))
}

/// `from=to` for every directory whose path could end up in the program.
fn remaps(workspace: &Path) -> Result<Vec<String>> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    let map = |from: &Path, to: &str| format!("{}={to}", from.display());
    Ok(vec![map(&home, "/cargo"), map(workspace, "/etchaos")])
}
