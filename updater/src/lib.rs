//! Keeps an EtchaOS host up to date.
//!
//! An update passes through these modules:
//! 1. [`config`] merges and validates the configuration from all sources.
//! 2. `boot_disk` finds the disk that was booted, and [`esp`] mounts its ESP, which `fsck` repairs if
//!    necessary; [`slots`] and [`grubenv_file`] read its slots and grubenv.
//! 3. [`cdn`] downloads the manifest; [`candidate`] verifies it.
//! 4. [`plan`] decides the next step with a pure function, [`plan::next`].
//! 5. [`install`] writes a release through [`files`], in an order of writes that survives a power cut.
//! 6. `reboot` decides with a pure function, `reboot::decide`, whether the host may be rebooted now.
//! 7. After the reboot, `health_check` checks whether the host is healthy, and [`confirmation`] makes the
//!    running slot good.
//!
//! [`update`] runs steps 2 to 5 for one disk. [`trial`] has the changes of the boot state in grubenv, as
//! pure functions.
//!
//! `record` stores the results of the last runs, `host_status` combines them with the state of the host,
//! `prometheus` formats the status as metrics, and [`progress`] shows the progress of downloads.
//! `wrong_files` remembers files that are not worth another download, `failed_deltas` does so for deltas, and `traffic`
//! counts the bytes that updates fetch.
//!
//! `data` is separate: it mounts the partition with what a host keeps over reboots. It never changes the ESP.
//!
//! `push_server` is separate: it runs Patterns that are pushed to the host. [`jsonnet`] renders them, and `tls` has
//! the certificate of the host. [`sources`] keeps them, pulls others, and runs what is kept again.
//!
//! `host_settings` is separate too: host name, network interfaces and time servers.
//!
//! `shell_server` gives a shell to clients that may have one; `open_shells` tells the others about it.
//!
//! Running programs: `process` runs them with a timeout, `shell` runs the operator's commands, `timeout`
//! limits calls that may block, `schedule` sets timers, `mount_info` lists mounts, and [`interrupt`] handles signals.

mod audience;
mod boot_disk;
pub mod candidate;
pub mod cdn;
pub mod cli;
mod clock;
pub mod commands;
pub mod config;
pub mod confirmation;
mod data;
pub mod esp;
mod failed_deltas;
pub mod files;
mod fsck;
pub mod grubenv_file;
mod health_check;
pub mod host;
pub mod host_settings;
mod host_status;
pub mod install;
pub mod interrupt;
mod io_hint;
pub mod journal;
pub mod jsonnet;
mod mount_info;
mod open_shells;
pub mod plan;
mod process;
pub mod progress;
mod prometheus;
mod push_server;
mod reboot;
mod record;
mod schedule;
mod shell;
mod shell_server;
pub mod slot_content;
pub mod slots;
pub mod sources;
mod timeout;
mod tls;
mod traffic;
pub mod trial;
pub mod update;
mod wrong_files;
