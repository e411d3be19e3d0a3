//! Boots EtchaOS in a VM, and puts a release through a full update.
//!
//! The way in is [`cycle::run`]; it reads as the list of its steps. Below it, from the guest to the
//! metal:
//!
//! - [`artifacts`], [`work`], [`disk`], [`cdn`]: what a VM is given, and the folder of a run
//! - [`guest`]: a VM with an updater in it that answers; [`push`] talks to that
//! - [`checks`], [`actions`]: what is pushed
//! - [`vm`]: QEMU with [`console`], [`qmp`] and a TPM; [`machine`] is its command line
//! - [`firmware`], [`accel`], [`host`], [`process`]: what a VM stands on
//!
//! Nothing listens but on the loopback, and no process survives its owner.

pub mod accel;
pub mod actions;
pub mod artifacts;
pub mod bench;
pub mod cdn;
pub mod checks;
pub mod cli;
pub mod commands;
pub mod console;
pub mod cycle;
pub mod derived;
pub mod disk;
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
