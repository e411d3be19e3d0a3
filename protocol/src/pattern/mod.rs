//! Etcha's Patterns: lists of Commands, and the order in which they run.
//!
//! A Pattern is written in Jsonnet and rendered by the builder. A host reads only the rendered JSON.
//! The caller of [`run`] provides a [`Shell`], which executes the scripts of Commands.

mod command;
mod run;

pub use command::{Command, Entry, Exec, Pattern, PatternError, PatternFiles};
pub use run::{CommandResult, Mode, Outcome, Output, Report, RunError, Shell, run};
