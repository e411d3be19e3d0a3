//! A stage's log: everything that its programs print, as they print it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result};

use crate::progress::Bar;

/// How many of the last lines an error shows.
const TAIL_LINES: usize = 20;
/// How much standard output is kept for the caller: package lists take some 20 kB.
const STDOUT_MAX: u64 = 16 << 20;

/// A log file that remembers its end and shows its last line on the stage's progress bar.
#[derive(Debug)]
pub struct LogFile {
    file: File,
    tail: VecDeque<String>,
    bar: Bar,
}

impl LogFile {
    /// Creates or empties the file.
    pub fn create(path: &Path, bar: Bar) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { file, tail: VecDeque::new(), bar })
    }

    /// Adds a line.
    pub fn line(&mut self, text: &str) {
        // A full disk must not hide the error that is being logged; the build fails on it elsewhere.
        let _ = writeln!(self.file, "{text}");
        self.bar.activity(text);
        self.tail.push_back(text.to_owned());
        if self.tail.len() > TAIL_LINES {
            self.tail.pop_front();
        }
    }

    /// Adds a text to the file alone: a Command's text, say, which must not fill the tail.
    pub fn quote(&mut self, text: &str) {
        let _ = writeln!(self.file, "+ {}", text.trim_end().replace('\n', "\n+ "));
    }

    /// Adds a line that is worth showing everywhere.
    pub fn step(&mut self, text: &str) {
        self.line(text);
        self.bar.step(text);
    }

    /// Forgets the last lines: what comes now has nothing to do with them.
    pub fn forget_tail(&mut self) {
        self.tail.clear();
    }

    /// The last lines, for an error.
    pub fn tail(&self) -> String {
        self.tail.iter().map(|line| format!("    {line}\n")).collect()
    }

    /// Runs a host's program: its standard error goes to the log, and so does its standard output,
    /// which is also returned.
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
    // Bounded: a program that prints no line ends must not fill the memory.
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
