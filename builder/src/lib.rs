//! Builds, tests and publishes EtchaOS.
//!
//! [`stages::run`] is the table of contents: six stages, each of which takes what the one before
//! returned. What they stand on:
//!
//! - [`variant`]: how a distribution becomes EtchaOS, rendered from Jsonnet
//! - [`sandbox`]: containers, in which the variant's Commands run
//! - [`image`]: the formats of a release, written in user space
//! - [`signing`], [`cdn`]: who signs, and where it goes
//! - [`command`], [`log_file`], [`progress`]: programs, their logs and what people see

pub mod cdn;
pub mod cli;
pub mod command;
pub mod download;
pub mod host;
pub mod image;
pub mod log_file;
pub mod progress;
pub mod sandbox;
pub mod signing;
pub mod stages;
pub mod summary;
pub mod updater_binary;
pub mod variant;

#[cfg(test)]
#[path = "../tests/judge/mod.rs"]
mod judge;
