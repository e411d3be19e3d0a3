//! The state that most commands need: the host's configuration, how it was booted, and its ESP.

use anyhow::{Context as _, Result, anyhow};

use crate::cli::Global;
use crate::config::{ConfigError, Merged, Settings, load, load_built_in};
use crate::confirmation::booted;
use crate::esp::{Access, Esp};
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
    /// Opens the ESP and reads the configuration.
    pub(super) fn new(global: &Global, access: Access) -> Result<Self> {
        Self::with(global, access, |host, esp| load(host, esp, &global.configs))
    }

    /// Does the same for a command that only reads. If the configuration is invalid, returns the built-in
    /// configuration of the image, whose keys suffice to verify the slots, together with the error.
    pub(super) fn for_inspection(global: &Global) -> Result<(Self, Option<String>)> {
        let is_invalid = |error: &ConfigError| !matches!(error, ConfigError::NotRoot { .. });
        match Self::new(global, Access::Read) {
            Ok(context) => Ok((context, None)),
            Err(error) if error.downcast_ref().is_some_and(is_invalid) => {
                match Self::with(global, Access::Read, |host, _| load_built_in(host)) {
                    Ok(context) => Ok((context, Some(format!("{error:#}")))),
                    // The first error is the one that the operator can correct.
                    Err(_) => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn with(
        global: &Global,
        access: Access,
        load: impl FnOnce(&Host, Option<&Esp>) -> Result<Merged, ConfigError>,
    ) -> Result<Self> {
        let host = Host::new(&global.host_root);
        let esp = Esp::open(&host, global.esp.as_deref(), access)?;
        let merged = load(&host, esp.as_ref())?;
        let settings = Settings::try_from(&merged)?;
        let booted = booted(&host).context("cannot read the kernel command line")?;
        Ok(Self { booted, merged, settings, esp })
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

/// Runs a function that mounts file systems in a separate thread. Mounting moves a thread to a private mount
/// namespace, and the health checks and Patterns that this thread runs later need the host's namespace.
pub(super) fn in_mount_namespace<T: Send>(mounts: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(mounts);
        thread
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the thread that reads the configuration panicked")))
    })
}

/// Returns the ESP, or an error that names `--esp`.
pub(super) fn require_esp(esp: Option<&Esp>) -> Result<&Esp> {
    esp.context(
        "this system was not booted from an EtchaOS disk (the kernel command line has no etchaos.esp=): give --esp DIR to use a directory",
    )
}
