//! Shows several targets while they run: a line for each on a terminal, lines that begin with the target elsewhere.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar};
use protocol::Target;

use super::record::Record;
use crate::progress::{Event, message, shorten, style};

/// The progress of all targets on standard error.
#[derive(Debug)]
pub(super) enum Display {
    /// A line for each target, which changes.
    Terminal {
        all: MultiProgress,
        bars: Vec<ProgressBar>,
        titles: Vec<String>,
        stages: Vec<String>,
    },
    /// A line for each event.
    Lines { titles: Vec<String> },
}

impl Display {
    /// Shows that all targets wait.
    pub(super) fn new(targets: &[Target]) -> Self {
        let titles: Vec<String> = targets.iter().map(ToString::to_string).collect();
        if !io::stderr().is_terminal() {
            return Self::Lines { titles };
        }
        let all = MultiProgress::new();
        let bar = |title: &String| {
            let bar =
                all.add(ProgressBar::new_spinner().with_style(style()).with_prefix(title.clone()));
            bar.set_message("waiting");
            bar
        };
        let bars = titles.iter().map(bar).collect();
        Self::Terminal { all, bars, stages: vec![String::new(); titles.len()], titles }
    }

    /// Shows that the builder of a target starts.
    pub(super) fn start(&self, index: usize) {
        if let Self::Terminal { bars, .. } = self {
            bars[index].reset_elapsed();
            bars[index].set_message("starting");
            bars[index].enable_steady_tick(Duration::from_millis(120));
        }
    }

    /// Shows an event of a target.
    pub(super) fn event(&mut self, index: usize, event: &Event) {
        match self {
            Self::Lines { titles } => {
                if !matches!(event, Event::Activity { .. }) {
                    print(&titles[index], &event.to_string(), message);
                }
            }
            Self::Terminal { all, bars, titles, stages } => match event {
                Event::Started { stage } => {
                    stages[index].clone_from(stage);
                    bars[index].set_message(stage.clone());
                }
                Event::Step { text, .. } | Event::Activity { text } => {
                    bars[index].set_message(format!("{}  {}", stages[index], shorten(text)));
                }
                Event::Finished { result, .. } => {
                    bars[index].set_message(format!("{}  {result}", stages[index]));
                }
                Event::Message { text } => print(&titles[index], text, |line| {
                    // Like a message, which must not fail.
                    let _ = all.println(line);
                }),
                // The summary shows the error.
                Event::Error { .. } => {}
            },
        }
    }

    /// Shows the result of a target that ended.
    pub(super) fn end(&self, index: usize, record: &Record) {
        let result = if record.has_failed() { "failed" } else { "done" };
        match self {
            Self::Terminal { bars, .. } => bars[index].abandon_with_message(result),
            Self::Lines { titles } => message(&format!("{}: {result}", titles[index])),
        }
    }

    /// Removes the lines of a terminal.
    pub(super) fn clear(&self) {
        if let Self::Terminal { all, .. } = self {
            let _ = all.clear();
        }
    }
}

/// Prints each line of a text with the target before it.
fn print(title: &str, text: &str, line: impl Fn(&str)) {
    for text in text.lines() {
        line(&format!("{title}: {text}"));
    }
}
