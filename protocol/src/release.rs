//! What a release is: the claim `etchaosRelease` of a manifest.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::target::{Arch, Target, Variant, shortened};

/// The schema of the claim that this code reads and writes.
pub const SCHEMA: u32 = 1;
/// No artifact is larger. A release that a host could not hold in memory is a mistake or an attack.
pub const ARTIFACT_SIZE_MAX: u64 = 8 << 30;
/// More packages than any distribution installs on a minimal server.
const PACKAGES_MAX: usize = 10_000;
/// Longest version, kernel release or package name.
const WORD_MAX: usize = 256;
/// As much of a host as is shown: a DNS name has 253 characters at most, with scheme and port.
const HOST_MAX: usize = 270;
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
    pub artifacts: Vec<Artifact>,
    /// The packages of the image, sorted.
    pub packages: Vec<Package>,
    /// The packages that the boot loader on the disk image comes from, sorted.
    #[serde(default)]
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
        if self.size == 0 || self.size > ARTIFACT_SIZE_MAX {
            let found = self.size.to_string();
            return Err(field("artifact size", &found, "expected 1 byte to 8 GiB"));
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

/// The URL of an artifact that the manifest at `manifest_url` names as `url`, if it stays at home.
///
/// A relative `url` is a path of plain file names below the manifest's folder; an absolute one must
/// have the scheme and host of the manifest, or begin with one of `allowed` (`https://host[:port]`).
pub fn artifact_url(manifest_url: &str, url: &str, allowed: &[String]) -> Result<String, UrlError> {
    if url.contains("://") {
        let origin = origin(url).ok_or_else(|| UrlError::Malformed(place(url)))?;
        let home = crate::release::origin(manifest_url);
        if home != Some(origin) && !allowed.iter().any(|other| other == origin) {
            return Err(UrlError::Foreign { origin: origin.chars().take(HOST_MAX).collect() });
        }
        return Ok(url.to_owned());
    }
    if !url.split('/').all(is_file_name) {
        return Err(UrlError::Malformed(place(url)));
    }
    let folder = manifest_url.rfind('/').map_or("", |end| &manifest_url[..=end]);
    Ok(format!("{folder}{url}"))
}

/// Scheme, host and port of an `http` or `https` URL without credentials.
pub fn origin(url: &str) -> Option<&str> {
    let scheme = ["https://", "http://"].into_iter().find(|scheme| url.starts_with(scheme))?;
    let plain = |b: u8| b.is_ascii_graphic() && !b"\\\"<>^`{|}".contains(&b);
    let host = url[scheme.len()..].split(['/', '?', '#']).next().unwrap_or_default();
    let good =
        !host.is_empty() && !host.contains('@') && has_sane_port(host) && url.bytes().all(plain);
    good.then(|| &url[..scheme.len() + host.len()])
}

/// A colon and what is no port: most likely a password with a slash in it.
fn has_sane_port(host: &str) -> bool {
    // The colons of an IPv6 address are in brackets.
    let after = host.rsplit(']').next().unwrap_or_default();
    let port = after.split_once(':').map(|(_, port)| port);
    port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// What may be shown of a URL that is not followed: scheme and host. Credentials and query may be
/// secrets, and a path may hold either where the URL is not well formed.
fn place(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "a relative one".to_owned() };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    if scheme.is_empty() || !scheme.bytes().all(plain) {
        return "with a scheme that is none".to_owned();
    }
    let scheme = shortened(scheme);
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default();
    let (host, after) = match authority.rsplit_once('@') {
        Some((_, host)) => (host, &rest[authority.len()..]),
        None => (authority, &rest[authority.len()..]),
    };
    // An `@` further on: what looks like the host may be the beginning of a password.
    let is_known = !host.is_empty() && !after.contains('@') && has_sane_port(host);
    match is_known {
        true => format!(
            "{:?}",
            format!("{scheme}://{}", host.chars().take(HOST_MAX).collect::<String>())
        ),
        false => format!("with the scheme {scheme:?}"),
    }
}

/// A URL in a manifest that a host must not follow. No more than scheme and host of it are shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Neither a plain relative path nor an http(s) URL.
    #[error(
        "the artifact's URL ({0}) is neither a path of plain file names nor an http(s) URL without credentials"
    )]
    Malformed(String),
    /// Another scheme or host than the manifest's.
    #[error(
        "the artifact's URL leaves the CDN for {origin}; if that is meant, name it in \"allowedOrigins\""
    )]
    Foreign {
        /// Its scheme, host and port.
        origin: String,
    },
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
    fn urls_stay_at_home() {
        let at = "https://cdn.example/os/etchaos_deb_amd64.jwt";
        let join = |url: &str| artifact_url(at, url, &["https://mirror.example:8443".into()]);
        assert_eq!(join("x.raw").unwrap(), "https://cdn.example/os/x.raw");
        assert_eq!(join("7/x.raw").unwrap(), "https://cdn.example/os/7/x.raw");
        assert!(join("https://cdn.example/else/x").is_ok());
        assert!(join("https://mirror.example:8443/x").is_ok());
        for url in [
            "",
            "/x",
            "../x",
            "a/../x",
            "a//x",
            "a\\x",
            "%2e%2e/x",
            "x?y",
            "//evil.example/x",
            "http://cdn.example/x",
            "https://cdn.example.evil/x",
            "https://cdn.example:444/x",
            "https://u:p@cdn.example/x",
            "ftp://cdn.example/x",
            "file:///etc/shadow",
            "https://mirror.example:84430/x",
            "https://",
            "https://cdn.example/a b",
            "https://cdn.example:port/x",
        ] {
            assert!(join(url).is_err(), "{url}");
        }
    }

    #[test]
    fn no_more_of_a_refused_url_is_shown_than_scheme_and_host() {
        let at = "https://cdn.example/etchaos_deb_amd64.jwt";
        for (url, shown) in [
            ("https://user:SECRET@host.example/x", "\"https://host.example\""),
            ("https://user:SECRET/word@host.example/x", "the scheme \"https\""),
            ("https://us/er:SECRET@host.example/x", "https://us;"),
            ("https://other.example/x?token=SECRET", "https://other.example;"),
            ("https://other.example/SECRET#SECRET", "https://other.example;"),
            ("ftp://SECRET@host.example", "\"ftp://host.example\""),
            ("SECRET:SECRET@host://x", "a scheme that is none"),
            ("x?token=SECRET", "a relative one"),
            ("SECRET:SECRET@host.example/x", "a relative one"),
        ] {
            let error = artifact_url(at, url, &[]).unwrap_err();
            for text in [error.to_string(), format!("{error:?}")] {
                assert!(!text.contains("SECRET"), "{text}");
            }
            assert!(error.to_string().contains(shown), "{error}");
        }
        let mut release = example();
        release.artifacts[0].url = "SECRET".repeat(1000);
        let error = release.validate().unwrap_err().to_string();
        assert!(error.contains("6000 characters") && !error.contains("SECRET"), "{error}");
    }
}
