//! Builds, tests and publishes EtchaOS.
//!
//! The modules, from high level to low level:
//!
//! - [`cli`] is the command line, and [`commands`] has the subcommands
//! - [`targets`] runs a command for several targets, each in a builder process of its own
//! - [`stages`] builds and tests a release: each stage takes what the previous one returned
//! - [`packaged`] is a release that was built, and [`tested`] one that was tested
//! - [`figures`] are the times of builds and boots
//! - [`publish`] puts releases on a [`destination`], and [`published`] reads them there
//! - [`variant`] renders the description of a distribution from Jsonnet
//! - [`sandbox`] runs the variant's Commands, isolated from the host
//! - [`oci`] pulls container images from a registry
//! - [`image`] writes the formats of a release in user space
//! - [`contents`] lists the files of an image, [`diff`] compares two releases
//! - [`sbom`] lists the packages and crates of a release
//! - [`signing`] loads keys and signs manifests
//! - [`cargo`] and [`updater_binary`] compile the updater with the pinned toolchain; [`triple`] has the names
//!   that compilers give to an architecture
//! - [`cache`] keeps results of stages between builds
//! - [`command`], [`log_file`] and [`progress`] run programs, log their output and show progress
//! - [`lock`] makes builder processes wait for each other
//! - [`mirror`] validates the URL of the mirror
//! - [`environment`] and [`proxy`] decide which settings of the build host reach programs
//! - [`host`] checks and installs the packages that the build host needs, and [`emulation`] what runs programs
//!   for another architecture

mod cache;
mod cargo;
pub mod cli;
mod command;
mod commands;
mod contents;
mod delta;
mod destination;
mod diff;
mod download;
mod emulation;
pub mod environment;
mod figures;
mod host;
mod image;
mod lock;
pub mod log_file;
mod memory;
mod mirror;
pub mod oci;
pub mod output;
mod packaged;
mod partial_file;
pub mod progress;
mod proxy;
mod publish;
mod published;
mod published_image;
pub mod sandbox;
mod sbom;
pub mod signals;
mod signing;
mod stages;
mod summary;
mod targets;
mod tested;
mod triple;
mod updater_binary;
mod variant;

#[cfg(test)]
#[path = "../tests/judge/mod.rs"]
mod judge;
