//! The rules for the fields of a release, and the errors.

use crate::excerpt::excerpt;
use crate::role::Role;

/// The version of the claim's schema that this code reads and writes.
pub const SCHEMA: u32 = 1;
/// The maximum size of a kernel or initrd. Hosts keep them on the ESP, and FAT stores the size of a
/// file in 32 bits.
pub(super) const BOOT_SIZE_MAX: u64 = u32::MAX as u64;
/// The maximum size of a disk image. A larger one is a mistake or an attack.
pub(super) const DISK_SIZE_MAX: u64 = 8 << 30;
/// The maximum length of a version, kernel release or package name.
const IDENTIFIER_MAX: usize = 256;
/// The maximum length of the URL of an artifact.
const URL_MAX: usize = 2048;

/// Why a release is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// The schema is not [`SCHEMA`].
    #[error(
        "the release has schema {0}, but this program supports only schema {SCHEMA}; update the program"
    )]
    Schema(u64),
    /// A field has an invalid value.
    #[error("the release's {field} is {found:?}: {expected}")]
    Field {
        /// The name of the field.
        field: &'static str,
        /// An excerpt of the value.
        found: String,
        /// The values that are valid.
        expected: &'static str,
    },
    /// A list is too long.
    #[error("the release's {field} is {found}: expected at most {max}")]
    Count {
        /// The name of the list.
        field: &'static str,
        /// Its length.
        found: usize,
        /// The maximum length.
        max: usize,
    },
    /// Two documents have the same kind.
    #[error("the release has two documents of the kind {0:?}")]
    DuplicateKind(String),
    /// Two artifacts have the same role.
    #[error("the release has two artifacts with the role {0}")]
    DuplicateRole(Role),
    /// The kernel or the initrd is missing.
    #[error("the release has no {0}")]
    MissingRole(Role),
    /// A line of a package list does not have the words of a package.
    #[error("not a package: {0:?}, expected \"name version arch [source [source-version]]\"")]
    PackageLine(String),
}

/// Returns whether `name` has 1 to 128 letters, digits and `._~+-` and does not start with a dot. Such
/// a name needs no escaping as a file name or as a path segment of a URL.
pub fn is_file_name(name: &str) -> bool {
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || b"._~+-".contains(&b);
    (1..=128).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(is_allowed)
}

pub(super) fn invalid(field: &'static str, found: &str, expected: &'static str) -> ReleaseError {
    ReleaseError::Field { field, found: excerpt(found), expected }
}

/// Checks that `text` is printable ASCII without spaces, because it becomes part of lines, shell words
/// and file names.
pub(super) fn check_identifier(name: &'static str, text: &str) -> Result<(), ReleaseError> {
    let is_valid =
        (1..=IDENTIFIER_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if is_valid {
        Ok(())
    } else {
        Err(invalid(name, text, "expected 1 to 256 printable ASCII characters without spaces"))
    }
}

/// Checks that `text` is printable ASCII, in which spaces are allowed.
pub(super) fn check_text(name: &'static str, text: &str) -> Result<(), ReleaseError> {
    let is_allowed = |b: u8| b == b' ' || b.is_ascii_graphic();
    if (1..=IDENTIFIER_MAX).contains(&text.len()) && text.bytes().all(is_allowed) {
        Ok(())
    } else {
        Err(invalid(name, text, "expected 1 to 256 printable ASCII characters"))
    }
}

pub(super) fn check_file_name(name: &'static str, text: &str) -> Result<(), ReleaseError> {
    match is_file_name(text) {
        true => Ok(()),
        false => Err(invalid(name, text, "expected a plain file name")),
    }
}

pub(super) fn check_url(name: &'static str, url: &str) -> Result<(), ReleaseError> {
    match (1..=URL_MAX).contains(&url.len()) {
        true => Ok(()),
        false => {
            let found = format!("{} characters long", url.len());
            Err(invalid(name, &found, "expected 1 to 2048 characters"))
        }
    }
}

pub(super) fn check_count(
    name: &'static str,
    count: usize,
    max: usize,
) -> Result<(), ReleaseError> {
    match count <= max {
        true => Ok(()),
        false => Err(ReleaseError::Count { field: name, found: count, max }),
    }
}

pub(super) fn check_digest(name: &'static str, text: &str) -> Result<(), ReleaseError> {
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let is_valid = text.len() == 64 && text.bytes().all(is_hex);
    if is_valid {
        Ok(())
    } else {
        Err(invalid(name, text, "expected 64 lower-case hexadecimal digits"))
    }
}
