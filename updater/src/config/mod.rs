//! Configuration: read, merged, then validated.
//!
//! [`Fragment`] is what one source says, [`Merged`] remembers who said what, [`Settings`] makes
//! sense. `etchaos-updater config` shows the second; everything else works with the third.

mod complaint;
mod fragment;
mod health;
mod merged;
mod network;
mod policy;
mod quantity;
mod settings;
mod smbios;
mod sources;

use std::fmt;
use std::path::PathBuf;

pub use fragment::{Fragment, HealthFragment, ListenFragment, SourceFragment, Strings};
pub use health::Health;
pub use merged::{Merged, Sourced};
pub use network::{Environment, Network, Variable, proxy_place};
pub use policy::{Reboot, RebootFragment, Window, WindowFragment};
pub use quantity::{Quantity, span_text};
pub use settings::{Listen, Settings};
pub use sources::{load, of_image};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Built into this program.
    Default,
    /// `/etc/os-release`
    OsRelease,
    /// `/usr/lib/etchaos/updater.json`
    Image,
    /// `/usr/lib/etchaos/keys`
    ImageKeys,
    /// `etchaos/config.json` on the ESP
    Esp,
    /// `etchaos.config=` on the kernel command line
    Cmdline,
    /// The n-th SMBIOS type 11 string that begins with `etchaos=`, counted from 1
    Smbios(usize),
    /// `user-data` on the volume labelled `cidata`
    Cidata,
    /// A file named by `--config`
    File(PathBuf),
    /// A variable of the environment
    Variable(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built-in default"),
            Self::OsRelease => f.write_str("/etc/os-release"),
            Self::Image => f.write_str(sources::IMAGE_CONFIG),
            Self::ImageKeys => f.write_str(sources::IMAGE_KEYS),
            Self::Esp => write!(f, "ESP {}", protocol::esp::CONFIG),
            Self::Cmdline => write!(f, "kernel command line {}=", protocol::esp::ARG_CONFIG),
            Self::Smbios(index) => write!(f, "SMBIOS type 11 etchaos= ({index})"),
            Self::Cidata => f.write_str("cidata user-data"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// Configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A source is there and cannot be read.
    #[error("cannot read the configuration from {from}: {why}")]
    Read {
        /// The source.
        from: Source,
        /// What the system says.
        why: std::io::Error,
    },
    /// A source is not what it should be.
    #[error("the configuration from {from} is not usable: {why}")]
    Format {
        /// The source.
        from: Source,
        /// What is wrong.
        why: String,
    },
    /// A source is on a volume, and who mounts must be root.
    #[error("cannot read the configuration from {from}: {why}")]
    NotRoot {
        /// The source.
        from: Source,
        /// What mounting says.
        why: String,
    },
    /// A value makes no sense.
    #[error("\"{key}\" from {from} is not usable: {why}")]
    Value {
        /// The key, with dots between levels.
        key: String,
        /// The source.
        from: Source,
        /// What is wrong, and what was expected.
        why: String,
    },
}

impl ConfigError {
    /// Whether it will be the same the next time, unless somebody corrects the configuration.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Format { .. } | Self::Value { .. } => true,
            // Or maybe a disk, a mount or the memory was not what it should be for a moment.
            Self::Read { why, .. } => why.kind() == std::io::ErrorKind::FileTooLarge,
            Self::NotRoot { .. } => false,
        }
    }
}
