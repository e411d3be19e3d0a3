//! The URL of a web server that serves releases, such as a CDN. Files can only be read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use protocol::digest;
use protocol::url;

use super::interface::{Location, Stored, Version};
use crate::download;
use crate::proxy::Proxies;

/// A base URL.
#[derive(Debug)]
pub(crate) struct Http {
    /// The URL without a slash at its end.
    base: String,
    agent: ureq::Agent,
}

impl Http {
    /// Checks a base URL.
    pub(crate) fn open(base: &str) -> Result<Self> {
        ensure!(
            url::origin(base).is_some() && !base.contains(['?', '#']),
            "the URL of the releases is not valid, expected http(s)://host/path without user, \
             password and query"
        );
        let agent = download::agent(&Proxies::from_environment()?, base)?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), agent })
    }

    /// Returns the body of a file; `None` if the server does not have it.
    fn get(&self, path: &str) -> Result<Option<impl Read>> {
        // The same rule as on hosts: a path of plain names, or a URL of the same origin.
        let url = url::artifact_url(&format!("{}/manifest", self.base), path, &[])?;
        match self.agent.get(&url).call() {
            Err(ureq::Error::StatusCode(404)) => Ok(None),
            response => {
                let response = response.with_context(|| format!("fetching {url}"))?;
                Ok(Some(response.into_body().into_reader()))
            }
        }
    }
}

impl Location for Http {
    fn describe(&self) -> String {
        self.base.clone()
    }

    fn read(&self, path: &str, max: u64) -> Result<Option<Stored>> {
        let Some(body) = self.get(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let read = body.take(max + 1).read_to_end(&mut bytes);
        read.with_context(|| format!("reading {path} from {}", self.base))?;
        ensure!(bytes.len() as u64 <= max, "{path} at {} has more than {max} bytes", self.base);
        let version = Version(digest::of_bytes(&bytes));
        Ok(Some(Stored { bytes, version }))
    }

    fn measure(&self, path: &str, max: u64) -> Result<Option<(u64, String)>> {
        let Some(body) = self.get(path)? else { return Ok(None) };
        let measured = digest::of_reader(body.take(max + 1));
        Ok(Some(measured.with_context(|| format!("reading {path} from {}", self.base))?))
    }

    fn download(&self, path: &str, max: u64, to: &Path) -> Result<()> {
        let body = self.get(path)?;
        let body = body.with_context(|| format!("{} has no file {path}", self.base))?;
        let mut target =
            File::create_new(to).with_context(|| format!("creating {}", to.display()))?;
        let copied = io::copy(&mut body.take(max + 1), &mut target);
        let copied = copied.with_context(|| format!("downloading {path} from {}", self.base))?;
        ensure!(copied <= max, "{path} at {} has more than {max} bytes", self.base);
        Ok(())
    }
}
