//! Boots EtchaOS in a VM, and puts a release through updates: whole ones and ones that are cut off.
//!
//! The scenarios are [`cycle`] (stage 5 of the builder), [`powercut`] and [`kill`]; each reads as the
//! list of its steps. Below them, from the guest to the metal:
//!
//! - [`scenario`], [`environment`], [`updates`]: what scenarios have in common
//! - [`artifacts`], [`derived`], [`work`], [`disk`], [`cdn`]: what a VM is given, and the directory of a run
//! - [`replay`]: what a power cut could have left of recorded writes, and its judge; needs no VM
//! - [`guest`]: a VM with an updater in it that answers; [`push`] talks to that
//! - [`checks`], [`actions`]: what is pushed
//! - [`vm`]: QEMU with [`console`], [`qmp`] and a TPM; [`machine`] is its command line
//! - [`firmware`], [`accel`], [`host`], [`process`]: what a VM stands on
//!
//! Nothing listens but on the loopback, and no process survives its owner.

pub mod accel;
pub mod actions;
pub mod artifacts;
pub mod cdn;
pub mod checks;
pub mod cli;
pub mod commands;
pub mod console;
pub mod cycle;
pub mod derived;
pub mod disk;
pub mod environment;
pub mod faults;
pub mod firmware;
pub mod guest;
pub mod host;
pub mod kill;
pub mod machine;
pub mod powercut;
pub mod process;
pub mod push;
pub mod qmp;
pub mod replay;
pub mod report;
pub mod scenario;
pub mod updates;
pub mod vm;
pub mod work;
