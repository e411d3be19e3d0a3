//! Configuration: read, merged, then validated.
//!
//! A [`Fragment`] is what one source configures, [`Merged`] is all sources with the origin of each
//! value, and [`Settings`] is the validated result. `etchaos-updater config` shows the second;
//! everything else uses the third.

mod error;
mod fragment;
mod health_policy;
mod load;
mod merged;
mod network;
mod no_proxy;
mod quantity;
mod reboot_policy;
mod redact;
mod settings;
mod smbios;
mod source;

pub use error::ConfigError;
pub use fragment::Fragment;
pub use health_policy::HealthPolicy;
pub(crate) use load::{load, load_built_in};
pub use merged::Merged;
pub use network::Network;
pub(crate) use network::{Environment, Variable};
pub(crate) use no_proxy::Bypass;
pub use reboot_policy::{Reboot, Window};
pub use settings::{Listen, Settings};
pub use source::Source;
