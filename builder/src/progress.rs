//! Progress on standard error: a spinner for each stage on a terminal, plain lines elsewhere, and events for
//! the builder that runs several targets.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

/// The maximum width of the log line that the spinner shows, in characters.
const ACTIVITY_WIDTH: usize = 70;

/// Whether this process reports its progress as events.
static EVENTS: AtomicBool = AtomicBool::new(false);

/// A report of a builder that runs one of several targets, as a line of JSON on its standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "event")]
pub(crate) enum Event {
    /// A stage begins.
    Started {
        /// Its number and name, such as `1/6 init`.
        stage: String,
    },
    /// A stage does something that a log shows.
    Step {
        /// The stage.
        stage: String,
        /// What it does.
        text: String,
    },
    /// The newest line of a log.
    Activity {
        /// The line.
        text: String,
    },
    /// A stage ended.
    Finished {
        /// The stage.
        stage: String,
        /// The time that it took.
        seconds: f64,
        /// Its result.
        result: String,
    },
    /// A message, such as a warning.
    Message {
        /// The message.
        text: String,
    },
    /// The error that ends the builder.
    Error {
        /// The error.
        text: String,
        /// The log of the stage that failed, if a stage with a log did.
        log: Option<String>,
    },
}

impl Event {
    /// Writes the event to standard error.
    fn emit(&self) {
        let line = serde_json::to_string(self).expect("an event has only texts and numbers");
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// Makes this process report its progress as events.
pub(crate) fn report_events() {
    EVENTS.store(true, Ordering::Relaxed);
}

/// Returns whether this process reports events to the builder that started it.
pub(crate) fn reports_events() -> bool {
    EVENTS.load(Ordering::Relaxed)
}

/// Prints a line to standard error.
///
/// Unlike `eprintln!`, it does not panic if standard error is closed: a build must not fail because
/// nothing reads its progress.
pub fn message(text: &str) {
    if reports_events() {
        return Event::Message { text: text.to_owned() }.emit();
    }
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints the error that ends this program. `log` is the log of the stage that failed.
pub(crate) fn error(text: &str, log: Option<&Path>) {
    if reports_events() {
        return Event::Error {
            text: text.to_owned(),
            log: log.map(|log| log.display().to_string()),
        }
        .emit();
    }
    message(&format!("error: {text}"));
}

/// The progress of one stage.
#[derive(Debug, Clone)]
pub struct Bar {
    bar: Option<ProgressBar>,
    title: String,
    started: Instant,
}

impl Bar {
    /// Shows that a stage begins.
    pub fn start(title: &str) -> Self {
        let is_terminal = !reports_events() && io::stderr().is_terminal();
        let bar = is_terminal.then(|| {
            let bar = ProgressBar::new_spinner().with_style(style()).with_prefix(title.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if reports_events() {
            Event::Started { stage: title.to_owned() }.emit();
        } else if bar.is_none() {
            message(&started_line(title));
        }
        Self { bar, title: title.to_owned(), started: Instant::now() }
    }

    /// Shows the current activity; only on a terminal, where each text replaces the previous one.
    pub fn activity(&self, text: &str) {
        if self.bar.is_none() && !reports_events() {
            return;
        }
        let text = shorten(text);
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None => Event::Activity { text }.emit(),
        }
    }

    /// Shows a step: as activity on a terminal, as a line elsewhere.
    pub fn step(&self, text: &str) {
        match &self.bar {
            Some(_) => self.activity(text),
            None if reports_events() => {
                Event::Step { stage: self.title.clone(), text: text.to_owned() }.emit();
            }
            None => message(&step_line(&self.title, text)),
        }
    }

    /// Shows the result of the stage. Returns the time that the stage took.
    pub fn finish(&self, result: &str) -> Duration {
        let took = self.started.elapsed();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if reports_events() {
            let (stage, result) = (self.title.clone(), result.to_owned());
            Event::Finished { stage, seconds: took.as_secs_f64(), result }.emit();
        } else {
            message(&finished_line(&self.title, took.as_secs(), result));
        }
        took
    }
}

/// Returns the style of a line with a spinner, for a stage or for a target.
pub(crate) fn style() -> ProgressStyle {
    let style = "{spinner} {prefix:<14} {elapsed:>5}  {wide_msg}";
    ProgressStyle::with_template(style).expect("the template is correct")
}

/// Returns a line of a log as a terminal shows it.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(ACTIVITY_WIDTH).collect()
}

fn started_line(stage: &str) -> String {
    format!("{stage}: started")
}

fn step_line(stage: &str, text: &str) -> String {
    format!("{stage}: {text}")
}

fn finished_line(stage: &str, seconds: u64, result: &str) -> String {
    format!("{stage:<14} {seconds:>4}s  {result}")
}

/// Formats an event as the line that a single target prints; an activity is not printed.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { stage } => f.write_str(&started_line(stage)),
            Self::Step { stage, text } => f.write_str(&step_line(stage, text)),
            Self::Activity { text } | Self::Message { text } => f.write_str(text),
            Self::Finished { stage, seconds, result } => {
                f.write_str(&finished_line(stage, *seconds as u64, result))
            }
            Self::Error { text, .. } => write!(f, "error: {text}"),
        }
    }
}
