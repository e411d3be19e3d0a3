//! Boots EtchaOS in a VM, and takes a release through updates, power cuts and faults.
//!
//! From the top to the bottom:
//!
//! - [`scenarios`]: one file per scenario, each the list of its steps; says how to add one
//! - [`scenario`], [`environment`], [`updates`], [`report`]: what scenarios share
//! - [`artifacts`], [`derived`], [`work`], [`disk`], [`cdn`]: the releases, the directory of a run, and
//!   the CDN
//! - [`replay`]: searches the states that a power cut can leave of recorded writes; needs no VM
//! - [`inspect`]: reads a disk from outside and predicts what it would boot
//! - [`guest`]: a VM with a running updater, reached through [`push`]
//! - [`checks`], [`actions`]: the Patterns that are pushed
//! - [`vm`]: QEMU with [`console`], [`qmp`] and a TPM; [`machine`] builds its command line
//! - [`firmware`], [`accel`], [`probe`], [`host`], [`process`]: what a VM depends on
//!
//! All ports are on the loopback, and no child process outlives the testbed.

mod accel;
mod actions;
mod args;
mod artifacts;
pub mod cancel;
mod cdn;
mod checks;
pub mod cli;
pub mod commands;
mod console;
mod derived;
mod disk;
mod environment;
mod firmware;
mod guest;
pub mod host;
mod inspect;
mod machine;
mod probe;
mod process;
mod push;
mod qmp;
mod replay;
pub mod report;
mod scenario;
mod scenarios;
pub mod signals;
mod updates;
mod vm;
mod work;

pub use accel::Preference as AccelPreference;
pub use scenario::{Failure, Options, ScenarioError};
pub use scenarios::cycle::run as run_cycle;
