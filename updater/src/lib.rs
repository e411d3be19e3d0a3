//! Keeps an EtchaOS host up to date.
//!
//! The way of an update, and where it is written:
//! 1. [`config`]: what the operator wants, from every source, with its origin
//! 2. [`esp`], [`slots`], [`grubenv_file`]: what is there: the ESP, repaired by `fsck`, its slots, grubenv
//! 3. [`cdn`], [`candidate`]: what there could be: the manifest, verified
//! 4. [`plan`]: the one decision, [`plan::next`], pure
//! 5. [`install`]: writes a release, in an order that survives a power cut, by way of [`files`]
//! 6. `reboot`: whether the host may be rebooted now, `reboot::decide`, pure
//! 7. `health_check`, [`confirm`]: after the reboot, if the host is healthy
//!
//! [`update`] is 2 to 5 for one disk. [`trial`] is what all of this does to grubenv, pure.
//!
//! Reporting: `record` stores what the last runs did, `host_status` collects it with the rest,
//! `prometheus` formats it as metrics, and [`progress`] shows downloads.
//!
//! `push_server` is separate: it runs Patterns that are pushed to the host.

pub mod candidate;
pub mod cdn;
pub mod cli;
mod clock;
pub mod commands;
pub mod config;
pub mod confirmation;
pub mod esp;
pub mod files;
mod fsck;
pub mod grubenv_file;
mod health_check;
pub mod host;
mod host_status;
pub mod install;
pub mod interrupt;
mod io_hint;
pub mod journal;
pub mod plan;
mod process;
pub mod progress;
mod prometheus;
mod push_server;
mod reboot;
mod record;
mod shell;
pub mod slot_content;
pub mod slots;
mod timeout;
pub mod trial;
pub mod update;
