//! Compares deltas with other tools that transfer only what has changed, on the same files.
//!
//! ```sh
//! cargo bench -p builder --bench delta -- OLD NEW   # directories with the artifacts of two releases
//! cargo bench -p builder --bench delta              # builds both: without and with the security archive
//! cargo bench -p builder --bench delta -- --mirror URL
//! ```
//!
//! Prints for each boot file and tool the size of the patch, and the time and the peak memory of making and of
//! applying it. Tools that are not installed are left out: zstd, xdelta3, bsdiff and casync. Building needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The variant that is built.
const VARIANT: &str = "deb";
/// The mirror, whose archive of security updates has the suffix `-security`.
const MIRROR: &str = "http://mirror.example/debian";
/// The extensions of the boot files.
const FILES: [&str; 2] = ["vmlinuz", "initrd"];
/// The most that the deltas of a week with a new kernel may have, as a part of the files.
const GOAL: f64 = 0.04;
/// The time between two looks at the memory of a process.
const INTERVAL: Duration = Duration::from_millis(5);
const BUILDER: &str = env!("CARGO_BIN_EXE_builder");

/// A tool: its name, and the shell commands that make and apply the patch `$PATCH` from `$OLD` to `$NEW`. The
/// result of the second one is `$RESULT`.
type Tool = (&'static str, &'static str, &'static str);

const TOOLS: [Tool; 5] = [
    (
        "builder",
        "\"$BUILDER\" delta \"$OLD\" \"$NEW\" \"$PATCH\"",
        "\"$BUILDER\" delta --apply \"$OLD\" \"$PATCH\" \"$RESULT\"",
    ),
    (
        "zstd",
        "zstd -q -f -19 --long=31 --patch-from=\"$OLD\" \"$NEW\" -o \"$PATCH\"",
        "zstd -q -f -d --long=31 --patch-from=\"$OLD\" \"$PATCH\" -o \"$RESULT\"",
    ),
    (
        "xdelta3",
        "xdelta3 -9 -f -e -B 536870912 -s \"$OLD\" \"$NEW\" \"$PATCH\"",
        "xdelta3 -f -d -B 536870912 -s \"$OLD\" \"$PATCH\" \"$RESULT\"",
    ),
    ("bsdiff", "bsdiff \"$OLD\" \"$NEW\" \"$PATCH\"", "bspatch \"$OLD\" \"$RESULT\" \"$PATCH\""),
    // The size is that of the chunks that the old file does not have.
    (
        "casync",
        "casync make --store=\"$PATCH.old\" \"$PATCH.caibx\" \"$OLD\" && \
         casync make --store=\"$PATCH.new\" \"$PATCH.caibx\" \"$NEW\" && \
         (cd \"$PATCH.new\" && find . -type f) | while read -r chunk; do \
         [ -e \"$PATCH.old/$chunk\" ] || cat \"$PATCH.new/$chunk\"; done >\"$PATCH\"",
        "casync extract --store=\"$PATCH.new\" --seed=\"$OLD\" \"$PATCH.caibx\" \"$RESULT\"",
    ),
];

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("error: the deltas are larger than {:.0}% of the files", GOAL * 100.0);
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether the deltas have the size of the goal.
fn run() -> Result<bool> {
    let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (old, new) = match &arguments[..] {
        [] => build(temporary.path(), MIRROR)?,
        [option, mirror] if option == "--mirror" => build(temporary.path(), mirror)?,
        [old, new] => (PathBuf::from(old), PathBuf::from(new)),
        _ => bail!("expected two directories, --mirror URL, or nothing"),
    };
    println!("| file | tool | bytes | part | make | memory | apply | memory |");
    println!("|---|---|---|---|---|---|---|---|");
    let (mut bytes, mut all) = (0, 0);
    for extension in FILES {
        let (old, new) = (artifact(&old, extension)?, artifact(&new, extension)?);
        let size = fs::metadata(&new)?.len();
        all += size;
        if fs::read(&old)? == fs::read(&new)? {
            println!("| {extension} | copied from the other slot | 0 | 0.00% | | | | |");
            continue;
        }
        for (name, make, apply) in TOOLS {
            let patch = measure(temporary.path(), &old, &new, (name, make, apply))?;
            let Some((row, patch)) = patch else { continue };
            let part = patch as f64 * 100.0 / size as f64;
            println!("| {extension} | {name} | {patch} | {part:.2}% | {row} |");
            bytes += if name == "builder" { patch } else { 0 };
        }
    }
    let part = bytes as f64 / all as f64;
    println!("\n{bytes} of {all} bytes: {:.2}%", part * 100.0);
    Ok(part <= GOAL)
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

/// Makes and applies a patch. Returns the columns of the table and the size; `None` if the tool is not installed.
fn measure(
    directory: &Path,
    old: &Path,
    new: &Path,
    (name, make, apply): Tool,
) -> Result<Option<(String, u64)>> {
    let which = Command::new("sh").args(["-c", &format!("command -v {name}")]).output()?;
    if name != "builder" && !which.status.success() {
        return Ok(None);
    }
    let work = tempfile::tempdir_in(directory)?;
    let (patch, result) = (work.path().join("patch"), work.path().join("result"));
    let shell = |script: &str| -> Result<(f64, u64)> {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec 2>/dev/null; {script}")]).env("BUILDER", BUILDER);
        command.env("OLD", old).env("NEW", new).env("PATCH", &patch).env("RESULT", &result);
        let since = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let peak = peak_memory(&mut child)?;
        ensure!(child.wait()?.success(), "{name} failed: {script}");
        Ok((since.elapsed().as_secs_f64(), peak))
    };
    let ((made, make_peak), (applied, apply_peak)) = (shell(make)?, shell(apply)?);
    ensure!(fs::read(&result)? == fs::read(new)?, "{name} gives another file");
    let row = format!("{made:.1} s | {make_peak} MiB | {applied:.1} s | {apply_peak} MiB");
    Ok(Some((row, fs::metadata(&patch)?.len())))
}

/// Waits for the end of a shell. Returns the peak of the resident memory, in MiB, of it and the program it runs.
fn peak_memory(child: &mut Child) -> Result<u64> {
    let shell = child.id();
    let mut peak = 0;
    while child.try_wait()?.is_none() {
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"));
        let children = children.unwrap_or_default();
        for pid in children.split_whitespace().chain([&*shell.to_string()]) {
            let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
            peak = peak.max(kib.unwrap_or(0_u64) / 1024);
        }
        std::thread::sleep(INTERVAL);
    }
    Ok(peak)
}
