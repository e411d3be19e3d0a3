//! A host: reads the manifest and downloads what it names, as the updater does.

use std::io::{self, Read};
use std::thread::sleep;
use std::time::Duration;

use protocol::digest::Hasher;
use protocol::release::PublishedFile;
use protocol::token::{TOKEN_MAX, verify};
use protocol::url::artifact_url;
use protocol::{KeyRing, Manifest, Verified};

use crate::random::Random;
use crate::world::{now, target};

/// The number of bytes that a host reads at a time.
const BLOCK: usize = 32 << 10;

/// A host that polls a CDN.
pub(crate) struct Host {
    pub(crate) url: String,
    pub(crate) trusted: KeyRing,
    /// Pauses between and during downloads, in milliseconds, are below this number.
    pub(crate) pause: u64,
}

impl Host {
    /// Downloads the live release and returns its build number.
    ///
    /// # Errors
    /// Fails if a host could not install the release.
    pub(crate) fn poll(&self, random: &mut Random) -> Result<u64, String> {
        let manifest_url = format!("{}/{}", self.url, target().manifest_name());
        let mut text = String::new();
        let body = get(&manifest_url)?.take(TOKEN_MAX as u64);
        { body }.read_to_string(&mut text).map_err(|error| format!("{manifest_url}: {error}"))?;
        let claims = verify(&text, &self.trusted).map_err(|error| error.to_string())?;
        let manifest: Verified<Manifest> =
            claims.try_into().map_err(|error| format!("{manifest_url}: {error}"))?;
        manifest.check_time(now()).map_err(|error| error.to_string())?;
        if manifest.release.target() != target() {
            return Err(format!("the manifest is for {}", manifest.release.target()));
        }
        for file in manifest.release.all_files() {
            self.wait(random);
            let failed = |error| format!("build {}: {}: {error}", manifest.release.build, file.url);
            self.download(&manifest_url, file, random).map_err(failed)?;
        }
        Ok(manifest.release.build)
    }

    fn download(
        &self,
        manifest_url: &str,
        file: PublishedFile<'_>,
        random: &mut Random,
    ) -> Result<(), String> {
        let url = artifact_url(manifest_url, file.url, &[]).map_err(|error| error.to_string())?;
        let mut body = get(&url)?;
        let (mut size, mut hasher) = (0, Hasher::default());
        let mut block = vec![0; BLOCK];
        loop {
            match body.read(&mut block) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(&block[..count]);
                    size += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
            if random.below(8) == 0 {
                self.wait(random);
            }
        }
        let sha256 = hasher.finish();
        match size == file.size && sha256 == file.sha256 {
            true => Ok(()),
            false => Err(format!("has {size} bytes and the SHA-256 {sha256}")),
        }
    }

    fn wait(&self, random: &mut Random) {
        sleep(Duration::from_millis(random.below(self.pause.max(1))));
    }
}

fn get(url: &str) -> Result<impl Read, String> {
    let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
    let response = agent.get(url).call().map_err(|error| format!("{url}: {error}"))?;
    Ok(response.into_body().into_reader())
}
