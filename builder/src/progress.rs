//! Progress on standard error: a spinner for each stage on a terminal, plain lines elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// The maximum width of the log line that the spinner shows, in characters.
const ACTIVITY_WIDTH: usize = 70;

/// Prints a line to standard error.
///
/// Unlike `eprintln!`, it does not panic if standard error is closed: a build must not fail because
/// nothing reads its progress.
pub fn message(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
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
        let bar = io::stderr().is_terminal().then(|| {
            let style = "{spinner} {prefix:<14} {elapsed:>5}  {wide_msg}";
            let style = ProgressStyle::with_template(style).expect("the template is correct");
            let bar = ProgressBar::new_spinner().with_style(style).with_prefix(title.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            message(&format!("{title}: started"));
        }
        Self { bar, title: title.to_owned(), started: Instant::now() }
    }

    /// Shows the current activity; only on a terminal, where each text replaces the previous one.
    pub fn activity(&self, text: &str) {
        if let Some(bar) = &self.bar {
            let clean: String =
                text.chars().filter(|c| !c.is_control()).take(ACTIVITY_WIDTH).collect();
            bar.set_message(clean);
        }
    }

    /// Shows a step: as activity on a terminal, as a line elsewhere.
    pub fn step(&self, text: &str) {
        match &self.bar {
            Some(_) => self.activity(text),
            None => message(&format!("{}: {text}", self.title)),
        }
    }

    /// Shows the result of the stage. Returns the time that the stage took.
    pub fn finish(&self, result: &str) -> Duration {
        let took = self.started.elapsed();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        message(&format!("{:<14} {:>4}s  {result}", self.title, took.as_secs()));
        took
    }
}
