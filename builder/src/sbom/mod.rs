//! The software bill of materials (SBOM) of a release: an SPDX 2.3 document in JSON.
//!
//! The document depends only on the content of the release, so the same content gives the same bytes:
//! lists are sorted, the date is the release's epoch, and the namespace is derived from the document.

pub(crate) mod crates;
mod purl;
mod spdx;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use jiff::Timestamp;
use protocol::{Package, Release};
use uuid::Builder;

use crate::variant::{Binary, Naming};
use crates::Crate;
use purl::purl;
use spdx::{CreationInfo, DOCUMENT, Document, Relationship};

/// The contents of a document.
#[derive(Debug)]
pub(crate) struct Sbom<'a> {
    /// The release with all its artifacts. Its build number and its documents do not matter.
    pub release: &'a Release,
    /// The parts of the distribution's purls.
    pub naming: &'a Naming,
    /// The pinned programs of the variant.
    pub binaries: &'a [Binary],
    /// The crates of the updater.
    pub crates: &'a [Crate],
}

/// The packages by identifier, and their relationships.
#[derive(Default)]
struct Elements {
    packages: BTreeMap<String, spdx::Package>,
    relationships: Vec<Relationship>,
}

impl Elements {
    /// Adds a package once and returns its identifier.
    fn add(&mut self, package: spdx::Package) -> String {
        let id = package.id.clone();
        self.packages.entry(id.clone()).or_insert(package);
        id
    }

    fn relate(&mut self, from: &str, kind: &'static str, to: &str, comment: Option<&'static str>) {
        self.relationships.push(Relationship {
            spdx_element_id: from.into(),
            relationship_type: kind,
            related_spdx_element: to.into(),
            comment,
        });
    }
}

impl Sbom<'_> {
    /// Returns the document.
    pub(crate) fn to_json(&self) -> Result<String> {
        let mut elements = Elements::default();
        let root = self.root(&mut elements);
        for package in &self.release.packages {
            self.package(&mut elements, &root, package, None);
        }
        for package in &self.release.bootloader {
            let comment = "not installed: part of the boot loader or of the early system";
            self.package(&mut elements, &root, package, Some(comment));
        }
        for binary in self.binaries {
            let mut package = spdx::Package::new("APPLICATION", &binary.name, None, &binary.path)
                .sha256(&binary.sha256);
            package.download_location.clone_from(&binary.url);
            let id = elements.add(package);
            elements.relate(&root, "CONTAINS", &id, None);
        }
        self.updater(&mut elements, &root);
        self.document(elements)
    }

    /// Adds the release and its artifacts.
    fn root(&self, elements: &mut Elements) -> String {
        let release = self.release;
        let name = format!("etchaos_{}", release.target());
        let package = spdx::Package::new("OPERATING-SYSTEM", &name, Some(&release.version), "root");
        let root = elements.add(package);
        elements.relate(DOCUMENT, "DESCRIBES", &root, None);
        for artifact in &release.artifacts {
            let version = Some(release.version.as_str());
            let mut package = spdx::Package::new("FILE", &artifact.name, version, &artifact.name)
                .sha256(&artifact.sha256);
            package.package_file_name = Some(artifact.name.clone());
            let id = elements.add(package);
            elements.relate(&root, "CONTAINS", &id, None);
        }
        root
    }

    /// Adds a binary package and the source package that it was built from.
    fn package(
        &self,
        elements: &mut Elements,
        root: &str,
        package: &Package,
        comment: Option<&'static str>,
    ) {
        let source = package.source.as_ref();
        let (name, version) = source
            .map_or((&package.name, &package.version), |source| (&source.name, &source.version));
        // Whether a package is a program or a library is not known.
        let binary = self.distributed("OTHER", &package.name, &package.version, &package.arch);
        let binary = elements.add(binary);
        let arch = self.naming.source_arch.as_deref().unwrap_or_default();
        let source = elements.add(self.distributed("SOURCE", name, version, arch));
        elements.relate(root, "CONTAINS", &binary, comment);
        elements.relate(&binary, "GENERATED_FROM", &source, None);
    }

    /// Returns a package of the distribution. Without `arch`, its purl has no architecture.
    fn distributed(
        &self,
        purpose: &'static str,
        name: &str,
        version: &str,
        arch: &str,
    ) -> spdx::Package {
        let Naming { kind, namespace, distro, supplier, .. } = self.naming;
        let arch = Some(("arch", arch)).filter(|(_, arch)| !arch.is_empty());
        let distro = distro.as_deref().map(|distro| ("distro", distro));
        let qualifiers: Vec<_> = arch.into_iter().chain(distro).collect();
        let purl = purl(kind, Some(namespace), name, version, &qualifiers);
        let mut package = spdx::Package::with_purl(purpose, name, version, purl);
        package.supplier = Some(format!("Organization: {supplier}"));
        package
    }

    /// Adds the updater, its crates, and the programs that compiled it.
    fn updater(&self, elements: &mut Elements, root: &str) {
        let version = env!("CARGO_PKG_VERSION");
        let mut updater =
            spdx::Package::new("APPLICATION", "etchaos-updater", Some(version), "updater");
        updater.comment = Some(
            "linked statically, also with the C library of the build host, which is not listed here",
        );
        let updater = elements.add(updater);
        elements.relate(root, "CONTAINS", &updater, None);
        for Crate { name, version, license, sha256 } in self.crates {
            // A purl of a crate that is not in the registry would name a crate of somebody else.
            let Some(sha256) = sha256 else { continue };
            let purl = purl("cargo", None, name, version, &[]);
            let mut package =
                spdx::Package::with_purl("LIBRARY", name, version, purl).sha256(sha256);
            if !license.is_empty() {
                package.license_declared.clone_from(license);
            }
            let id = elements.add(package);
            elements.relate(&updater, "STATIC_LINK", &id, None);
        }
        for (name, version) in &self.release.toolchain {
            let key = format!("toolchain {name} {version}");
            let id = elements.add(spdx::Package::new("APPLICATION", name, Some(version), &key));
            elements.relate(&id, "BUILD_TOOL_OF", &updater, None);
        }
    }

    fn document(&self, mut elements: Elements) -> Result<String> {
        elements.relationships.sort();
        elements.relationships.dedup();
        let epoch = i64::try_from(self.release.epoch).context("the epoch is out of range")?;
        let created = Timestamp::from_second(epoch).context("the epoch is out of range")?;
        let mut document = Document {
            spdx_version: "SPDX-2.3",
            data_license: "CC0-1.0",
            id: DOCUMENT,
            name: format!("etchaos_{} {}", self.release.target(), self.release.version),
            document_namespace: String::new(),
            creation_info: CreationInfo {
                created: created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                creators: vec![format!("Tool: EtchaOS-builder-{}", env!("CARGO_PKG_VERSION"))],
            },
            packages: elements.packages.into_values().collect(),
            relationships: elements.relationships,
        };
        let digest = protocol::digest::of_bytes(&serde_json::to_vec(&document)?);
        let bits = u128::from_str_radix(&digest[..32], 16).context("a digest is hexadecimal")?;
        let uuid = Builder::from_custom_bytes(bits.to_be_bytes()).into_uuid();
        document.document_namespace = uuid.urn().to_string();
        Ok(serde_json::to_string_pretty(&document)? + "\n")
    }
}
