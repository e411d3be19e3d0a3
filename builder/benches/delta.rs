//! Compares deltas with other tools that transfer only what has changed, on the same files.
//!
//! ```sh
//! cargo bench -p builder --bench delta -- OLD NEW   # directories with the artifacts of two releases
//! cargo bench -p builder --bench delta              # builds both: without and with the security archive
//! cargo bench -p builder --bench delta -- --mirror URL
//! ```
//!
//! Prints for each boot file and tool the size of the patch, and the time and the peak memory of making and of
//! applying it, and then the goals. The tools are zstd, xdelta3, bsdiff, casync and desync; those that are not
//! installed are named. Building needs root. Without --mirror, it uses the mirror of this machine's apt.

#[path = "delta/goals.rs"]
mod goals;
#[path = "delta/measure.rs"]
mod measure;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use goals::{File, goals};
use measure::{BUILDER, OURS, Pair, TOOLS, is_installed};

/// The variant that is built.
const VARIANT: &str = "deb";
/// The end of the URL of the security archive. The builder finds it at the same mirror.
const SECURITY: &str = "-security";
/// The extensions of the boot files.
const FILES: [&str; 2] = ["vmlinuz", "initrd"];

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all goals are met, except for known misses.
fn run() -> Result<bool> {
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (old, new) = match &arguments[..] {
        [] => build(temporary.path(), &mirror_of_apt()?)?,
        [option, mirror] if option == "--mirror" => build(temporary.path(), mirror)?,
        [old, new] => (PathBuf::from(old), PathBuf::from(new)),
        _ => bail!("expected two directories, --mirror URL, or nothing"),
    };
    let (tools, missing): (Vec<_>, Vec<_>) =
        TOOLS.into_iter().partition(|it| is_installed(it.name));
    println!(
        "| file | tool | bytes | of the file | make | memory (make) | apply | memory (apply) |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut files = Vec::new();
    for extension in FILES {
        let pair = Pair { old: artifact(&old, extension)?, new: artifact(&new, extension)? };
        let size = fs::metadata(&pair.new)?.len();
        if fs::read(&pair.old)? == fs::read(&pair.new)? {
            println!("| {extension} | copied from the other slot | 0 | 0.00% | | | | |");
            files.push(File { extension, size, delta: None, download: 0.0 });
            continue;
        }
        for tool in &tools {
            let figures = measure::measure(temporary.path(), &pair, tool)?;
            let part = figures.bytes as f64 * 100.0 / size as f64;
            println!(
                "| {extension} | {} | {} | {part:.2}% | {figures} |",
                tool.name, figures.bytes
            );
            if tool.name == OURS {
                let download = measure::download(temporary.path(), &pair.new)?;
                files.push(File { extension, size, delta: Some(figures), download });
            }
        }
    }
    for tool in missing {
        println!("\n{} is not installed, so it is not in the table", tool.name);
    }
    Ok(goals(&files))
}

/// Returns the URL of Debian's archive at the mirror that apt uses on this machine.
fn mirror_of_apt() -> Result<String> {
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"]);
    let output = apt.output().context("apt-get")?;
    let urls = String::from_utf8_lossy(&output.stdout);
    let mut urls = urls.lines().map(|url| url.trim_end_matches('/'));
    let mirror = urls.find(|url| !url.ends_with(SECURITY));
    let mirror =
        mirror.context("apt has no source of Debian on this machine; pass --mirror URL")?;
    Ok(mirror.to_owned())
}

/// Builds a release from the release archive alone, and one with the security archive.
fn build(directory: &Path, mirror: &str) -> Result<(PathBuf, PathBuf)> {
    let build = |name: &str, options: &[&str]| -> Result<PathBuf> {
        let out = directory.join(name);
        let mut command = Command::new(BUILDER);
        command.args(["build", VARIANT, "--mirror", mirror, "--out"]).arg(&out).args(options);
        let status = command.stdout(Stdio::null()).status()?;
        ensure!(status.success(), "the build {name} failed");
        let target = fs::read_dir(&out)?.flatten().map(|entry| entry.path()).find(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("deb_"))
        });
        target.with_context(|| format!("{} has no target", out.display()))
    };
    Ok((build("old", &["--without-security"])?, build("new", &[])?))
}

/// Returns the artifact with this extension.
fn artifact(directory: &Path, extension: &str) -> Result<PathBuf> {
    let listed =
        fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))?;
    let mut paths = listed.flatten().map(|entry| entry.path());
    let found = paths.find(|path| path.extension().is_some_and(|found| found == extension));
    found.with_context(|| format!("{} has no .{extension}", directory.display()))
}
