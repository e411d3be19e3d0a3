//! Pinned programs.

use anyhow::Result;
use protocol::release::is_file_name;

use super::fields::Field;

/// The maximum length of the name of a program, in bytes.
const NAME_MAX: usize = 64;

/// A program that is downloaded, verified and installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binary {
    /// The name, for messages and for the SBOM.
    pub name: String,
    /// The URL, with the scheme `https` or `http`.
    pub url: String,
    /// The SHA-256 of its bytes, in lower-case hexadecimal.
    pub sha256: String,
    /// The path in the image, below `/usr`.
    pub path: String,
}

impl Binary {
    /// Reads a program.
    pub(super) fn read(field: &Field<'_>) -> Result<Self> {
        let object = field.object(&["name", "url", "sha256", "path"])?;
        let text = |name: &str, expected: &str, is_valid: fn(&str) -> bool| {
            let text = object.require(name)?.text_that(expected, is_valid)?;
            Ok::<_, anyhow::Error>(text.to_owned())
        };
        Ok(Self {
            name: text("name", "a name of letters, digits, and any of . _ ~ + -", |name| {
                name.len() <= NAME_MAX && is_file_name(name)
            })?,
            url: text("url", "a URL with http or https, without credentials", |url| {
                protocol::url::origin(url).is_some()
            })?,
            sha256: text("sha256", "64 lower-case hexadecimal digits", is_sha256)?,
            path: text(
                "path",
                "a normalized path below /usr, but not below /usr/lib/etchaos",
                is_path,
            )?,
        })
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_path(path: &str) -> bool {
    let inside = path.strip_prefix("/usr/").filter(|path| !path.starts_with("lib/etchaos/"));
    inside.is_some_and(|path| path.split('/').all(is_file_name))
}
