//! The sources of configuration.

use std::fmt;
use std::path::PathBuf;

use super::platform::Platform;

/// The configuration in the image.
pub(super) const IMAGE_CONFIG: &str = "/usr/lib/etchaos/updater.json";
/// The keys that the image trusts, one per line.
pub(super) const IMAGE_KEYS: &str = "/usr/lib/etchaos/keys";

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
    /// The user data that the metadata service of the platform sends
    UserData(Platform),
    /// `openstack/latest/user_data` on the volume labelled `config-2`
    ConfigDrive,
    /// `user-data` on the volume labelled `cidata`
    Cidata,
    /// A file given with `--config`
    File(PathBuf),
    /// An environment variable
    Variable(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built-in default"),
            Self::OsRelease => f.write_str("/etc/os-release"),
            Self::Image => f.write_str(IMAGE_CONFIG),
            Self::ImageKeys => f.write_str(IMAGE_KEYS),
            Self::Esp => write!(f, "ESP {}", protocol::esp::CONFIG),
            Self::Cmdline => write!(f, "kernel command line {}=", protocol::esp::ARG_CONFIG),
            Self::Smbios(index) => write!(f, "SMBIOS type 11 etchaos= ({index})"),
            Self::UserData(platform) => write!(f, "{platform} user data"),
            Self::ConfigDrive => f.write_str("config-2 openstack/latest/user_data"),
            Self::Cidata => f.write_str("cidata user-data"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}
