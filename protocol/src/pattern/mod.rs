//! Etcha's Patterns: lists of Commands, and the order in which they run.
//!
//! A Pattern is written in Jsonnet. This module reads the rendered JSON; the builder and the updater render
//! it. The caller of [`run`] provides a [`Shell`], which executes the scripts of Commands.
//!
//! Patterns and Commands mean what they mean in Etcha (its documentation, "Patterns" and "Commands", of March
//! 2024). What is not supported is an error that names it: Commands that run at the same time (`parallel`,
//! `async`, `after`, `before`, `locks`), `provides`, containers and users in `exec`, and events for other
//! Patterns.

mod command;
mod duration;
mod exec;
mod exports;
mod limits;
mod plan;
mod read;
mod regex;
mod removal;
mod report;
mod run;
mod shell;

pub use command::{Command, Entry, Pattern, PatternError, PatternFiles};
pub use exec::Exec;
pub use regex::{Filter, RegexError, regex};
pub use report::{CommandResult, Mode, Outcome, Report};
pub use run::{List, Options, RunError, run};
pub use shell::{Invocation, Output, Shell, Stream};
