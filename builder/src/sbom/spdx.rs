//! The part of SPDX 2.3 that the document uses.
//!
//! The crates for SPDX had their last releases years ago or do not build their documentation, and the
//! part that is written here is small.

use serde::Serialize;

/// The value for what is not known.
pub(super) const NO_ASSERTION: &str = "NOASSERTION";
/// The identifier of the document itself.
pub(super) const DOCUMENT: &str = "SPDXRef-DOCUMENT";

/// A document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    pub(super) spdx_version: &'static str,
    pub(super) data_license: &'static str,
    #[serde(rename = "SPDXID")]
    pub(super) id: &'static str,
    pub(super) name: String,
    pub(super) document_namespace: String,
    pub(super) creation_info: CreationInfo,
    pub(super) packages: Vec<Package>,
    pub(super) relationships: Vec<Relationship>,
}

/// The origin of a document.
#[derive(Debug, Serialize)]
pub(super) struct CreationInfo {
    pub(super) created: String,
    pub(super) creators: Vec<String>,
}

/// A package: anything that has a name and a version.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Package {
    #[serde(rename = "SPDXID")]
    pub(super) id: String,
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) package_file_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) supplier: Option<String>,
    pub(super) download_location: String,
    pub(super) files_analyzed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) checksums: Vec<Checksum>,
    pub(super) license_concluded: &'static str,
    pub(super) license_declared: String,
    pub(super) copyright_text: &'static str,
    pub(super) primary_package_purpose: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) comment: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) external_refs: Vec<ExternalRef>,
}

/// A checksum.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Checksum {
    pub(super) algorithm: &'static str,
    pub(super) checksum_value: String,
}

/// A purl of a package.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExternalRef {
    pub(super) reference_category: &'static str,
    pub(super) reference_type: &'static str,
    pub(super) reference_locator: String,
}

/// A relationship of two elements.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Relationship {
    pub(super) spdx_element_id: String,
    pub(super) relationship_type: &'static str,
    pub(super) related_spdx_element: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) comment: Option<&'static str>,
}

impl Package {
    /// Returns a package about which only its name and version are known. Its identifier is unique for
    /// `key`.
    pub(super) fn new(purpose: &'static str, name: &str, version: Option<&str>, key: &str) -> Self {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '.';
        let readable: String = name.chars().map(|c| if is_allowed(c) { c } else { '-' }).collect();
        let digest = protocol::digest::of_bytes(key.as_bytes());
        Self {
            id: format!("SPDXRef-{readable}-{}", &digest[..12]),
            name: name.to_owned(),
            version_info: version.map(str::to_owned),
            package_file_name: None,
            supplier: None,
            download_location: NO_ASSERTION.into(),
            files_analyzed: false,
            checksums: Vec::new(),
            license_concluded: NO_ASSERTION,
            license_declared: NO_ASSERTION.into(),
            copyright_text: NO_ASSERTION,
            primary_package_purpose: purpose,
            comment: None,
            external_refs: Vec::new(),
        }
    }

    /// Returns a package that has a purl.
    pub(super) fn with_purl(
        purpose: &'static str,
        name: &str,
        version: &str,
        purl: String,
    ) -> Self {
        let mut package = Self::new(purpose, name, Some(version), &purl);
        package.external_refs.push(ExternalRef {
            reference_category: "PACKAGE-MANAGER",
            reference_type: "purl",
            reference_locator: purl,
        });
        package
    }

    /// Adds a SHA-256.
    pub(super) fn sha256(mut self, sha256: &str) -> Self {
        self.checksums.push(Checksum { algorithm: "SHA256", checksum_value: sha256.to_owned() });
        self
    }
}
