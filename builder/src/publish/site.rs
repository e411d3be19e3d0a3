//! A destination of a publication: uploads the files of a release, and then its manifest.

use anyhow::{Context, Result, bail, ensure};
use protocol::release::PublishedFile;
use protocol::token::TOKEN_MAX;
use protocol::{KeyRing, Release, Target};

use super::files::Files;
use super::issue::Issued;
use super::layout;
use crate::destination::{Created, Destination, Http, Location, Lock, Upload};
use crate::published::{self, Published, in_parallel};

/// A destination, and the URL at which its files are public.
pub(crate) struct Site {
    /// The destination.
    pub destination: Box<dyn Destination>,
    /// The public URL, from which every upload is read back.
    pub public: Option<Http>,
}

/// A destination that is locked, and its state.
pub(crate) struct Opened<'a> {
    pub(super) site: &'a Site,
    /// The manifest that hosts poll.
    pub live: Option<Published>,
    _lock: Lock,
}

/// The number of files that were uploaded, and the files that were repaired.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Uploaded {
    pub(super) new: usize,
    pub(super) repaired: Vec<String>,
}

/// The state of one file after its upload.
enum Placed {
    New,
    Whole,
    Repaired(String),
}

impl Site {
    /// Locks the destination and reads its state. Adds the live manifest to the history if a publisher
    /// was killed before it did so.
    pub(crate) fn open(&self, target: &Target, trusted: &KeyRing) -> Result<Opened<'_>> {
        let lock = self.destination.lock()?;
        let live = published::live(self.location(), target, trusted)?;
        let opened = Opened { site: self, live, _lock: lock };
        if let Some(live) = &opened.live {
            opened.record(live.release(), &live.text)?;
        }
        Ok(opened)
    }

    /// Returns the destination as a location to read from.
    pub(crate) fn location(&self) -> &dyn Location {
        &*self.destination
    }
}

impl Opened<'_> {
    /// Uploads a release: its files, then the manifest that hosts poll, and last the copy of that
    /// manifest in the history. Files that are whole already are not uploaded again, and damaged ones
    /// are repaired.
    ///
    /// # Errors
    /// Fails if a file cannot be uploaded or is not whole afterwards, and if another publisher has
    /// published in the meantime. Hosts then still find the previous release.
    pub(super) fn put(
        &self,
        issued: &Issued,
        files: &Files<'_>,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<Uploaded> {
        let all: Vec<PublishedFile<'_>> = issued.release.all_files().collect();
        let placed = in_parallel(&all, |file| {
            progress(&format!("{} to {}", file.name, self.site.destination.describe()));
            self.place(*file, files)
        })?;
        self.check_public(&all)?;
        self.replace_manifest(issued)?;
        self.check_manifest(issued)?;
        let mut uploaded = Uploaded::default();
        for placed in placed {
            match placed {
                Placed::New => uploaded.new += 1,
                Placed::Whole => {}
                Placed::Repaired(problem) => uploaded.repaired.push(problem),
            }
        }
        Ok(uploaded)
    }

    fn place(&self, file: PublishedFile<'_>, files: &Files<'_>) -> Result<Placed> {
        let destination = &*self.site.destination;
        let failed = || format!("publishing {} to {}", file.url, destination.describe());
        let problem = published::problem(self.site.location(), file).with_context(failed)?;
        let Some(problem) = problem else { return Ok(Placed::Whole) };
        let upload = files.upload(file).with_context(failed)?;
        // If another publisher has just created the file, it has the same content: the content
        // determines the path.
        if destination.create(&upload).with_context(failed)? == Created::New {
            return Ok(Placed::New);
        }
        destination.repair(&upload).with_context(failed)?;
        let still = published::problem(self.site.location(), file).with_context(failed)?;
        match still {
            None => Ok(Placed::Repaired(format!("{} {problem}", file.url))),
            Some(still) => bail!("{} {still} after its repair", file.url),
        }
    }

    /// Reads every file through the public URL, as hosts do.
    fn check_public(&self, files: &[PublishedFile<'_>]) -> Result<()> {
        let Some(public) = &self.site.public else { return Ok(()) };
        let problems = in_parallel(files, |file| {
            let problem = published::problem(public, *file)?;
            Ok(problem.map(|problem| format!("{} {problem}", file.url)))
        })?;
        if let Some(problem) = problems.into_iter().flatten().next() {
            bail!(
                "{problem}, when it is read from {}; does this URL serve {}, and is its cache empty?",
                public.describe(),
                self.site.destination.describe()
            );
        }
        Ok(())
    }

    /// Replaces the manifest that hosts poll, and stores it in the history.
    ///
    /// A manifest is recorded only after it is live, so the history has no release that hosts could not
    /// see, and a publisher that is killed leaves no build number that the next one cannot take.
    fn replace_manifest(&self, issued: &Issued) -> Result<()> {
        if self.live.as_ref().is_some_and(|live| live.text == issued.text) {
            return Ok(());
        }
        let path = issued.release.target().manifest_name();
        let expected = self.live.as_ref().map(|live| &live.version);
        self.site.destination.replace(&path, issued.text.as_bytes(), expected)?;
        self.record(&issued.release, &issued.text)
            .context("the release was published, but not its copy in the history")
    }

    /// Stores the manifest that is live in the history, in place of any other with its build number.
    fn record(&self, release: &Release, text: &str) -> Result<()> {
        let destination = &*self.site.destination;
        let path = layout::history_path(&release.target(), release.build);
        let failed = || format!("storing {path} in {}", destination.describe());
        let sha256 = protocol::digest::of_bytes(text.as_bytes());
        let size = text.len() as u64;
        let found = destination.measure(&path, TOKEN_MAX as u64).with_context(failed)?;
        if found == Some((size, sha256.clone())) {
            return Ok(());
        }
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        let upload = Upload { from: file.path().to_owned(), path: path.clone(), size, sha256 };
        if destination.create(&upload).with_context(failed)? == Created::Existed {
            destination.repair(&upload).with_context(failed)?;
        }
        Ok(())
    }

    /// Reads the manifest as hosts do.
    fn check_manifest(&self, issued: &Issued) -> Result<()> {
        let path = issued.release.target().manifest_name();
        let location = self.site.public.as_ref().map_or(self.site.location(), |public| public);
        let found = location.read(&path, TOKEN_MAX as u64)?;
        ensure!(
            found.is_some_and(|found| found.bytes == issued.text.as_bytes()),
            "the manifest was published, but {} still serves another one; does a cache keep it?",
            location.describe()
        );
        Ok(())
    }
}
