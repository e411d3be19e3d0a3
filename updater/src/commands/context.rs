//! The state that most commands need: the host's configuration, how it was booted, and its ESP.

use anyhow::{Context as _, Result, anyhow};

use crate::cli::{Exit, Global};
use crate::config::{Ask, Merged, Settings, load};
use crate::confirmation::booted;
use crate::esp::{Access, Esp, in_own_namespace};
use crate::grubenv_file::GrubenvFile;
use crate::host::{Booted, Host};

/// The host with its configuration read and its ESP open.
pub(super) struct Context {
    pub(super) booted: Booted,
    pub(super) merged: Merged,
    pub(super) settings: Settings,
    /// The last field, so that it is unmounted last.
    esp: Option<Esp>,
}

impl Context {
    /// Opens the ESP and reads the configuration. Logs the errors of broken sources.
    pub(super) fn new(global: &Global, access: Access) -> Result<Self> {
        let host = Host::new(&global.host_root);
        let esp = Esp::open(&host, global.esp.as_deref(), access)?;
        let merged = load(&host, esp.as_ref(), &global.configs, Ask::Service)?;
        log_problems(&merged);
        let settings = Settings::try_from(&merged)?;
        let booted = booted(&host).context("cannot read the kernel command line")?;
        Ok(Self { booted, merged, settings, esp })
    }

    /// Returns the errors of the broken sources of the configuration as one text, or `None` if no source
    /// is broken.
    pub(super) fn config_problem(&self) -> Option<String> {
        let problems = self.merged.problems();
        (!problems.is_empty()).then(|| problems.join("; "))
    }

    /// Returns the exit code of a command that succeeded although a source is broken.
    pub(super) fn exit(&self, exit: Exit) -> Exit {
        match exit {
            Exit::Ok if self.config_problem().is_some() => Exit::BrokenConfig,
            other => other,
        }
    }

    /// Reads grubenv.
    pub(super) fn grubenv(&self) -> Result<GrubenvFile> {
        Ok(GrubenvFile::of_host(self.esp()?, self.booted))
    }

    /// Returns the ESP. Fails if it is closed or this host has none.
    pub(super) fn esp(&self) -> Result<&Esp> {
        require_esp(self.esp.as_ref())
    }

    /// Unmounts and unlocks the ESP, so that other processes can write to it.
    pub(super) fn close(&mut self) {
        self.esp = None;
    }

    /// Opens the ESP again. Its content may have changed in the meantime. Does not read the configuration
    /// again.
    pub(super) fn reopen(&mut self, global: &Global, access: Access) -> Result<()> {
        // A file system that is mounted read-only cannot be mounted for writing as well.
        self.close();
        self.esp = Esp::open(&Host::new(&global.host_root), global.esp.as_deref(), access)?;
        Ok(())
    }
}

/// Logs the errors of broken sources of the configuration.
pub(super) fn log_problems(merged: &Merged) {
    for problem in merged.problems() {
        log::error!("{problem}; the other sources apply");
    }
}

/// Runs a function that mounts file systems in a separate thread; see [`in_own_namespace`].
pub(super) fn in_mount_namespace<T: Send>(mounts: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    in_own_namespace(mounts)
        .unwrap_or_else(|| Err(anyhow!("the thread that reads the configuration panicked")))
}

/// Returns the ESP, or an error that names `--esp`.
pub(super) fn require_esp(esp: Option<&Esp>) -> Result<&Esp> {
    esp.context(
        "this system was not booted from an EtchaOS disk (the kernel command line has no etchaos.esp=): give --esp DIR to use a directory",
    )
}
