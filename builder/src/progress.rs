//! Progress: a bar for each stage on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How wide the shown end of a log line may be.
const ACTIVITY_WIDTH: usize = 70;

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
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = "{spinner} {prefix:<14} {elapsed:>5}  {wide_msg}";
            let style = ProgressStyle::with_template(style).expect("the template is correct");
            let bar = ProgressBar::new_spinner().with_style(style).with_prefix(title.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            eprintln!("{title}: started");
        }
        Self { bar, title: title.to_owned(), started: Instant::now() }
    }

    /// Shows what is happening; only on a terminal, where it does not pile up.
    pub fn activity(&self, text: &str) {
        if let Some(bar) = &self.bar {
            let clean: String =
                text.chars().filter(|c| !c.is_control()).take(ACTIVITY_WIDTH).collect();
            bar.set_message(clean);
        }
    }

    /// Shows a step worth a line everywhere.
    pub fn step(&self, text: &str) {
        match &self.bar {
            Some(_) => self.activity(text),
            None => eprintln!("{}: {text}", self.title),
        }
    }

    /// Shows how the stage ended. Returns how long it took.
    pub fn finish(&self, result: &str) -> Duration {
        let took = self.started.elapsed();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("{:<14} {:>4}s  {result}", self.title, took.as_secs());
        took
    }
}
