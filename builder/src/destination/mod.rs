//! The places that releases are published to.
//!
//! A destination stores files under paths such as `deb_amd64/13.20261120-12345678-0123456789abcdef/x`.
//! There are two kinds: a [`directory`], which a web server serves, and an S3 bucket. From the URL of a
//! web server ([`http`]), files can only be read.

mod directory;
mod http;
mod interface;

use std::path::Path;

use anyhow::{Result, bail, ensure};

pub(crate) use directory::Directory;
pub(crate) use http::Http;
#[cfg(test)]
pub(crate) use interface::Conflict;
pub(crate) use interface::{Created, Destination, Listed, Location, Lock, Upload, Version};

/// Opens a destination: a directory, which is created if it does not exist.
pub(crate) fn open(text: &str) -> Result<Box<dyn Destination>> {
    ensure!(
        !text.contains("://"),
        "the destination {} is a URL, expected a directory",
        protocol::url::origin(text).unwrap_or("with an invalid URL")
    );
    Ok(Box::new(Directory::open(Path::new(text))?))
}

/// Opens a place to read from: the http(s) URL of a CDN, or a destination, which must exist.
pub(crate) fn locate(text: &str) -> Result<Box<dyn Location>> {
    if text.starts_with("http://") || text.starts_with("https://") {
        return Ok(Box::new(Http::open(text)?));
    }
    if !text.contains("://") {
        ensure!(Path::new(text).is_dir(), "the directory {text} does not exist");
        return Ok(Box::new(Directory::open(Path::new(text))?));
    }
    bail!("cannot read releases from {text:?}, expected http(s)://… or a directory")
}
