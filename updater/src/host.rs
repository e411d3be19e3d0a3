//! The places on a host that are read.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::esp::{ARG_ESP, ARG_TRIAL, Slot, argument};
use protocol::grubenv::BootId;

/// The kernel's own limit is 4 KiB; os-release and the like are smaller still.
const TEXT_MAX: u64 = 64 * 1024;

/// How the system that runs was booted, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Booted {
    /// The slot; none, if not from this ESP.
    pub slot: Option<Slot>,
    /// Whether the boot loader tried it, and it was not confirmed since.
    pub on_trial: bool,
    /// Which boot this is.
    pub id: Option<BootId>,
}

impl Booted {
    /// Whether this is another boot than that one, as far as both are known.
    pub fn is_after(&self, boot: Option<BootId>) -> bool {
        boot.is_some() && self.id.is_some() && boot != self.id
    }
}

/// Where a host's files are: `/`, or a directory that looks like it.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// A host below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// An absolute path of this host.
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// The kernel's command line; empty where there is none.
    pub fn cmdline(&self) -> io::Result<String> {
        let bytes = read_limited(&self.path("/proc/cmdline"), TEXT_MAX)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The slot that was booted, if this system was booted from one.
    pub fn running(&self) -> io::Result<Option<Slot>> {
        Ok(Slot::from_cmdline(&self.cmdline()?))
    }

    /// The UUID of the ESP that was booted from.
    pub fn esp_uuid(&self) -> io::Result<Option<String>> {
        Ok(argument(&self.cmdline()?, ARG_ESP).map(str::to_owned))
    }

    /// This boot; `None` where the kernel does not say.
    pub fn boot_id(&self) -> Option<BootId> {
        let bytes = read_limited(&self.path("/proc/sys/kernel/random/boot_id"), TEXT_MAX);
        str::from_utf8(&bytes.ok()??).ok()?.parse().ok()
    }

    /// Whether the boot loader says that the slot is on trial. It is known before any disk is.
    pub fn on_trial(&self) -> io::Result<bool> {
        Ok(argument(&self.cmdline()?, ARG_TRIAL).is_some())
    }

    /// The time since the kernel started.
    pub fn uptime(&self) -> io::Result<Duration> {
        let bytes = read_limited(&self.path("/proc/uptime"), TEXT_MAX)?.unwrap_or_default();
        // proc_uptime(5): seconds with two decimals, twice.
        let text = String::from_utf8_lossy(&bytes);
        let seconds = text.split_ascii_whitespace().next().and_then(|text| text.parse().ok());
        let uptime = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        uptime.ok_or_else(|| io::Error::other("/proc/uptime does not begin with seconds"))
    }

    /// When the newest package of the running image was made, in Unix seconds; 0 where no image says.
    pub fn built(&self) -> u64 {
        // systemd's file for the same purpose; the builder gives it the image's time.
        let data = std::fs::metadata(self.path("/usr/lib/clock-epoch"));
        data.map_or(0, |data| u64::try_from(data.mtime()).unwrap_or(0))
    }

    /// Whether this is the host that we run on, and not a directory that looks like one.
    pub fn is_this_one(&self) -> bool {
        self.root == Path::new("/")
    }

    /// A value of os-release, without its quotes (os-release(5)).
    pub fn os_release(&self, name: &str) -> io::Result<Option<String>> {
        let bytes = read_limited(&self.path("/etc/os-release"), TEXT_MAX)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let value = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
        Ok(value.map(|value| value.trim_matches(['"', '\'']).to_owned()))
    }
}

/// A whole file of at most `max` bytes; `None` if there is no such file.
pub fn read_limited(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is longer than the {max} bytes that are read"),
        ));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_read_below_its_root() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::new(directory.path());
        assert_eq!(host.running().unwrap(), None);
        assert_eq!(host.os_release("VARIANT_ID").unwrap(), None);
        for (path, text) in [
            ("proc/cmdline", "quiet etchaos.slot=b etchaos.esp=AB12-CD34\n"),
            ("etc/os-release", "VARIANT=x\nVARIANT_ID=\"deb\"\n"),
        ] {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        assert_eq!(host.running().unwrap(), Some(Slot::B));
        assert_eq!(host.esp_uuid().unwrap().as_deref(), Some("AB12-CD34"));
        assert_eq!(host.os_release("VARIANT_ID").unwrap().as_deref(), Some("deb"));
    }

    #[test]
    fn long_files_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "12345").unwrap();
        assert_eq!(read_limited(file.path(), 5).unwrap().unwrap(), b"12345");
        assert!(read_limited(file.path(), 4).is_err());
        assert!(read_limited(Path::new("/nonexistent/x"), 4).unwrap().is_none());
    }
}
