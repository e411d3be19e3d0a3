//! Boots EtchaOS in a VM, and tests updates, power cuts and faulty releases.
//!
//! The modules, from high level to low level:
//!
//! - [`scenarios`]: one file per scenario, each a list of its steps; describes how to add one
//! - [`scenario`], [`environment`], [`updates`], [`report`]: the common parts of scenarios
//! - [`origins`]: where a host got the files of an update from
//! - [`artifacts`], [`derived`], [`work`], [`disk`], [`cdn`]: the releases, the directory of a run, and
//!   the CDN
//! - [`replay`]: searches the states of recorded writes that a power cut can leave; needs no VM
//! - [`inspect`]: reads a disk from outside and predicts what it boots
//! - [`guest`]: a VM with a running updater, reached through [`push`]; [`figures`]: the time of its boot
//! - [`checks`], [`actions`]: the Patterns that are pushed to a guest
//! - [`vm`]: QEMU with [`console`], [`qmp`] and a TPM; [`machine`] builds its command line, and
//!   [`platform`] has what differs between architectures
//! - [`seconds`]: durations in JSON
//! - [`sector_size`]: the sectors of a disk
//! - [`firmware`], [`accel`], [`probe`], [`host`], [`process`]: the requirements of a VM
//! - [`shell`] opens a shell on a host, and [`push`] also sends Patterns to hosts, with [`client`]; [`exit`]
//!   has their exit codes
//!
//! The ports of VMs and servers are on the loopback, and no child process outlives the testbed.

mod accel;
mod actions;
mod args;
mod artifacts;
pub mod cancel;
mod cdn;
mod checks;
pub mod cli;
mod client;
pub mod commands;
mod console;
mod derived;
mod disk;
mod environment;
mod exit;
mod figures;
mod firmware;
mod guest;
pub mod host;
mod inspect;
mod key_text;
mod machine;
mod origins;
mod platform;
mod probe;
mod process;
mod push;
mod qmp;
mod replay;
pub mod report;
mod scenario;
mod scenarios;
pub mod seconds;
mod sector_size;
mod shell;
pub mod signals;
mod updates;
mod vm;
mod work;

pub use accel::Preference as AccelPreference;
pub use exit::ExitError;
pub use figures::BootFigures;
pub use inspect::files::visit_esp;
pub use key_text::key_text;
pub use scenario::{Failure, Options, ScenarioError};
pub use scenarios::cycle::run as run_cycle;
pub use sector_size::SectorSize;
