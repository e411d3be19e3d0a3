//! What a release is: the claim `etchaosRelease` of a manifest.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::json;
use crate::target::{Arch, Target, Variant, shortened};

/// The schema of the claim that this code reads and writes.
pub const SCHEMA: u32 = 1;
/// No artifact is larger. A release that a host could not hold in memory is a mistake or an attack.
pub const ARTIFACT_SIZE_MAX: u64 = 8 << 30;
/// What a host boots is on its ESP, and a FAT has 32 bits for a file's size.
const BOOT_SIZE_MAX: u64 = u32::MAX as u64;
const EXPECTED_ON_FAT: &str = "expected 1 to 4294967295 bytes, the most that a file on a FAT has";
/// More packages than any distribution installs on a minimal server.
const PACKAGES_MAX: usize = 10_000;
/// Longest version, kernel release or package name.
const WORD_MAX: usize = 256;
/// Longest URL of an artifact.
const URL_MAX: usize = 2048;

/// What an artifact is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The kernel, signed by its distribution.
    Kernel,
    /// The initrd: early init, root skeleton and `/usr`.
    Initrd,
    /// The raw disk image for a first installation. Hosts do not download it.
    Disk,
}

impl Role {
    /// What a host needs to boot, in the order in which it is installed.
    pub const BOOT: [Self; 2] = [Self::Kernel, Self::Initrd];

    /// The extension of the file on the CDN.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Kernel => "vmlinuz",
            Self::Initrd => "initrd",
            Self::Disk => "raw",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Disk => "disk",
        })
    }
}

/// A file of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// What it is for.
    #[serde(deserialize_with = "json::word")]
    pub role: Role,
    /// Its file name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// Where it is: relative to the manifest's URL, or absolute.
    pub url: String,
}

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, as the distribution writes it.
    pub version: String,
    /// Its architecture, as the distribution writes it.
    pub arch: String,
}

impl Package {
    /// Reads a text of one `name version arch` a line, as in `etchaBuildManifest`.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, ReleaseError> {
        let mut packages = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, version, arch] = words[..] else {
                return Err(ReleaseError::PackageLine(shortened(line)));
            };
            packages.push(Self {
                name: name.to_owned(),
                version: version.to_owned(),
                arch: arch.to_owned(),
            });
        }
        packages.sort();
        packages.dedup();
        Ok(packages)
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.version, self.arch)
    }
}

/// What a release is.
///
/// Everything but `build` is a function of the content, so that building the same packages by the
/// same recipe again gives the same release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The source distribution.
    pub variant: Variant,
    /// The processor architecture.
    #[serde(deserialize_with = "json::word")]
    pub arch: Arch,
    /// `IMAGE_VERSION` of os-release, for people.
    pub version: String,
    /// A number that only grows from one publication to the next. 0 in the manifest inside a disk
    /// image, which must not say as which build it was made; see [`Release::is_older_than`].
    pub build: u64,
    /// The date of the newest package, in Unix seconds: the timestamp of everything in the image.
    pub epoch: u64,
    /// What `uname -r` says.
    pub kernel: String,
    /// SHA-256 of the recipe: the rendered variant and the files that go into the image.
    pub recipe: String,
    /// The files of the release. One of each role at most.
    #[serde(deserialize_with = "json::objects")]
    pub artifacts: Vec<Artifact>,
    /// The packages of the image, sorted.
    #[serde(deserialize_with = "json::objects")]
    pub packages: Vec<Package>,
    /// The packages that the boot loader on the disk image comes from, sorted.
    #[serde(default, deserialize_with = "json::objects")]
    pub bootloader: Vec<Package>,
}

/// What a host boots with a release: its target, kernel and initrd. Two releases with the same id boot
/// the same bytes, even if packages of the boot loader differ. 64 bits of a SHA-256 as 16 hexadecimal
/// digits, short enough for grubenv.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReleaseId(u64);

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ReleaseId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let good = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = good.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or(())
    }
}

/// A release that does not make sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// Written for another program.
    #[error("the release has schema {0}, this program knows {SCHEMA}; update the program")]
    Schema(u64),
    /// A field with an unusable value.
    #[error("the release's {field} is {found:?}: {expected}")]
    Field {
        /// Which field.
        field: &'static str,
        /// The value, shortened.
        found: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// Two artifacts have one role.
    #[error("the release has two artifacts with the role {0}")]
    DuplicateRole(Role),
    /// No artifact has a role that is needed.
    #[error("the release has no {0}")]
    MissingRole(Role),
    /// A line that is not `name version arch`.
    #[error("not a package: {0:?}, expected \"name version arch\"")]
    PackageLine(String),
}

impl Release {
    /// Variant and architecture.
    pub fn target(&self) -> Target {
        Target { variant: self.variant.clone(), arch: self.arch }
    }

    /// What a host would boot.
    pub fn id(&self) -> ReleaseId {
        let mut digest = Sha256::new_with_prefix(self.target().to_string());
        for artifact in self.boot_artifacts() {
            digest.update(format!(" {}={}", artifact.role, artifact.sha256));
        }
        let bytes: [u8; 32] = digest.finalize().into();
        ReleaseId(bytes[..8].iter().fold(0, |id, byte| id << 8 | u64::from(*byte)))
    }

    /// The artifact with this role.
    pub fn artifact(&self, role: Role) -> Option<&Artifact> {
        self.artifacts.iter().find(|artifact| artifact.role == role)
    }

    /// Kernel and initrd, in the order of [`Role::BOOT`].
    pub fn boot_artifacts(&self) -> impl Iterator<Item = &Artifact> {
        Role::BOOT.into_iter().filter_map(|role| self.artifact(role))
    }

    /// Whether this release came before `other`.
    ///
    /// By build number; or, where one side was installed from a disk image and so has none, by the
    /// date of the newest package. Releases of different targets have no order.
    pub fn is_older_than(&self, other: &Self) -> bool {
        if self.target() != other.target() {
            false
        } else if self.build == 0 || other.build == 0 {
            self.epoch < other.epoch
        } else {
            self.build < other.build
        }
    }

    /// Checks every field, as if it came from a stranger.
    pub fn validate(&self) -> Result<(), ReleaseError> {
        if self.schema != SCHEMA {
            return Err(ReleaseError::Schema(u64::from(self.schema)));
        }
        word("version", &self.version)?;
        word("kernel", &self.kernel)?;
        sha256("recipe", &self.recipe)?;
        if self.packages.len() > PACKAGES_MAX {
            let found = self.packages.len().to_string();
            return Err(ReleaseError::Field { field: "packages", found, expected: "too many" });
        }
        for package in self.packages.iter().chain(&self.bootloader) {
            word("package name", &package.name)?;
            word("package version", &package.version)?;
            word("package architecture", &package.arch)?;
        }
        let mut roles = BTreeSet::new();
        for artifact in &self.artifacts {
            artifact.validate()?;
            if !roles.insert(artifact.role) {
                return Err(ReleaseError::DuplicateRole(artifact.role));
            }
        }
        match Role::BOOT.into_iter().find(|role| !roles.contains(role)) {
            Some(role) => Err(ReleaseError::MissingRole(role)),
            None => Ok(()),
        }
    }
}

impl Artifact {
    fn validate(&self) -> Result<(), ReleaseError> {
        sha256("artifact digest", &self.sha256)?;
        if !is_file_name(&self.name) {
            return Err(field("artifact name", &self.name, "expected a plain file name"));
        }
        let (name, max, expected) = match self.role {
            Role::Kernel => ("kernel size", BOOT_SIZE_MAX, EXPECTED_ON_FAT),
            Role::Initrd => ("initrd size", BOOT_SIZE_MAX, EXPECTED_ON_FAT),
            Role::Disk => ("disk size", ARTIFACT_SIZE_MAX, "expected 1 byte to 8 GiB"),
        };
        if self.size == 0 || self.size > max {
            return Err(field(name, &self.size.to_string(), expected));
        }
        if self.url.is_empty() || self.url.len() > URL_MAX {
            let found = format!("{} characters long", self.url.len());
            return Err(field("artifact url", &found, "expected 1 to 2048 characters"));
        }
        Ok(())
    }
}

/// Letters, digits and `._~+-`, not starting with a dot: safe as a file name and as a segment of a
/// URL's path without any escaping.
pub fn is_file_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._~+-".contains(&b);
    (1..=128).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
}

fn field(field: &'static str, found: &str, expected: &'static str) -> ReleaseError {
    ReleaseError::Field { field, found: shortened(found), expected }
}

/// One word of printable ASCII: it goes into lines, shell words and file names.
fn word(name: &'static str, text: &str) -> Result<(), ReleaseError> {
    let good = (1..=WORD_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if good { Ok(()) } else { Err(field(name, text, "expected one word of printable ASCII")) }
}

fn sha256(name: &'static str, text: &str) -> Result<(), ReleaseError> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let good = text.len() == 64 && text.bytes().all(hex);
    if good { Ok(()) } else { Err(field(name, text, "expected 64 lower-case hexadecimal digits")) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> Release {
        let artifact = |role: Role| Artifact {
            role,
            name: format!("etchaos_deb_amd64.{}", role.extension()),
            size: 1000,
            sha256: "ab".repeat(32),
            url: format!("etchaos_deb_amd64.{}", role.extension()),
        };
        Release {
            schema: SCHEMA,
            variant: "deb".parse().unwrap(),
            arch: Arch::Amd64,
            version: "13.20261120-12345678".into(),
            build: 7,
            epoch: 1_763_600_000,
            kernel: "6.12.57+deb13-cloud-amd64".into(),
            recipe: "cd".repeat(32),
            artifacts: [Role::Kernel, Role::Initrd, Role::Disk].map(artifact).to_vec(),
            packages: Package::parse_list("bash 5.2.37-2 amd64\nadduser 3.152 all\n").unwrap(),
            bootloader: Vec::new(),
        }
    }

    #[test]
    fn the_example_is_valid_and_its_packages_are_sorted() {
        assert_eq!(example().validate(), Ok(()));
        assert_eq!(example().packages[0].name, "adduser");
    }

    type Change = fn(&mut Release);

    #[test]
    fn what_a_stranger_might_write_is_refused() {
        let changes: [Change; 11] = [
            |r| r.schema = 2,
            |r| r.version = "two words".into(),
            |r| r.kernel = String::new(),
            |r| r.recipe = "CD".repeat(32),
            |r| r.artifacts[0].name = "../../etc/shadow".into(),
            |r| r.artifacts[0].name = ".hidden".into(),
            |r| r.artifacts[0].size = 0,
            |r| r.artifacts[0].size = u64::MAX,
            |r| r.artifacts[0].sha256 = "ab".repeat(31),
            |r| r.artifacts[0].role = Role::Initrd,
            |r| r.packages[0].version = "1\n2".into(),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut release = example();
            change(&mut release);
            assert!(release.validate().is_err(), "change {index}");
        }
    }

    #[test]
    fn what_a_host_boots_fits_on_a_fat() {
        let sized = |index: usize, size| {
            let mut release = example();
            release.artifacts[index].size = size;
            release.validate().map_err(|error| error.to_string())
        };
        for (index, name) in [(0, "kernel"), (1, "initrd")] {
            assert_eq!(sized(index, (4 << 30) - 1), Ok(()));
            for size in [4_u64 << 30, 8 << 30] {
                let error = sized(index, size).unwrap_err();
                let found = format!("{name} size is \"{size}\"");
                for said in [&found, "4294967295", "FAT"] {
                    assert!(error.contains(said), "no {said:?} in: {error}");
                }
            }
        }
        // No host writes the disk image to its ESP.
        assert_eq!(sized(2, 8 << 30), Ok(()));
        assert!(sized(2, (8 << 30) + 1).is_err());
    }

    #[test]
    fn age_goes_by_build_or_without_one_by_epoch() {
        let old = example();
        let new = Release { build: 8, epoch: old.epoch - 1, ..old.clone() };
        assert!(old.is_older_than(&new) && !new.is_older_than(&old));
        let unnumbered = Release { build: 0, ..old.clone() };
        assert!(new.is_older_than(&unnumbered));
        assert!(!unnumbered.is_older_than(&old) && !old.is_older_than(&unnumbered));
    }

    #[test]
    fn an_id_is_of_what_is_booted_and_of_nothing_else() {
        let old = example();
        let mut same = Release { build: 8, version: "else".into(), ..old.clone() };
        same.artifacts.retain(|artifact| artifact.role != Role::Disk);
        same.bootloader = Package::parse_list("grub 2.12 amd64").unwrap();
        assert_eq!(old.id(), same.id());
        assert_eq!(old.id().to_string().parse(), Ok(old.id()));
        let mut other = old.clone();
        other.artifacts[1].sha256 = "01".repeat(32);
        assert_ne!(old.id(), other.id());
        assert_ne!(old.id(), Release { arch: Arch::Arm64, ..old.clone() }.id());
    }

    #[test]
    fn a_url_that_is_too_long_is_not_shown() {
        let mut release = example();
        release.artifacts[0].url = "SECRET".repeat(1000);
        let error = release.validate().unwrap_err().to_string();
        assert!(error.contains("6000 characters") && !error.contains("SECRET"), "{error}");
    }
}
