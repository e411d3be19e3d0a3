//! The places that releases are published to.
//!
//! A destination stores files under paths such as `deb_amd64/13.20261120-12345678-0123456789abcdef/x`.
//! There are two kinds: a [`directory`], which a web server serves, and a bucket of an [`s3`] store. From
//! the URL of a web server ([`http`]), files can only be read.

mod directory;
mod headers;
mod http;
mod interface;
mod s3;

use std::path::Path;

use anyhow::{Result, bail, ensure};

pub(crate) use directory::Directory;
pub(crate) use http::Http;
#[cfg(test)]
pub(crate) use interface::Conflict;
pub(crate) use interface::{Created, Destination, Listed, Location, Lock, Upload, Version};
pub(crate) use s3::S3;

/// Opens the destination that a command line names: `s3://BUCKET[/PREFIX]`, or a directory.
///
/// # Errors
/// Fails if the text has another scheme, or if the destination cannot be used as configured.
pub(crate) fn open(text: &str) -> Result<Box<dyn Destination>> {
    ensure!(
        !text.is_empty(),
        "the destination is empty; expected a directory or s3://BUCKET/PREFIX"
    );
    let Some(scheme) = scheme(text) else {
        return Ok(Box::new(Directory::open(Path::new(text))?));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "s3" => Ok(Box::new(S3::open(text, &s3::Environment::of_process())?)),
        // The rest of the text is not shown, because it can contain a password.
        "http" | "https" => bail!(
            "{scheme}: is not a scheme to publish to, because a web server only serves files; give \
             the directory that it serves, or s3://BUCKET/PREFIX with the address of the store in \
             AWS_ENDPOINT_URL_S3"
        ),
        _ => bail!(
            "{scheme}: is not a scheme that releases can be published to; expected a directory or \
             s3://BUCKET/PREFIX"
        ),
    }
}

/// Opens a place to read from: the http(s) URL of a CDN, or a destination, which must exist.
pub(crate) fn locate(text: &str) -> Result<Box<dyn Location>> {
    match scheme(text) {
        Some("http" | "https") => Ok(Box::new(Http::open(text)?)),
        Some("s3") => Ok(Box::new(S3::open(text, &s3::Environment::of_process())?)),
        Some(scheme) => bail!(
            "{scheme}: is not a scheme to read releases from; expected a directory, http(s)://… or \
             s3://BUCKET/PREFIX"
        ),
        None => {
            ensure!(Path::new(text).is_dir(), "the directory {text} does not exist");
            Ok(Box::new(Directory::open(Path::new(text))?))
        }
    }
}

/// Returns the scheme of a URL; `None` if the text is a path.
fn scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+.-".contains(c));
    (is_scheme && rest.starts_with('/')).then_some(scheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_directories_and_rejects_other_schemes() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("with:colon");
        let opened = open(path.to_str().unwrap()).unwrap();
        assert_eq!(opened.describe(), path.display().to_string());
        for (text, expected) in [
            ("https://user:secret@host/x", "the directory that it serves"),
            ("http://host", "the directory that it serves"),
            ("ftp://user:secret@host/x", "ftp: is not a scheme"),
            ("file:///srv/cdn", "file: is not a scheme"),
            ("s3:/bucket", "s3://BUCKET"),
            ("", "is empty"),
        ] {
            let error = format!("{:#}", open(text).err().unwrap());
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
