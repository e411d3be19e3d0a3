//! A shell that runs the blocks of a page one after the other, as a reader does.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// A shell in a directory. Variables and functions of a block are there for the next one.
pub(crate) struct Session {
    shell: Child,
    input: ChildStdin,
    ends: Receiver<String>,
    directory: PathBuf,
}

impl Session {
    /// Starts a shell that finds the programs of `path` first.
    pub(crate) fn start(directory: &Path, path: &Path) -> Self {
        let rest = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("bash")
            .args(["--norc", "-euo", "pipefail"])
            .current_dir(directory)
            .env("PATH", format!("{}:{rest}", path.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (shell.stdin.take().unwrap(), shell.stdout.take().unwrap());
        let (sender, ends) = channel();
        std::thread::spawn(move || {
            // The end of the thread drops the sender, which says that the shell has ended.
            for line in BufReader::new(output).lines() {
                if line.ok().and_then(|line| sender.send(line).ok()).is_none() {
                    break;
                }
            }
        });
        Self { shell, input, ends, directory: directory.to_owned() }
    }

    /// Runs commands and returns their output. A command that fails ends the shell.
    ///
    /// # Errors
    /// Returns a description if a command fails, or if the commands take longer than `timeout`.
    pub(crate) fn run(
        &mut self,
        name: &str,
        commands: &str,
        timeout: Duration,
    ) -> Result<String, String> {
        let directory = self.directory.clone();
        let file = |extension: &str| directory.join(format!(".{name}.{extension}"));
        fs::write(file("sh"), commands).unwrap();
        // The shell itself reads the commands, so that it keeps their variables.
        let line =
            format!("{{ . ./.{name}.sh; }} >.{name}.out 2>.{name}.err </dev/null; echo {name}\n");
        let start = Instant::now();
        self.input.write_all(line.as_bytes()).map_err(|error| format!("{name}: {error}"))?;
        let problem = match self.ends.recv_timeout(timeout) {
            Ok(_) => None,
            Err(RecvTimeoutError::Timeout) => Some(format!("no end after {} s", timeout.as_secs())),
            Err(RecvTimeoutError::Disconnected) => Some("a command failed".to_owned()),
        };
        let read = |extension: &str| fs::read_to_string(file(extension)).unwrap_or_default();
        let (output, errors) = (read("out"), read("err"));
        match problem {
            None => {
                let seconds = start.elapsed().as_secs_f32();
                let _ = writeln!(std::io::stderr(), "{name}: {seconds:.1} s");
                Ok(output)
            }
            Some(problem) => Err(format!(
                "{name}: {problem}\n--- commands\n{commands}--- output\n{output}--- errors\n{errors}"
            )),
        }
    }

    /// Returns the last lines of a file.
    pub(crate) fn tail(&self, name: &str, lines: usize) -> String {
        let Ok(file) = File::open(self.directory.join(name)) else { return String::new() };
        let all: Vec<String> = BufReader::new(file)
            .split(b'\n')
            .map_while(Result::ok)
            .map(|line| String::from_utf8_lossy(&line).into_owned())
            .collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
