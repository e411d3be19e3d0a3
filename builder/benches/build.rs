//! Compares the time of a build with mkosi, which builds the same packages as a UKI with the whole OS in its
//! initrd, on the same machine.
//!
//! ```sh
//! cargo bench -p builder --bench build              # one round
//! cargo bench -p builder --bench build -- 3         # three rounds
//! cargo bench -p builder --bench build -- 3 --mirror URL
//! ```
//!
//! Needs root. Each round measures three commands in turn:
//!
//! - cold: `builder build` into an empty directory; only the updater is compiled already
//! - warm: the same command again; nothing has changed upstream
//! - mkosi: with an empty package cache, in a root tree of Debian 13 that is not measured
//!
//! The cold build and mkosi both download all packages.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The variant that is built, and its suite for mkosi.
const VARIANT: &str = "deb";
const SUITE: &str = "trixie";
/// The packages of the root tree in which mkosi runs.
const MKOSI_PACKAGES: &str = "mkosi,systemd-ukify,systemd-boot-efi,cpio,zstd,kmod,mount,\
                              debian-archive-keyring,ca-certificates";
/// The keys of the archives, in the root tree in which mkosi runs.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The most that a cold build may take, as a part of the time of mkosi.
const COLD_GOAL: f64 = 0.6;
/// The most that a warm build may take, in seconds.
const WARM_GOAL: f64 = 25.0;
const BUILDER: &str = env!("CARGO_BIN_EXE_builder");

/// The seconds that the commands of a round took.
#[derive(Debug, Clone, Copy)]
struct Round {
    cold: f64,
    warm: f64,
    mkosi: f64,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (rounds, mirror) = arguments()?;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let bench = Bench { directory: directory.path(), mirror };
    eprintln!("setup: a build that compiles the updater, and the root tree of mkosi");
    bench.build("setup")?;
    fs::remove_dir_all(bench.directory.join("setup"))?;
    bench.set_up_mkosi()?;
    let mut results = Vec::new();
    for number in 1..=rounds {
        eprintln!("round {number} of {rounds}: cold");
        let cold = bench.build("out")?;
        eprintln!("round {number} of {rounds}: warm");
        let warm = bench.build("out")?;
        let initrd = size_of("etchaos_deb_", ".initrd", &bench.directory.join("out"))?;
        fs::remove_dir_all(bench.directory.join("out"))?;
        eprintln!("round {number} of {rounds}: mkosi");
        let mkosi = bench.mkosi()?;
        let uki = size_of("image", ".efi", &bench.work().join("output"))?;
        eprintln!("initrd {initrd} bytes, UKI of mkosi {uki} bytes");
        results.push(Round { cold, warm, mkosi });
    }
    print(&results);
    Ok(())
}

/// Returns the number of rounds and the mirror. Cargo adds `--bench`.
fn arguments() -> Result<(usize, Option<String>)> {
    let (mut rounds, mut mirror) = (1, None);
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        if argument == "--mirror" {
            mirror = Some(arguments.next().context("--mirror needs a URL")?);
        } else {
            let failed = || format!("expected a number of rounds or --mirror, found {argument:?}");
            rounds = argument.parse().with_context(failed)?;
        }
    }
    Ok((rounds, mirror))
}

struct Bench<'a> {
    directory: &'a Path,
    mirror: Option<String>,
}

impl Bench<'_> {
    /// Builds artifacts into a directory, and returns the seconds.
    fn build(&self, out: &str) -> Result<f64> {
        let mut command = Command::new(BUILDER);
        command.args(["build", VARIANT, "--engine", "namespace", "--out"]);
        command.arg(self.directory.join(out));
        if let Some(mirror) = &self.mirror {
            command.args(["--mirror", mirror]);
        }
        timed(&mut command, &self.directory.join("builder.log"))
    }

    fn root(&self) -> PathBuf {
        self.directory.join("mkosi-root")
    }

    fn work(&self) -> PathBuf {
        self.directory.join("mkosi-work")
    }

    /// Bootstraps the root tree of mkosi, and writes the configuration of the image.
    fn set_up_mkosi(&self) -> Result<()> {
        let mut command = Command::new("mmdebstrap");
        command.args([
            "--variant=apt",
            "--format=directory",
            "--aptopt=APT::Install-Recommends \"false\"",
        ]);
        command.arg(format!("--include={MKOSI_PACKAGES}")).arg(SUITE).arg(self.root());
        command.args(&self.mirror);
        timed(&mut command, &self.directory.join("mmdebstrap.log"))?;
        let mut packages = packages()?;
        // mkosi takes the UEFI stub of the UKI from the image.
        packages.push("systemd-boot-efi".to_owned());
        let packages = packages.join("\n    ");
        let config = format!(
            "[Distribution]\nDistribution=debian\nRelease={SUITE}\n\n\
             [Output]\nFormat=uki\nCompressOutput=zstd\nCompressLevel=15\nOutputDirectory=output\n\n\
             [Content]\nBootloader=none\nWithDocs=no\nWithRecommends=no\nPackages=\n    {packages}\n\n\
             [Build]\nPackageCacheDirectory=cache\nIncremental=no\n"
        );
        // mkosi writes a list of sources with an archive of debug symbols unless this file exists. It gets
        // the archives in the root tree, which are those of the builder.
        let sources = self.work().join("mkosi.sandbox/etc/apt/sources.list.d");
        fs::create_dir_all(&sources)?;
        let list = fs::read_to_string(self.root().join("etc/apt/sources.list"))?;
        fs::write(sources.join("mkosi.sources"), deb822(&list)?)?;
        fs::write(self.work().join("mkosi.conf"), config)?;
        Ok(())
    }

    /// Builds the image with mkosi without cached packages, and returns the seconds.
    fn mkosi(&self) -> Result<f64> {
        for name in ["cache", "output"] {
            let path = self.work().join(name);
            if path.exists() {
                fs::remove_dir_all(&path)?;
            }
            fs::create_dir_all(&path)?;
        }
        // The sandbox of the builder: mkosi needs a root directory that is a mount point.
        let mut command = Command::new(BUILDER);
        command.args(["sandbox", "enter", "--root"]).arg(self.root());
        command.arg("--work").arg(self.work());
        command.args(["--", "mkosi", "--directory", "/build", "--force", "build"]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
        command.env("LC_ALL", "C.UTF-8");
        timed(&mut command, &self.directory.join("mkosi.log"))
    }
}

/// Converts a list of sources from the format with one archive in each line to deb822 (sources.list(5)).
fn deb822(list: &str) -> Result<String> {
    let mut sources = String::new();
    for line in list.lines().filter(|line| !line.trim().is_empty()) {
        let mut words = line.split_whitespace();
        let (Some("deb"), Some(uri), Some(suite)) = (words.next(), words.next(), words.next())
        else {
            anyhow::bail!("expected a line \"deb URI SUITE COMPONENT...\", found {line:?}");
        };
        let components = words.collect::<Vec<_>>().join(" ");
        sources += &format!(
            "Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: {components}\n\
             Signed-By: {KEYRING}\n\n"
        );
    }
    Ok(sources)
}

/// Returns the packages that the variant installs, as its bootstrap script names them.
fn packages() -> Result<Vec<String>> {
    let output = Command::new(BUILDER).args(["render", VARIANT]).output()?;
    let variant: Value = serde_json::from_slice(&output.stdout)?;
    let parts = variant["build"].as_array().context("the variant has no build list")?;
    let parts: BTreeMap<_, _> =
        parts.iter().map(|part| (part["id"].as_str(), &part["commands"])).collect();
    let script = parts.get(&Some("bootstrap")).and_then(|commands| commands[0]["change"].as_str());
    let script = script.context("the variant has no script for \"bootstrap\"")?;
    let line = script.lines().find_map(|line| line.strip_prefix("PACKAGES="));
    let line = line.context("the bootstrap script has no line PACKAGES=")?;
    Ok(line.trim_matches('"').split(',').map(str::to_owned).collect())
}

/// Runs a command to its end, with its output in a log, and returns the seconds.
fn timed(command: &mut Command, log: &Path) -> Result<f64> {
    let file = fs::File::create(log)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let started = Instant::now();
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    let seconds = started.elapsed().as_secs_f64();
    let output = fs::read_to_string(log).unwrap_or_default();
    let tail: Vec<&str> = output.lines().rev().take(20).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    ensure!(status.success(), "{command:?} ended with {status}:\n{}", tail.join("\n"));
    Ok(seconds)
}

/// Returns the size of a file below a directory, by the beginning and the end of its name.
fn size_of(prefix: &str, suffix: &str, directory: &Path) -> Result<u64> {
    for entry in walkdir::WalkDir::new(directory) {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        if name.starts_with(prefix) && name.ends_with(suffix) && entry.file_type().is_file() {
            return Ok(entry.metadata()?.len());
        }
    }
    anyhow::bail!("{} has no file {prefix}*{suffix}", directory.display())
}

fn print(rounds: &[Round]) {
    println!(
        "{:<8} {:>8} {:>8} {:>8} {:>12}",
        "round", "cold s", "warm s", "mkosi s", "cold/mkosi"
    );
    let row = |name: &str, round: &Round| {
        let Round { cold, warm, mkosi } = round;
        println!("{name:<8} {cold:>8.1} {warm:>8.1} {mkosi:>8.1} {:>12.2}", cold / mkosi);
    };
    for (number, round) in rounds.iter().enumerate() {
        row(&(number + 1).to_string(), round);
    }
    let median = |value: fn(&Round) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let middle = Round {
        cold: median(|round| round.cold),
        warm: median(|round| round.warm),
        mkosi: median(|round| round.mkosi),
    };
    row("median", &middle);
    let verdict = |holds| if holds { "reached" } else { "MISSED" };
    let cold = verdict(middle.cold <= COLD_GOAL * middle.mkosi);
    println!("goal: cold at most {COLD_GOAL} of mkosi: {cold}");
    println!("goal: warm below {WARM_GOAL} s: {}", verdict(middle.warm < WARM_GOAL));
}
