//! A builder process that runs one of several targets.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::parent_id;
use std::process::{self, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use protocol::Target;

use crate::progress::{self, Event};

/// The path of this program. It stays valid if the file is replaced while the program runs.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// The maximum size of a line of events, in bytes. An error with the last lines of a log has about 2 kB.
const LINE_MAX: u64 = 1 << 20;
/// The maximum size of the output, in bytes. The summary of a build has about 10 kB.
const OUTPUT_MAX: u64 = 16 << 20;

/// The options that a builder adds to its own arguments to run one of its targets.
#[derive(Debug, clap::Args)]
pub(crate) struct ChildArgs {
    /// The target to run, in place of those of the command
    #[arg(long, hide = true, requires = "parent")]
    one_of_several: Option<Target>,
    /// The process ID of the builder that runs all targets
    #[arg(long, hide = true)]
    parent: Option<u32>,
}

impl ChildArgs {
    /// Returns the target that this process runs for another builder, and `None` if a user has started it.
    ///
    /// From now on, the process reports events, and the kernel kills it when the other builder ends.
    pub(crate) fn enter(&self) -> Result<Option<&Target>> {
        let Some(target) = &self.one_of_several else { return Ok(None) };
        set_pdeathsig(Signal::SIGKILL).context("setting the parent-death signal")?;
        // The other builder may have ended before.
        if self.parent != Some(parent_id()) {
            bail!("the builder that started this one has ended");
        }
        progress::report_events();
        Ok(Some(target))
    }
}

/// What a child reports.
#[derive(Debug)]
pub(super) enum Report {
    /// An event.
    Event(Event),
    /// The child closed its standard output and standard error. It has written this to standard output.
    Closed(Vec<u8>),
}

/// A builder process of a target.
#[derive(Debug)]
pub(super) struct Child {
    process: process::Child,
    reader: JoinHandle<()>,
}

impl Child {
    /// Starts a builder for one target with the arguments of this process. It runs as long as this thread, or less.
    pub(super) fn start(
        target: &Target,
        arguments: &[OsString],
        send: impl Fn(Report) + Send + 'static,
    ) -> Result<Self> {
        let mut process = Command::new(THIS_PROGRAM)
            .args(["--one-of-several", &target.to_string()])
            .args(["--parent", &process::id().to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting the builder of {target}"))?;
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        let reader = thread::spawn(move || read(stdout, stderr, send));
        Ok(Self { process, reader })
    }

    /// Waits until the process has ended.
    pub(super) fn wait(mut self) -> Result<ExitStatus> {
        // The reader has sent its last report.
        let _ = self.reader.join();
        self.process.wait().context("waiting for the builder")
    }
}

/// Reads both streams to their ends.
fn read(stdout: Option<impl Read + Send>, stderr: Option<impl Read>, send: impl Fn(Report)) {
    let mut output = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let Some(mut stdout) = stdout else { return };
            // An output that is not complete is not valid JSON.
            let _ = (&mut stdout).take(OUTPUT_MAX).read_to_end(&mut output);
            let _ = std::io::copy(&mut stdout, &mut std::io::sink());
        });
        let Some(stderr) = stderr else { return };
        let mut reader = BufReader::new(stderr);
        let mut line = Vec::new();
        while (&mut reader).take(LINE_MAX).read_until(b'\n', &mut line).is_ok_and(|count| count > 0)
        {
            send(Report::Event(parse(&line)));
            line.clear();
        }
    });
    send(Report::Closed(output));
}

/// Parses a line of standard error. What is no event, such as an error of Jsonnet with its source, is a message.
fn parse(line: &[u8]) -> Event {
    serde_json::from_slice(line).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        Event::Message { text }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn reads_events_and_other_lines_and_the_output() {
        let event = Event::Step { stage: "1/6 init".into(), text: "a\nb".into() };
        let lines = format!(
            "{}\nno event\n{{\"event\":\"other\"}}",
            serde_json::to_string(&event).unwrap()
        );
        let (sender, receiver) = channel();
        read(Some(&b"{}\n"[..]), Some(lines.as_bytes()), |report| sender.send(report).unwrap());
        drop(sender);
        let reports: Vec<Report> = receiver.iter().collect();
        let message = |text: &str| Event::Message { text: text.to_owned() };
        let expected = [event, message("no event"), message("{\"event\":\"other\"}")];
        for (report, expected) in reports.iter().zip(&expected) {
            assert!(matches!(report, Report::Event(event) if event == expected), "{report:?}");
        }
        assert_eq!(reports.len(), expected.len() + 1);
        assert!(matches!(reports.last(), Some(Report::Closed(output)) if output == b"{}\n"));
    }
}
