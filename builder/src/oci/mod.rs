//! Pulls container images from a registry, without a container engine.
//!
//! The crate `oci-client` would do the requests, too. It is not used because it reads manifests, errors and tokens
//! into memory without a limit, downloads layers from URLs in the manifest, and does not unpack layers. It would
//! also add 19 crates; the HTTP client and the formats that are needed here are in use elsewhere.
//!
//! - [`reference`] parses the names of images, and [`login`] finds passwords
//! - [`client`] sends requests, and [`download`] fetches layers
//! - [`manifest`] reads the documents of an image
//! - [`layer`] unpacks layers into a [`tree`]

mod client;
mod download;
mod layer;
mod login;
mod manifest;
mod reference;
mod text;
mod tree;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use protocol::Arch;

pub use login::{Login, Logins};
pub use reference::{Digest, Reference};

use client::{Client, DOCUMENT_MAX, Request};
use layer::Allowance;
use manifest::{ACCEPT, Blob, Document, Image};
use tree::Tree;

use crate::log_file::LogFile;
use crate::proxy::Proxies;

/// The time after which a registry that sends nothing counts as absent.
const STALL: Duration = Duration::from_secs(30);

/// The directories on which a sandbox mounts file systems, or in which it writes.
const MOUNT_POINTS: [&str; 6] = ["build", "dev", "etc", "proc", "run", "sys"];

/// An image, and how to reach its registry.
#[derive(Debug)]
pub struct Pull {
    image: Reference,
    logins: Logins,
    proxies: Proxies,
    stall: Duration,
}

impl Pull {
    /// Returns the pull of an image with the proxies of the environment.
    pub fn new(image: Reference, logins: Logins) -> Result<Self> {
        Ok(Self { image, logins, proxies: Proxies::from_environment()?, stall: STALL })
    }

    /// Sets the time after which a registry that sends nothing counts as absent.
    pub fn with_stall(self, stall: Duration) -> Self {
        Self { stall, ..self }
    }

    /// Pulls the image for an architecture and unpacks it to `to`, which must not exist. Returns the reference of
    /// the image with its digest, which is the one of the index if the image is for several platforms.
    ///
    /// # Errors
    /// Fails, and leaves nothing at `to`, if the image cannot be pulled or is not what its digests say.
    pub fn unpack(&self, arch: Arch, to: &Path, log: &mut LogFile) -> Result<Reference> {
        let result = self.try_unpack(arch, to, log);
        if result.is_err() {
            // The error to report is the one of the pull.
            let _ = fs::remove_dir_all(to);
        }
        let (image, api) = (&self.image, self.image.api_host());
        result.with_context(|| format!("pulling the image {image} from the registry {api}"))
    }

    fn try_unpack(&self, arch: Arch, to: &Path, log: &mut LogFile) -> Result<Reference> {
        let client = Client::new(&self.image, &self.logins, &self.proxies, self.stall)?;
        log.line(&format!("pulling {} from {}", self.image, client.base()));
        fs::create_dir(to).with_context(|| format!("creating {}", to.display()))?;
        let (pulled, image) = self.resolve(&client, arch, log)?;
        let tree = Tree::open(to)?;
        let directory = to.parent().context("the tree has no parent directory")?;
        let mut allowance = Allowance::default();
        for (index, layer) in image.layers.iter().enumerate() {
            let Blob { digest, size } = &layer.blob;
            let count = image.layers.len();
            let what = format!("layer {} of {count}, {digest}", index + 1);
            log.line(&format!("{what}, {size} bytes"));
            let mut file = tempfile::tempfile_in(directory).context("creating a file")?;
            let fetched = download::fetch(&client, &layer.blob, &mut file, log);
            fetched.with_context(|| format!("fetching {what}"))?;
            layer::unpack(&mut file, layer.compression, &tree, &mut allowance)
                .with_context(|| format!("unpacking {what}"))?;
        }
        tree.require_directories(&MOUNT_POINTS)?;
        log.line(&format!("pulled {pulled}"));
        Ok(pulled)
    }

    /// Returns the image for an architecture, and its reference with the digest.
    fn resolve(
        &self,
        client: &Client<'_>,
        arch: Arch,
        log: &mut LogFile,
    ) -> Result<(Reference, Image)> {
        let text = document(client, &format!("manifests/{}", self.image.version()))?;
        let digest = Digest::of_bytes(&text);
        if let Some(expected) = self.image.digest() {
            check_digest(&digest, expected, "the reference")?;
        }
        let parse = |text: &[u8], digest: &Digest| {
            Document::parse(text).with_context(|| format!("reading the manifest {digest}"))
        };
        let image = match parse(&text, &digest)? {
            Document::Image(image) => image,
            Document::Index(index) => {
                let blob = index.find(arch)?;
                log.line(&format!("its manifest for linux/{arch} is {}", blob.digest));
                match parse(&verified(client, "manifests", &blob)?, &blob.digest)? {
                    Document::Image(image) => image,
                    Document::Index(_) => {
                        anyhow::bail!("the index {digest} contains another index")
                    }
                }
            }
        };
        let config = verified(client, "blobs", &image.config)?;
        manifest::check_config(&config, arch, image.layers.len())
            .with_context(|| format!("reading the configuration {}", image.config.digest))?;
        Ok((self.image.with_digest(digest), image))
    }
}

/// Fetches an index, a manifest or a configuration.
fn document(client: &Client<'_>, path: &str) -> Result<Vec<u8>> {
    let failed = || format!("fetching {path}");
    let answer = client.get(Request::document(path, ACCEPT)).map_err(|(error, _)| error);
    client.read(answer.with_context(failed)?, DOCUMENT_MAX).with_context(failed)
}

/// Fetches a document, and verifies its size and digest.
fn verified(client: &Client<'_>, kind: &str, blob: &Blob) -> Result<Vec<u8>> {
    let Blob { digest, size } = blob;
    let text = document(client, &format!("{kind}/{digest}"))?;
    let failed = || format!("verifying {kind}/{digest}");
    ensure!(
        text.len() as u64 == *size,
        "{}: it has {} bytes, expected {size}",
        failed(),
        text.len()
    );
    check_digest(&Digest::of_bytes(&text), digest, "the manifest").with_context(failed)?;
    Ok(text)
}

fn check_digest(found: &Digest, expected: &Digest, source: &str) -> Result<()> {
    ensure!(
        found == expected,
        "the content has the digest {found}, expected {expected} as in {source}; the registry, or a proxy in \
         front of it, sends something else"
    );
    Ok(())
}
