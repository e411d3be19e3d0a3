//! Configuration: read, merged, then validated.
//!
//! A [`Fragment`] is what one source configures, [`Merged`] is all sources with the origin of each
//! value, and [`Settings`] is the validated result. `etchaos-updater config` shows the second;
//! everything else uses the third.
//!
//! A source that is broken does not take the values of the others away: [`Merged`] has the values of the
//! valid sources, and the errors of the broken ones. A text that is meant for another program is no broken
//! source, but ignored.

mod broken;
mod error;
mod fragment;
mod health_policy;
mod instance;
mod listen_tls;
mod load;
mod members;
mod merged;
mod metadata;
mod network;
mod no_proxy;
mod platform;
mod quantity;
mod reboot_policy;
mod redact;
mod settings;
mod smbios;
mod source;
mod text;
mod user_data;

pub use error::ConfigError;
pub use fragment::Fragment;
pub use health_policy::HealthPolicy;
pub(crate) use instance::Ask;
pub use listen_tls::{Pem, Tls};
pub(crate) use load::load;
pub use merged::Merged;
pub use network::Network;
pub(crate) use network::{Environment, Variable};
pub(crate) use no_proxy::Bypass;
pub use platform::Platform;
pub use reboot_policy::{Reboot, Window};
pub use settings::{Listen, Settings};
pub use source::Source;
pub use user_data::UserData;
