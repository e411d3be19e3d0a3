//! The host name, the network interfaces and the time servers of the host.
//!
//! The values come from the configuration, which is hostile until it has been checked: the functions of
//! [`names`] and [`interface`] accept only what cannot change the meaning of a unit file. [`unit_files`] is a
//! pure function from valid settings to the files of systemd-networkd and systemd-timesyncd, and [`apply`]
//! writes them. A host without these settings keeps the files of its image, which use DHCP.

mod applied;
mod apply;
mod interface;
mod names;
mod settings;
mod unit_files;

pub(crate) use applied::Applied;
pub(crate) use apply::{Changes, set_host_name, write_files};
pub(crate) use interface::InterfaceFragment;
pub use interface::{Interface, Match};
pub(crate) use names::host_name;
pub use settings::HostSettings;
pub(crate) use settings::{interfaces, time_servers};

#[cfg(test)]
mod tests;
