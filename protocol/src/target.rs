//! Variants, architectures and targets, and the names of the files of a target.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::excerpt::excerpt;
use crate::role::Role;

/// The maximum length of the name of a variant. The names become parts of file names, URLs and shell
/// variables.
const VARIANT_MAX: usize = 16;

/// Why a text is not the name of a variant, architecture or target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The text is not 1 to 16 lower-case letters and digits.
    #[error(
        "{0:?} is not the name of a variant: expected 1 to 16 lower-case letters and digits, such as \"deb\""
    )]
    Variant(String),
    /// EtchaOS is not built for this architecture.
    #[error("unknown architecture {0:?}: expected amd64 or arm64")]
    Arch(String),
    /// The text is not `<variant>_<arch>`.
    #[error("{0:?} is not a target: expected <variant>_<arch>, such as \"deb_amd64\"")]
    Target(String),
}

/// A source distribution, such as `deb`: 1 to 16 lower-case ASCII letters and digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Variant(String);

impl Variant {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Variant {
    type Err = TargetError;

    fn from_str(name: &str) -> Result<Self, TargetError> {
        let is_allowed = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if name.is_empty() || name.len() > VARIANT_MAX || !is_allowed {
            return Err(TargetError::Variant(excerpt(name)));
        }
        Ok(Self(name.to_owned()))
    }
}

impl TryFrom<String> for Variant {
    type Error = TargetError;

    fn try_from(name: String) -> Result<Self, TargetError> {
        name.parse()
    }
}

impl From<Variant> for String {
    fn from(variant: Variant) -> Self {
        variant.0
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A processor architecture. The names are Debian's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// x86-64
    Amd64,
    /// AArch64
    Arm64,
}

impl Arch {
    /// All architectures.
    pub const ALL: [Self; 2] = [Self::Amd64, Self::Arm64];

    /// Returns the architecture that this program was compiled for, if EtchaOS supports it.
    pub fn native() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::Amd64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }
}

impl FromStr for Arch {
    type Err = TargetError;

    fn from_str(name: &str) -> Result<Self, TargetError> {
        match name {
            "amd64" => Ok(Self::Amd64),
            "arm64" => Ok(Self::Arm64),
            _ => Err(TargetError::Arch(excerpt(name))),
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        })
    }
}

/// A variant for an architecture, written as `deb_amd64`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The source distribution.
    pub variant: Variant,
    /// The processor architecture.
    pub arch: Arch,
}

impl Target {
    /// Returns the file name of the manifest, such as `etchaos_deb_amd64.jwt`.
    pub fn manifest_name(&self) -> String {
        format!("etchaos_{self}.jwt")
    }

    /// Returns the file name of an artifact, such as `etchaos_deb_amd64.initrd`.
    pub fn artifact_name(&self, role: Role) -> String {
        format!("etchaos_{self}.{}", role.extension())
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(name: &str) -> Result<Self, TargetError> {
        let (variant, arch) =
            name.split_once('_').ok_or_else(|| TargetError::Target(excerpt(name)))?;
        Ok(Self { variant: variant.parse()?, arch: arch.parse()? })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.variant, self.arch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_names_files() {
        let target: Target = "deb_amd64".parse().unwrap();
        assert_eq!(target.to_string(), "deb_amd64");
        assert_eq!(target.manifest_name(), "etchaos_deb_amd64.jwt");
        assert_eq!(target.artifact_name(Role::Disk), "etchaos_deb_amd64.raw.zst");
    }

    #[test]
    fn rejects_names_that_are_unsafe_in_paths() {
        for name in ["", "../x", "Deb", "d/b", "deb\n", "aaaaaaaaaaaaaaaaa"] {
            assert!(name.parse::<Variant>().is_err(), "{name:?}");
        }
        assert!("deb".parse::<Target>().is_err());
        assert!("deb_mips".parse::<Target>().is_err());
    }
}
