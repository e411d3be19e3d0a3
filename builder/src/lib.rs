//! Builds, tests and publishes EtchaOS.
//!
//! [`stages::run`] runs the six stages of a build. Each stage takes what the previous one returned.
//! The other modules:
//!
//! - [`variant`] renders the description of a distribution from Jsonnet
//! - [`sandbox`] runs the variant's Commands, isolated from the host
//! - [`image`] writes the formats of a release in user space
//! - [`signing`] loads keys, [`cdn`] publishes releases
//! - [`cache`] keeps results of stages between builds
//! - [`command`], [`log_file`] and [`progress`] run programs, log their output and show progress
//! - [`host`] checks and installs the packages that the build host needs

mod cache;
mod cdn;
pub mod cli;
mod command;
mod download;
mod host;
mod image;
pub mod log_file;
pub mod output;
mod partial_file;
pub mod progress;
pub mod sandbox;
pub mod signals;
mod signing;
mod stages;
mod summary;
mod updater_binary;
mod variant;

#[cfg(test)]
#[path = "../tests/judge/mod.rs"]
mod judge;
