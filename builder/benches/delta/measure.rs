//! Runs the tools, and measures them from outside.

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// The time between two looks at the memory of a process.
const INTERVAL: Duration = Duration::from_millis(5);
pub(crate) const BUILDER: &str = env!("CARGO_BIN_EXE_builder");
/// The name of this project's tool.
pub(crate) const OURS: &str = "builder";

/// A tool, with the shell commands that make and apply the patch `$PATCH` from `$OLD` to `$NEW`. The result of the
/// second one is `$RESULT`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    make: &'static str,
    apply: &'static str,
}

pub(crate) const TOOLS: [Tool; 6] = [
    Tool {
        name: OURS,
        make: "\"$BUILDER\" delta make \"$OLD\" \"$NEW\" \"$PATCH\"",
        apply: "\"$BUILDER\" delta apply \"$OLD\" \"$PATCH\" \"$RESULT\"",
    },
    Tool {
        name: "zstd",
        make: "zstd -q -f -19 --long=31 --patch-from=\"$OLD\" \"$NEW\" -o \"$PATCH\"",
        apply: "zstd -q -f -d --long=31 --patch-from=\"$OLD\" \"$PATCH\" -o \"$RESULT\"",
    },
    Tool {
        name: "xdelta3",
        make: "xdelta3 -9 -f -e -B 536870912 -s \"$OLD\" \"$NEW\" \"$PATCH\"",
        apply: "xdelta3 -f -d -B 536870912 -s \"$OLD\" \"$PATCH\" \"$RESULT\"",
    },
    Tool {
        name: "bsdiff",
        make: "bsdiff \"$OLD\" \"$NEW\" \"$PATCH\"",
        apply: "bspatch \"$OLD\" \"$RESULT\" \"$PATCH\"",
    },
    // The patch of these two is the chunks that the old file does not have.
    Tool {
        name: "casync",
        make: "casync make --store=\"$PATCH.old\" \"$PATCH.caibx\" \"$OLD\" && \
               casync make --store=\"$PATCH.new\" \"$PATCH.caibx\" \"$NEW\" && \
               (cd \"$PATCH.new\" && find . -type f) | while read -r chunk; do \
               [ -e \"$PATCH.old/$chunk\" ] || cat \"$PATCH.new/$chunk\"; done >\"$PATCH\"",
        apply: "casync extract --store=\"$PATCH.new\" --seed=\"$OLD\" \"$PATCH.caibx\" \"$RESULT\"",
    },
    Tool {
        name: "desync",
        make: "mkdir \"$PATCH.old\" \"$PATCH.new\" && \
               desync make --store \"$PATCH.old\" \"$PATCH.old.caibx\" \"$OLD\" && \
               desync make --store \"$PATCH.new\" \"$PATCH.caibx\" \"$NEW\" && \
               (cd \"$PATCH.new\" && find . -type f) | while read -r chunk; do \
               [ -e \"$PATCH.old/$chunk\" ] || cat \"$PATCH.new/$chunk\"; done >\"$PATCH\"",
        apply: "cp \"$OLD\" \"$PATCH.seed\" && cp \"$PATCH.old.caibx\" \"$PATCH.seed.caibx\" && \
                desync extract --store \"$PATCH.new\" --seed \"$PATCH.seed.caibx\" \
                \"$PATCH.caibx\" \"$RESULT\"",
    },
];

/// The files that a patch is between.
pub(crate) struct Pair {
    pub(crate) old: PathBuf,
    pub(crate) new: PathBuf,
}

/// The time in seconds, and the peak memory in MiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) seconds: f64,
    pub(crate) memory: u64,
}

/// The figures of a patch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) bytes: u64,
    pub(crate) make: Cost,
    pub(crate) apply: Cost,
}

/// Formats the last columns of the table.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { make, apply, .. } = self;
        write!(f, "{:.1} s | {} MiB | ", make.seconds, make.memory)?;
        write!(f, "{:.1} s | {} MiB", apply.seconds, apply.memory)
    }
}

/// Returns whether a tool is installed.
pub(crate) fn is_installed(name: &str) -> bool {
    let which = Command::new("sh").args(["-c", &format!("command -v {name}")]).output();
    name == OURS || which.is_ok_and(|output| output.status.success())
}

/// Makes and applies a patch.
pub(crate) fn measure(directory: &Path, pair: &Pair, tool: &Tool) -> Result<Figures> {
    let work = tempfile::tempdir_in(directory)?;
    let (patch, result) = (work.path().join("patch"), work.path().join("result"));
    let shell = |script: &str| -> Result<Cost> {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec 2>/dev/null; {script}")]).env("BUILDER", BUILDER);
        command.env("OLD", &pair.old).env("NEW", &pair.new);
        command.env("PATCH", &patch).env("RESULT", &result);
        let since = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let memory = peak_memory(&mut child)?;
        ensure!(child.wait()?.success(), "{} failed: {script}", tool.name);
        Ok(Cost { seconds: since.elapsed().as_secs_f64(), memory })
    };
    let (make, apply) = (shell(tool.make)?, shell(tool.apply)?);
    ensure!(fs::read(&result)? == fs::read(&pair.new)?, "{} gives another file", tool.name);
    Ok(Figures { bytes: fs::metadata(&patch)?.len(), make, apply })
}

/// Sends a file over the loopback and writes it to disk. Returns the time in seconds.
pub(crate) fn download(directory: &Path, file: &Path) -> Result<f64> {
    let bytes = fs::read(file)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let since = Instant::now();
    thread::scope(|scope| -> Result<()> {
        let server = scope.spawn(|| listener.accept()?.0.write_all(&bytes));
        let mut received = Vec::new();
        TcpStream::connect(address)?.read_to_end(&mut received)?;
        let to = fs::File::create(directory.join("download"))?;
        (&to).write_all(&received)?;
        to.sync_all()?;
        server.join().ok().context("the server panicked")??;
        Ok(())
    })?;
    Ok(since.elapsed().as_secs_f64())
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
        thread::sleep(INTERVAL);
    }
    Ok(peak)
}
