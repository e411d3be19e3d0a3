//! The subcommand `push`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use clap::Args;
use protocol::pattern::Mode;
use serde::Serialize;
use serde_json::json;

use super::answer::{Answer, Entry};
use super::{PushClient, PushError, Request, source};
use crate::cancel::Cancel;
use crate::client::HostArgs;
use crate::exit::{ExitError, code};

/// Time between two looks at a request to stop.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The time until the first message that the answer is still outstanding, and between two of them.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(15);

/// Options of `push`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  testbed push web1 ops 'uptime' --key @ops.key --fingerprint 5f9a…
  testbed push [2001:db8::7]:4000 ops patterns/web.jsonnet --key @ops.key --ca ca.pem --check

Exit codes:
  0  the host ran the Pattern, or had nothing to do
  1  a Command failed
  2  wrong usage
  3  the host ran nothing: it cannot be reached, is not trusted, is busy, or rejected the push
  4  it is not known whether the host ran anything: the answer is missing or not that of a listener
  128+N  ended by signal N; the host may still be running the Pattern")]
pub(crate) struct Push {
    /// The host and how to reach it
    #[command(flatten)]
    host: HostArgs,
    /// Shell command; or a Pattern: the path of a .jsonnet, .libsonnet or .json file, which is sent with its imports
    #[arg(value_name = "COMMAND-or-FILE")]
    pattern: String,
    /// Change nothing; only run the checks
    #[arg(long)]
    check: bool,
    /// Run only Commands whose parent id matches this regular expression; it is the source and the ids of the groups, joined by " > "
    #[arg(long, value_name = "REGEX")]
    filter: Option<String>,
    /// Host that may run the Pattern, by its name; may be repeated [default: every host that trusts the key]
    #[arg(long, value_name = "NAME")]
    audience: Vec<String>,
    /// Seconds to wait for the answer
    #[arg(long, value_name = "SECONDS", default_value_t = 1800,
          value_parser = clap::value_parser!(u64).range(1..=86400))]
    timeout: u64,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Pushes a Pattern to a host and prints what it changed.
///
/// # Errors
/// Fails if the host does not run the Pattern, or if a Command fails.
pub(crate) fn push(options: &Push, cancel: &Cancel) -> Result<(), ExitError> {
    let usage = |message| ExitError { code: code::USAGE, message };
    let files = source::load(&options.pattern).map_err(usage)?;
    let (address, trust) = options.host.endpoint().map_err(usage)?;
    let name = address.authority();
    let client = PushClient {
        address,
        trust,
        source: options.host.source.clone(),
        key: options.host.key().map_err(usage)?,
        or_plain: false,
    };
    let request = Request {
        files,
        mode: if options.check { Mode::Check } else { Mode::Change },
        filter: options.filter.clone(),
        audience: options.audience.clone(),
    };
    let timeout = Duration::from_secs(options.timeout);
    let answer = wait(client, request, timeout, &name, cancel);
    let text = match (&answer, options.json) {
        (Ok(answer), true) => to_json(&name, options, answer),
        (Err(error), true) => to_json(&name, options, json!({"error": error.message})),
        (Ok(answer), false) => to_text(answer, options.check),
        (Err(_), false) => String::new(),
    };
    // What the host did counts, also if standard output is closed.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    let answer = answer?;
    match answer.is_failure() {
        false => Ok(()),
        true => Err(ExitError { code: code::FAILED, message: failure(&answer) }),
    }
}

/// Sends the request in a thread, so that a signal ends the wait for the answer, and reports progress.
fn wait(
    client: PushClient,
    request: Request,
    timeout: Duration,
    name: &str,
    cancel: &Cancel,
) -> Result<Answer, ExitError> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody waits any more after a signal.
        let _ = sender.send(client.send(&request, timeout));
    });
    let start = Instant::now();
    let mut reported = start;
    loop {
        match receiver.recv_timeout(POLL_INTERVAL) {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => return Err(error.into()),
            Err(RecvTimeoutError::Disconnected) => {
                let message = "the push client panicked".into();
                return Err(ExitError { code: code::UNKNOWN, message });
            }
            Err(RecvTimeoutError::Timeout) if cancel.is_cancelled() => {
                let message =
                    format!("stopped by a signal; {name} may still be running the Pattern");
                return Err(ExitError { code: code::UNKNOWN, message });
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if reported.elapsed() >= PROGRESS_INTERVAL {
            reported = Instant::now();
            eprintln!("waiting for the answer of {name}, {} s", start.elapsed().as_secs());
        }
    }
}

impl From<PushError> for ExitError {
    fn from(error: PushError) -> Self {
        let code = if error.ran_nothing() { code::REFUSED } else { code::UNKNOWN };
        Self { code, message: error.to_string() }
    }
}

fn failure(answer: &Answer) -> String {
    match answer.error.is_empty() {
        false => answer.error.trim().lines().map(printable).collect::<Vec<_>>().join("\n"),
        true => {
            let ids: Vec<String> = answer.failed.iter().map(|entry| printable(&entry.id)).collect();
            format!("these Commands failed: {}", ids.join(", "))
        }
    }
}

fn to_json(name: &str, options: &Push, answer: impl Serialize) -> String {
    let mut value = json!({"host": name, "source": options.host.source, "check": options.check});
    if let (Some(object), Ok(serde_json::Value::Object(fields))) =
        (value.as_object_mut(), serde_json::to_value(answer))
    {
        object.extend(fields);
    }
    format!("{value}\n")
}

fn to_text(answer: &Answer, check: bool) -> String {
    let mut text = String::new();
    let [changed, removed] = match check {
        true => ["would change", "would remove"],
        false => ["changed", "removed"],
    };
    list(&mut text, removed, &answer.removed);
    list(&mut text, changed, &answer.changed);
    list(&mut text, "failed", &answer.failed);
    if text.is_empty() && answer.error.is_empty() {
        text.push_str("no changes\n");
    }
    text
}

/// Appends Commands, each with its output indented below it.
fn list(text: &mut String, verb: &str, entries: &[Entry]) {
    for entry in entries {
        let _ = writeln!(text, "{verb}: {}", printable(&entry.id));
        for line in entry.output.lines() {
            let _ = writeln!(text, "  {}", printable(line));
        }
    }
}

/// Returns a line from the network without characters that control a terminal or end the line.
fn printable(line: &str) -> String {
    let replace = |c: char| if c.is_control() && c != '\t' { '\u{fffd}' } else { c };
    line.chars().map(replace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, output: &str) -> Entry {
        Entry { id: id.into(), output: output.into() }
    }

    #[test]
    fn prints_what_changed_with_outputs() {
        let answer = Answer {
            changed: vec![entry("web", "one\ntwo\n"), entry("db", "")],
            removed: vec![entry("old\nchanged: x", "\u{1b}[2J")],
            ..Answer::default()
        };
        let text = "removed: old\u{fffd}changed: x\n  \u{fffd}[2J\nchanged: web\n  one\n  two\nchanged: db\n";
        assert_eq!(to_text(&answer, false), text);
        assert!(to_text(&answer, true).starts_with("would remove: old"));
        assert_eq!(to_text(&Answer::default(), false), "no changes\n");
        let failed = Answer { error: "no\nwhy\u{7}\n".into(), ..Answer::default() };
        let texts = (to_text(&failed, false), failure(&failed));
        assert_eq!(texts, (String::new(), "no\nwhy\u{fffd}".to_owned()));
    }

    #[test]
    fn exit_code_says_whether_something_may_have_run() {
        let body = String::new;
        for (error, expected) in [
            (PushError::NotSent(body()), code::REFUSED),
            (PushError::Unavailable { status: 409, body: body() }, code::REFUSED),
            (PushError::Rejected { status: 401, body: body() }, code::REFUSED),
            (PushError::NoAnswer(body()), code::UNKNOWN),
            (PushError::NotUnderstood { status: 200, reason: body(), body: body() }, code::UNKNOWN),
        ] {
            assert_eq!(ExitError::from(error).code, expected);
        }
    }
}
