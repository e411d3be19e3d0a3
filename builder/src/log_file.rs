//! Logs of stages, which contain the output of all programs.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::progress::Bar;
use crate::proxy;

/// The number of lines that an error shows.
const TAIL_LINES: usize = 20;
/// The maximum size of the standard output that is returned, in bytes. Package lists have about 20 kB.
const STDOUT_MAX: u64 = 16 << 20;

/// Where the result of a step came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The step computed it.
    Built,
    /// An earlier build computed it.
    Cached,
}

/// A step of a stage, and the time that it took.
#[derive(Debug, Clone)]
pub struct Step {
    /// The name, for display.
    pub name: String,
    /// The duration.
    pub took: Duration,
    /// Where the result came from.
    pub origin: Origin,
}

/// A log file that keeps its last lines for errors and shows the newest one as progress.
#[derive(Debug)]
pub struct LogFile {
    file: File,
    tail: VecDeque<String>,
    bar: Bar,
    secrets: Vec<String>,
    steps: Vec<Step>,
}

impl LogFile {
    /// Creates the file, or truncates it.
    pub fn create(path: &Path, bar: Bar) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { file, tail: VecDeque::new(), bar, secrets: Vec::new(), steps: Vec::new() })
    }

    /// Hides these texts in all further lines.
    pub(crate) fn hide(&mut self, secrets: Vec<String>) {
        self.secrets = secrets;
    }

    /// Adds a line.
    pub fn line(&mut self, text: &str) {
        let text = &proxy::redact(&self.secrets, text);
        // If the disk is full, the build fails elsewhere. A failure here would hide the error to log.
        let _ = writeln!(self.file, "{text}");
        self.bar.activity(text);
        self.tail.push_back(text.to_owned());
        if self.tail.len() > TAIL_LINES {
            self.tail.pop_front();
        }
    }

    /// Adds a command line or a script, marked with `+`. It does not become part of the tail.
    pub fn quote(&mut self, text: &str) {
        let text = proxy::redact(&self.secrets, text);
        let _ = writeln!(self.file, "+ {}", text.trim_end().replace('\n', "\n+ "));
    }

    /// Adds a line and shows it as a step of the stage.
    pub fn step(&mut self, text: &str) {
        self.line(text);
        self.bar.step(text);
    }

    /// Runs a step of the stage and records the time that it takes.
    pub fn timed<T>(&mut self, name: &str, origin: Origin, work: impl FnOnce(&mut Self) -> T) -> T {
        let started = Instant::now();
        let result = work(self);
        self.record(name, started.elapsed(), origin);
        result
    }

    /// Records a step that took this time.
    pub fn record(&mut self, name: &str, took: Duration, origin: Origin) {
        self.steps.push(Step { name: name.to_owned(), took, origin });
    }

    /// Returns the steps that were recorded.
    pub fn into_steps(self) -> Vec<Step> {
        self.steps
    }

    /// Clears the tail, so that the next error shows only lines of the next program.
    pub fn forget_tail(&mut self) {
        self.tail.clear();
    }

    /// Returns the last lines, indented for an error.
    pub fn tail(&self) -> String {
        self.tail.iter().map(|line| format!("    {line}\n")).collect()
    }

    /// Runs a program on the host and logs its output. Returns its status and its standard output.
    pub fn stream(&mut self, command: &mut Command) -> io::Result<(ExitStatus, String)> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let log = Mutex::new(self);
        let mut kept = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| log_lines(stderr, &log, None));
            log_lines(stdout, &log, Some(&mut kept));
        });
        Ok((child.wait()?, String::from_utf8_lossy(&kept).into_owned()))
    }
}

fn log_lines(source: Option<impl Read>, log: &Mutex<&mut LogFile>, mut kept: Option<&mut Vec<u8>>) {
    let Some(source) = source else { return };
    let mut reader = BufReader::new(source);
    let mut line = Vec::new();
    // The limit bounds memory if a program prints no line ends.
    while (&mut reader).take(1 << 16).read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        if let Some(kept) = &mut kept
            && (kept.len() as u64) < STDOUT_MAX
        {
            kept.extend_from_slice(&line);
        }
        let text = String::from_utf8_lossy(&line);
        if let Ok(mut log) = log.lock() {
            log.line(text.trim_end());
        }
        line.clear();
    }
}
