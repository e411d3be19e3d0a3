//! Keeps an EtchaOS host up to date.
//!
//! The modules, in the order in which an update uses them:
//! 1. [`cli`], [`commands`]: parse the command line, and run one command each
//! 2. [`config`]: merges the operator's configuration from all sources and records the source of each value
//! 3. [`host`], [`esp`], `fsck`, [`files`]: read the host's state, and mount, repair and access the ESP
//! 4. [`slots`], [`slot_content`], [`grubenv_file`]: read what the two slots and grubenv hold
//! 5. [`cdn`], [`candidate`]: fetch and verify the manifest of the release that the CDN offers
//! 6. [`plan`]: [`plan::next`], a pure function, decides the next step
//! 7. [`install`]: writes a release in an order that survives a power cut
//! 8. [`trial`]: the changes of the boot state that all of this makes, as pure functions
//! 9. `reboot`: `reboot::decide`, a pure function, decides whether the host may be rebooted now
//! 10. `health_check`, [`confirmation`]: after the reboot, make the running slot good if the host is healthy
//!
//! [`update`] combines the steps 4 to 8 for one ESP.
//!
//! Reporting: `record` stores the results of the last runs, `host_status` combines them with the state of
//! the host, `prometheus` formats them as metrics, [`progress`] shows downloads, and [`journal`] logs.
//!
//! `push_server` is separate: it runs Patterns that are pushed to the host.
//!
//! Running programs: `process` runs them with a timeout, `shell` runs the operator's commands, `timeout`
//! limits calls that may block, and [`interrupt`] handles signals.

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
