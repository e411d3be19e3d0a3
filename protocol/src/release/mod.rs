//! Releases: the claim `etchaosRelease` of a manifest.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Hasher;
use crate::excerpt::excerpt;
use crate::json;
use crate::role::Role;
use crate::target::{Arch, Target, Variant};

mod check;
mod deltas;
mod documents;
mod file;
mod id;
mod package;

use check::{
    BOOT_SIZE_MAX, DISK_SIZE_MAX, check_count, check_digest, check_file_name, check_identifier,
    check_text, check_url, invalid,
};

pub use check::{ReleaseError, SCHEMA, is_file_name};
pub use deltas::DeltaFile;
pub use documents::{Document, kind as document};
pub use file::PublishedFile;
pub use id::ReleaseId;
pub use package::{Package, SourcePackage};

const EXPECTED_ON_FAT: &str = "expected 1 to 4294967295 bytes, the maximum for a file on FAT";
/// The maximum number of packages, far above that of a minimal server.
const PACKAGES_MAX: usize = 10_000;
/// The maximum number of documents, and of programs of the toolchain.
const DOCUMENTS_MAX: usize = 64;
/// The maximum number of deltas of an artifact.
const DELTAS_MAX: usize = 64;

/// A file of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its role.
    #[serde(deserialize_with = "json::unit_variant")]
    pub role: Role,
    /// Its file name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// Its URL, absolute or relative to the URL of the manifest.
    pub url: String,
    /// Deltas from the same artifact of earlier releases.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "json::objects")]
    pub deltas: Vec<DeltaFile>,
}

/// A release.
///
/// All fields except `build` are determined by the content, so building the same packages with the
/// same recipe again gives the same release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The version of the schema: [`SCHEMA`].
    pub schema: u32,
    /// The source distribution.
    pub variant: Variant,
    /// The processor architecture.
    #[serde(deserialize_with = "json::unit_variant")]
    pub arch: Arch,
    /// `IMAGE_VERSION` of os-release, for display.
    pub version: String,
    /// The build number, which increases with each publication. It is 0 in the manifest inside a disk
    /// image, because the image must not depend on the number; see
    /// [`Manifest::is_older_than`](crate::Manifest::is_older_than).
    pub build: u64,
    /// The date of the newest package in Unix seconds. All timestamps in the image have this value.
    pub epoch: u64,
    /// The kernel release, as `uname -r` prints it.
    pub kernel: String,
    /// SHA-256 of the recipe: the rendered variant and the files that go into the image.
    pub recipe: String,
    /// The files of the release, at most one of each role.
    #[serde(deserialize_with = "json::objects")]
    pub artifacts: Vec<Artifact>,
    /// The packages of the image, sorted.
    #[serde(deserialize_with = "json::objects")]
    pub packages: Vec<Package>,
    /// Whether UEFI Secure Boot accepts the boot loader with the keys of Microsoft that firmware has. If not,
    /// a host boots only with Secure Boot disabled, or with keys of its owner.
    #[serde(default = "yes", rename = "secureBoot", skip_serializing_if = "is_true")]
    pub secure_boot: bool,
    /// The packages that the boot loader on the disk image is built from, sorted.
    #[serde(default, deserialize_with = "json::objects")]
    pub bootloader: Vec<Package>,
    /// Other files that are published with the release, at most one of each kind. Empty in the
    /// manifest inside a disk image.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "json::objects")]
    pub documents: Vec<Document>,
    /// The versions of the programs that compiled the updater, such as `rustc`, by name. Empty in the
    /// manifest inside a disk image.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub toolchain: BTreeMap<String, String>,
}

/// The value of a field that a manifest need not have.
fn yes() -> bool {
    true
}

fn is_true(value: &bool) -> bool {
    *value
}

impl Release {
    /// Returns the variant and architecture.
    pub fn target(&self) -> Target {
        Target { variant: self.variant.clone(), arch: self.arch }
    }

    /// Returns the id of the files that a host boots with this release.
    pub fn id(&self) -> ReleaseId {
        let mut hasher = Hasher::default();
        hasher.update(self.target().to_string().as_bytes());
        for artifact in self.boot_artifacts() {
            hasher.update(format!(" {}={}", artifact.role, artifact.sha256).as_bytes());
        }
        hasher.finish()[..16].parse().expect("a SHA-256 has 64 hexadecimal digits")
    }

    /// Returns the artifact with this role.
    pub fn artifact(&self, role: Role) -> Option<&Artifact> {
        self.artifacts.iter().find(|artifact| artifact.role == role)
    }

    /// Returns the kernel and the initrd, in the order of [`Role::BOOT`].
    pub fn boot_artifacts(&self) -> impl Iterator<Item = &Artifact> {
        Role::BOOT.into_iter().filter_map(|role| self.artifact(role))
    }

    /// Returns the document of this kind.
    pub fn document(&self, kind: &str) -> Option<&Document> {
        self.documents.iter().find(|document| document.kind == kind)
    }

    /// Returns all artifacts and documents.
    pub fn files(&self) -> impl Iterator<Item = PublishedFile<'_>> {
        self.artifacts.iter().map(Artifact::file).chain(self.documents.iter().map(Document::file))
    }

    /// Returns everything that is published: all artifacts, documents and deltas.
    pub fn all_files(&self) -> impl Iterator<Item = PublishedFile<'_>> {
        self.files().chain(self.deltas().map(DeltaFile::file))
    }

    /// Returns the deltas of all artifacts.
    pub fn deltas(&self) -> impl Iterator<Item = &DeltaFile> {
        self.artifacts.iter().flat_map(|artifact| &artifact.deltas)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// Fails with the first field that has an invalid value.
    pub fn validate(&self) -> Result<(), ReleaseError> {
        if self.schema != SCHEMA {
            return Err(ReleaseError::Schema(u64::from(self.schema)));
        }
        check_identifier("version", &self.version)?;
        check_identifier("kernel", &self.kernel)?;
        check_digest("recipe", &self.recipe)?;
        check_count("number of packages", self.packages.len(), PACKAGES_MAX)?;
        for package in self.packages.iter().chain(&self.bootloader) {
            check_identifier("package name", &package.name)?;
            check_identifier("package version", &package.version)?;
            check_identifier("package architecture", &package.arch)?;
            if let Some(source) = &package.source {
                check_identifier("source package name", &source.name)?;
                check_identifier("source package version", &source.version)?;
            }
        }
        self.validate_documents()?;
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

impl Release {
    fn validate_documents(&self) -> Result<(), ReleaseError> {
        check_count("number of documents", self.documents.len(), DOCUMENTS_MAX)?;
        check_count("number of toolchain programs", self.toolchain.len(), DOCUMENTS_MAX)?;
        let mut kinds = BTreeSet::new();
        for document in &self.documents {
            document.validate()?;
            if !kinds.insert(&document.kind) {
                return Err(ReleaseError::DuplicateKind(excerpt(&document.kind)));
            }
        }
        for (name, version) in &self.toolchain {
            check_identifier("toolchain program", name)?;
            check_text("toolchain version", version)?;
        }
        Ok(())
    }
}

impl Artifact {
    /// Returns the file as it is published.
    pub fn file(&self) -> PublishedFile<'_> {
        let Self { name, size, sha256, url, .. } = self;
        PublishedFile { name, size: *size, sha256, url }
    }

    fn validate(&self) -> Result<(), ReleaseError> {
        check_digest("artifact digest", &self.sha256)?;
        check_file_name("artifact name", &self.name)?;
        let (name, max, expected) = match self.role {
            Role::Kernel => ("kernel size", BOOT_SIZE_MAX, EXPECTED_ON_FAT),
            Role::Initrd => ("initrd size", BOOT_SIZE_MAX, EXPECTED_ON_FAT),
            Role::Disk => ("disk size", DISK_SIZE_MAX, "expected 1 byte to 8 GiB"),
        };
        if self.size == 0 || self.size > max {
            return Err(invalid(name, &self.size.to_string(), expected));
        }
        check_url("artifact url", &self.url)?;
        check_count("number of deltas", self.deltas.len(), DELTAS_MAX)?;
        self.deltas.iter().try_for_each(DeltaFile::validate)
    }
}

#[cfg(test)]
impl Release {
    /// Returns a valid release for the tests of this crate.
    pub(crate) fn example() -> Self {
        let artifact = |role: Role| Artifact {
            role,
            name: format!("etchaos_deb_amd64.{}", role.extension()),
            size: 1000,
            sha256: "ab".repeat(32),
            url: format!("etchaos_deb_amd64.{}", role.extension()),
            deltas: Vec::new(),
        };
        Self {
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
            documents: vec![Document {
                kind: document::SBOM.into(),
                name: "etchaos_deb_amd64.spdx.json".into(),
                size: 1000,
                sha256: "ef".repeat(32),
                url: "etchaos_deb_amd64.spdx.json".into(),
            }],
            secure_boot: true,
            toolchain: BTreeMap::from([("rustc".into(), "1.95.0 (f2d3ce0bd 2026-03-21)".into())]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_example_and_sorts_packages() {
        assert_eq!(Release::example().validate(), Ok(()));
        assert_eq!(Release::example().packages[0].name, "adduser");
    }

    type Change = fn(&mut Release);

    #[test]
    fn rejects_invalid_fields() {
        let changes: [Change; 17] = [
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
            |r| r.documents[0].name = "../x".into(),
            |r| r.documents[0].size = 0,
            |r| r.documents[0].kind = "two words".into(),
            |r| r.documents.push(r.documents[0].clone()),
            |r| r.documents[0].url = String::new(),
            |r| drop(r.toolchain.insert("rustc".into(), "1\n2".into())),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut release = Release::example();
            change(&mut release);
            assert!(release.validate().is_err(), "change {index}");
        }
    }

    #[test]
    fn reads_source_packages_that_differ() {
        let text = "bash 5.2-2+b1 amd64 bash 5.2-2\nlibc6 2.41-1 amd64 glibc\nsed 4.9-2 amd64 sed";
        let packages = Package::parse_list(text).unwrap();
        let source = |name: &str, version: &str| {
            Some(SourcePackage { name: name.into(), version: version.into() })
        };
        let sources: Vec<_> = packages.into_iter().map(|package| package.source).collect();
        assert_eq!(sources, [source("bash", "5.2-2"), source("glibc", "2.41-1"), None]);
        assert!(Package::parse_list("a 1 amd64 a 1 more").is_err());
    }

    #[test]
    fn manifests_without_documents_are_valid_and_unknown_kinds_too() {
        let mut release = Release::example();
        release.documents[0].kind = "a-kind-of-the-future".into();
        assert_eq!(release.validate(), Ok(()));
        let mut json = serde_json::to_value(&release).unwrap();
        for field in ["documents", "toolchain"] {
            json.as_object_mut().unwrap().remove(field).unwrap();
        }
        let old: Release = serde_json::from_value(json).unwrap();
        assert_eq!(old.validate(), Ok(()));
    }

    #[test]
    fn deltas_are_checked_and_need_not_be_there() {
        let mut release = Release::example();
        let json = serde_json::to_string(&release).unwrap();
        assert!(!json.contains("deltas"), "as in manifests of earlier versions");
        let delta = DeltaFile {
            from: "01".repeat(32),
            format: "a-format-of-the-future".into(),
            name: "x.delta".into(),
            size: 10,
            sha256: "02".repeat(32),
            url: "x.delta".into(),
            memory: 1 << 20,
        };
        release.artifacts[1].deltas.push(delta.clone());
        assert_eq!(release.validate(), Ok(()));
        let json = serde_json::to_string(&release).unwrap();
        assert_eq!(serde_json::from_str::<Release>(&json).unwrap(), release);
        assert_eq!(release.id(), Release::example().id());
        assert_eq!(release.deltas().collect::<Vec<_>>(), [&delta]);
        let changes: [fn(&mut DeltaFile); 5] = [
            |delta| delta.from = "x".into(),
            |delta| delta.name = "../x".into(),
            |delta| delta.size = 0,
            |delta| delta.size = 1 << 40,
            |delta| delta.url = String::new(),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut release = release.clone();
            change(&mut release.artifacts[1].deltas[0]);
            assert!(release.validate().is_err(), "change {index}");
        }
        release.artifacts[1].deltas = vec![delta; DELTAS_MAX + 1];
        assert!(release.validate().is_err());
    }

    #[test]
    fn a_manifest_says_so_if_secure_boot_refuses_the_release() {
        let json = |secure_boot| {
            serde_json::to_value(Release { secure_boot, ..Release::example() }).unwrap()
        };
        assert_eq!(json(true).get("secureBoot"), None, "as in manifests of earlier versions");
        assert_eq!(json(false)["secureBoot"], false);
        for expected in [true, false] {
            let release: Release = serde_json::from_value(json(expected)).unwrap();
            assert_eq!(release.secure_boot, expected);
        }
    }

    #[test]
    fn limits_boot_artifacts_to_the_file_size_of_fat() {
        let sized = |index: usize, size| {
            let mut release = Release::example();
            release.artifacts[index].size = size;
            release.validate().map_err(|error| error.to_string())
        };
        for (index, name) in [(0, "kernel"), (1, "initrd")] {
            assert_eq!(sized(index, (4 << 30) - 1), Ok(()));
            for size in [4_u64 << 30, 8 << 30] {
                let error = sized(index, size).unwrap_err();
                let found = format!("{name} size is \"{size}\"");
                for expected in [&found, "4294967295", "FAT"] {
                    assert!(error.contains(expected), "no {expected:?} in: {error}");
                }
            }
        }
        // Hosts do not write the disk image to the ESP.
        assert_eq!(sized(2, 8 << 30), Ok(()));
        assert!(sized(2, (8 << 30) + 1).is_err());
    }

    #[test]
    fn id_depends_only_on_boot_artifacts_and_target() {
        let old = Release::example();
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
    fn does_not_show_a_url_that_is_too_long() {
        let mut release = Release::example();
        release.artifacts[0].url = "SECRET".repeat(1000);
        let error = release.validate().unwrap_err().to_string();
        assert!(error.contains("6000 characters") && !error.contains("SECRET"), "{error}");
    }
}
