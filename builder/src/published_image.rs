//! A published release whose files were downloaded, and the inputs of its build that they contain.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use protocol::esp::{self, Slot};
use protocol::release::document;
use protocol::token::TOKEN_MAX;
use protocol::{KeyRing, Manifest, PublicKey, Role, Verified};

use crate::contents::{Contents, Place, TRUSTED_KEYS};
use crate::destination::Location;
use crate::diff::explain::Decompressed;
use crate::diff::load::{self, Loaded};
use crate::published::{self, in_parallel};

/// The path of the updater's configuration in an image.
const HOST_CONFIG: &str = "/usr/lib/etchaos/updater.json";
/// The documents that are made when a release is published, not when it is built.
const OF_PUBLICATION: [&str; 2] = [document::NOTES, document::CHECKSUMS];

/// A published release in a local directory.
pub(crate) struct PublishedImage {
    /// The manifest.
    pub manifest: Verified<Manifest>,
    /// The directory of the files.
    pub directory: PathBuf,
    contents: Contents,
}

impl PublishedImage {
    /// Downloads the files of a release to an empty directory and verifies them. Documents that a build
    /// does not make are left out.
    ///
    /// # Errors
    /// Fails if the manifest is not signed with a trusted key, if a file is not the one that it names,
    /// or if the release has no list of files.
    pub(crate) fn fetch(place: &str, keys: &KeyRing, directory: &Path) -> Result<Self> {
        let (location, path) = load::open(place)?;
        let manifest = load::manifest(&*location, &path, keys)?;
        let Loaded { contents, .. } = load::loaded(&*location, manifest.release.clone())?;
        let contents =
            contents.context("the release has no list of files; an older builder published it")?;
        download(&*location, &manifest, directory)?;
        Ok(Self { manifest, directory: directory.to_owned(), contents })
    }

    /// Returns the keys that the image trusts.
    pub(crate) fn keys(&self) -> Result<Vec<PublicKey>> {
        let text = self.text(TRUSTED_KEYS);
        let text = text.with_context(|| format!("the image has no {TRUSTED_KEYS}"))?;
        let keys = text.lines().map(|line| Ok(line.parse()?));
        keys.collect::<Result<_>>().with_context(|| format!("reading {TRUSTED_KEYS} of the image"))
    }

    /// Returns the updater's configuration in the image, if there is one.
    pub(crate) fn host_config(&self) -> Option<&str> {
        self.text(HOST_CONFIG)
    }

    fn text(&self, path: &str) -> Option<&str> {
        let mut entries = self.contents.entries.iter();
        entries.find(|entry| entry.place == Place::System && entry.path == path)?.text.as_deref()
    }

    /// Returns the manifest inside the disk image.
    pub(crate) fn installed_manifest(&self) -> Result<String> {
        let disk = self.manifest.release.artifact(Role::Disk).context("it has no disk image")?;
        let disk = Decompressed::open(&self.directory.join(&disk.name))?;
        let wanted = format!("/{}/{}", Slot::A.directory(), esp::MANIFEST);
        let mut found = None;
        testbed::visit_esp(&File::open(disk.path())?, &mut |path, _, content| {
            if path.eq_ignore_ascii_case(&wanted) {
                found = Some(io::read_to_string(content.take(TOKEN_MAX as u64))?);
            }
            Ok(())
        })?;
        found.with_context(|| format!("the disk image has no {wanted}"))
    }
}

/// Returns whether a build makes documents of this kind.
pub(crate) fn is_built(kind: &str) -> bool {
    !OF_PUBLICATION.contains(&kind)
}

fn download(location: &dyn Location, manifest: &Manifest, directory: &Path) -> Result<()> {
    let release = &manifest.release;
    let skipped: Vec<&str> = release
        .documents
        .iter()
        .filter(|document| !is_built(&document.kind))
        .map(|document| document.name.as_str())
        .collect();
    let files: Vec<_> = release.files().filter(|file| !skipped.contains(&file.name)).collect();
    in_parallel(&files, |file| {
        let to = directory.join(file.name);
        // In the directory of a build, the files lie beside the manifest.
        published::fetch(location, file.url, *file, &to).or_else(|error| {
            let _ = std::fs::remove_file(&to);
            published::fetch(location, file.name, *file, &to).map_err(|_| error)
        })
    })?;
    Ok(())
}
