//! Stage 1: starts a sandbox of the distribution and installs the bootstrap and disk tools in it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;
use std::{fs, io, thread};

use anyhow::{Context, Result};
use protocol::Arch;
use serde::{Deserialize, Serialize};

use super::build::{Build, Describe};
use super::commands::{cache_key, environment, run_part, run_var};
use crate::cache::{Key, archive};
use crate::command::Tool;
use crate::log_file::{LogFile, Origin};
use crate::mirror::Mirror;
use crate::oci::{Logins, Pull, Reference};
use crate::sandbox::{self, Base, BaseTree, Sandbox, Script, WORK};
use crate::variant::BaseSource;

/// The name of the toolbox in the work directory.
const TOOLBOX_TAR: &str = "toolbox.tar";

/// A sandbox that has the bootstrap and disk tools.
pub(super) struct Toolbox {
    pub(super) sandbox: Rc<dyn Sandbox>,
    pub(super) state: State,
}

/// The state of a toolbox that can change the result of later stages, as digests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The image that the toolbox was made from, with its digest, if the builder pulled it.
    #[serde(default)]
    pub(super) image: Option<String>,
    /// The packages of the toolbox.
    pub(super) tools: String,
    /// The package indexes of all archives.
    pub(super) indexes: String,
}

impl Describe for Toolbox {
    fn describe(&self) -> String {
        self.sandbox.describe()
    }
}

/// Starts the sandbox and installs the tools.
pub(super) fn run(build: &Build<'_>, log: &mut LogFile) -> Result<Toolbox> {
    let work = &build.directories.work;
    discard(work, &build.directories.artifacts.join("work.old"))
        .with_context(|| format!("emptying {}", work.display()))?;
    build.directories.create_work()?;
    if build.without_security {
        log.step("WARNING: building without security updates, because of --without-security");
    }
    for directory in ["files", "out"] {
        fs::create_dir_all(work.join(directory))?;
    }
    start(build, log)
}

/// Starts the sandbox on the files in the work directory, and installs the tools.
pub(super) fn start(build: &Build<'_>, log: &mut LogFile) -> Result<Toolbox> {
    let work = &build.directories.work;
    let env = environment(build);
    let source = tree_source(&build.variant.base, build.mirror.as_ref());
    let key = cache_key(build, "init", &env, &[&source]);
    let tree = ToolboxTree { build, key, source: RefCell::new(Source::Unused) };
    let base = Base { image: &build.variant.base.image, tree: &tree };
    let sandbox: Rc<dyn Sandbox> =
        Rc::from(log.timed("start the sandbox", Origin::Built, |log| {
            sandbox::start(build.engine, &base, work, log)
        })?);
    let report = run_part(build, "init", &*sandbox, &env, log)?;
    let image = tree.image();
    if let Some(image) = &image {
        log.line(&format!("the sandbox was made from {image}"));
    }
    let (tools, indexes) = (run_var(&report, "tools")?, run_var(&report, "indexes")?);
    let state = State { image, tools, indexes };
    tree.keep(&*sandbox, &state, log)?;
    Ok(Toolbox { sandbox, state })
}

/// Removes the files of the previous build, in the background: this can take as long as a stage. The next
/// build removes what is left if this one ends before.
///
/// Nothing is mounted there: mounts end with their namespace.
fn discard(work: &Path, old: &Path) -> io::Result<()> {
    if old.exists() {
        fs::remove_dir_all(old)?;
    }
    fs::rename(work, old)?;
    let old = old.to_owned();
    thread::spawn(move || fs::remove_dir_all(old));
    Ok(())
}

/// Returns what a toolbox is made from, for its key in the cache.
fn tree_source(base: &BaseSource, mirror: Option<&Mirror>) -> String {
    if base.bootstrap.is_empty() {
        format!("image {}", base.image)
    } else {
        format!("{:?} {:?}", base.bootstrap, mirror)
    }
}

/// The root file system of the sandbox: a toolbox of an earlier build, a bootstrapped base, or an image.
///
/// The toolbox may be old: the Commands of the part "init" upgrade it.
#[derive(Debug)]
struct ToolboxTree<'a> {
    build: &'a Build<'a>,
    key: Key,
    source: RefCell<Source>,
}

/// The source of a sandbox's root file system.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    /// The engine has an image of its own.
    Unused,
    /// A bootstrapped base without the tools.
    Base,
    /// An image without the tools.
    Image(Reference),
    /// A toolbox of the cache, which had this state.
    Cached(State),
}

impl BaseTree for ToolboxTree<'_> {
    fn unpack(&self, to: &Path, log: &mut LogFile) -> Result<()> {
        match self.cached(log) {
            Some(tar) => archive::unpack(&tar, to, log),
            None if self.build.variant.base.bootstrap.is_empty() => self.pull(to, log),
            None => self.bootstrap(to, log),
        }
    }

    fn tar(&self, log: &mut LogFile) -> Result<PathBuf> {
        if let Some(tar) = self.cached(log) {
            return Ok(tar);
        }
        let work = &self.build.directories.work;
        // The bootstrap tool writes a tar file if the name ends like this.
        let tar = work.join("base.tar");
        if self.build.variant.base.bootstrap.is_empty() {
            let tree = work.join("base");
            self.pull(&tree, log)?;
            archive::write(&tree, &tar, log)?;
        } else {
            self.bootstrap(&tar, log)?;
        }
        Ok(tar)
    }
}

impl ToolboxTree<'_> {
    /// Returns the toolbox of an earlier build.
    fn cached(&self, log: &mut LogFile) -> Option<PathBuf> {
        let started = Instant::now();
        let found = self.build.cache.find(&self.key, log)?;
        log.record("verify the toolbox", started.elapsed(), Origin::Cached);
        self.source.replace(Source::Cached(found.value));
        Some(found.data)
    }

    /// Returns the image that the root file system was made from, if the builder pulled it.
    fn image(&self) -> Option<String> {
        match &*self.source.borrow() {
            Source::Image(image) => Some(image.to_string()),
            Source::Cached(state) => state.image.clone(),
            Source::Unused | Source::Base => None,
        }
    }

    /// Pulls the image and unpacks it to a directory.
    fn pull(&self, to: &Path, log: &mut LogFile) -> Result<()> {
        let image: Reference = self.build.variant.base.image.parse()?;
        let arch = Arch::native().context("no image is for the architecture of this machine")?;
        let pull = Pull::new(image, Logins::from_environment()?)?;
        let pulled =
            log.timed("pull the image", Origin::Built, |log| pull.unpack(arch, to, log))?;
        self.source.replace(Source::Image(pulled));
        Ok(())
    }

    /// Bootstraps the base to a directory or a tar file.
    fn bootstrap(&self, to: &Path, log: &mut LogFile) -> Result<()> {
        self.source.replace(Source::Base);
        let Build { directories, variant, mirror, .. } = self.build;
        let command = &variant.base.bootstrap;
        let (program, arguments) =
            command.split_first().context("the variant names no bootstrap program")?;
        let mut tool = Tool::new(program).args(arguments).arg(to);
        tool = tool.args(mirror.as_ref().map(Mirror::as_str));
        // The files of an interrupted bootstrap are removed with the work directory.
        tool = tool.env("TMPDIR", &directories.work);
        log.timed("bootstrap the base", Origin::Built, |log| tool.run(log))?;
        Ok(())
    }

    /// Stores the toolbox in the cache, unless it has the state that it had there.
    fn keep(&self, sandbox: &dyn Sandbox, state: &State, log: &mut LogFile) -> Result<()> {
        let source = self.source.borrow();
        if *source == Source::Unused || *source == Source::Cached(state.clone()) {
            return Ok(());
        }
        log.timed("store the toolbox", Origin::Built, |log| {
            // File systems are mounted on these directories, so the archive gets empty ones.
            let text = format!(
                "mkdir -p {WORK}/mounts && cd {WORK}/mounts && mkdir -p dev proc run sys\n\
                 tar --create --file={WORK}/{TOOLBOX_TAR} --format=posix --xattrs --numeric-owner \
                 --one-file-system --exclude=.{WORK} --exclude=./dev --exclude=./proc --exclude=./run \
                 --exclude=./sys --directory=/ . --directory={WORK}/mounts dev proc run sys"
            );
            let exec = &self.build.variant.pattern.exec;
            let script = Script { exec, text: &text, env: &environment(self.build) };
            let finished = sandbox.run(&script, log)?;
            anyhow::ensure!(
                finished.code == 0,
                "archiving the toolbox failed; tar ended with exit code {}:\n{}",
                finished.code,
                log.tail()
            );
            let tar = self.build.directories.work.join(TOOLBOX_TAR);
            self.build.cache.store(&self.key, state, |to| {
                fs::rename(&tar, to).with_context(|| format!("moving {}", tar.display()))
            })
        })
    }
}
