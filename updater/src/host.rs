//! Facts about the host that are read from its files.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use protocol::esp::{ARG_ESP, ARG_TRIAL, Slot, argument};
use protocol::grubenv::BootId;

/// The limit on files such as os-release. The kernel limits its command line to 4 KiB.
const TEXT_MAX: u64 = 64 * 1024;

/// How the running system was booted, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Booted {
    /// The slot; `None` if the system was not booted from this ESP.
    pub slot: Option<Slot>,
    /// Whether the boot loader started it as a trial that is not confirmed yet.
    pub on_trial: bool,
    /// The ID of this boot.
    pub id: Option<BootId>,
}

impl Booted {
    /// Returns whether this boot and `boot` are both known and differ.
    pub fn is_after(&self, boot: Option<BootId>) -> bool {
        boot.is_some() && self.id.is_some() && boot != self.id
    }
}

/// A host, given by the directory that holds its files: `/`, or a directory tree for tests and builds.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// Creates a host whose files are below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Converts an absolute path on the host to a path below its root.
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// Returns the kernel command line, or an empty text if there is none.
    pub fn cmdline(&self) -> io::Result<String> {
        let bytes = read_limited(&self.path("/proc/cmdline"), TEXT_MAX)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns the slot from which this system was booted, if any.
    pub fn running(&self) -> io::Result<Option<Slot>> {
        Ok(Slot::from_cmdline(&self.cmdline()?))
    }

    /// Returns the UUID of the ESP from which this system was booted.
    pub fn esp_uuid(&self) -> io::Result<Option<String>> {
        Ok(argument(&self.cmdline()?, ARG_ESP).map(str::to_owned))
    }

    /// Returns the ID of this boot, or `None` if it cannot be read.
    pub fn boot_id(&self) -> Option<BootId> {
        let bytes = read_limited(&self.path("/proc/sys/kernel/random/boot_id"), TEXT_MAX);
        str::from_utf8(&bytes.ok()??).ok()?.parse().ok()
    }

    /// Returns whether the boot loader marked this boot as a trial. This needs no disk.
    pub fn on_trial(&self) -> io::Result<bool> {
        Ok(argument(&self.cmdline()?, ARG_TRIAL).is_some())
    }

    /// Returns the time since the kernel started.
    pub fn uptime(&self) -> io::Result<Duration> {
        let bytes = read_limited(&self.path("/proc/uptime"), TEXT_MAX)?.unwrap_or_default();
        // proc_uptime(5): the uptime and the idle time, in seconds with two decimals.
        let text = String::from_utf8_lossy(&bytes);
        let seconds = text.split_ascii_whitespace().next().and_then(|text| text.parse().ok());
        let uptime = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        uptime
            .ok_or_else(|| io::Error::other("/proc/uptime does not begin with a number of seconds"))
    }

    /// Returns the memory in bytes that programs can still get, or 0 if it is not known.
    pub fn available_memory(&self) -> u64 {
        let bytes =
            read_start(&self.path("/proc/meminfo"), TEXT_MAX).ok().flatten().unwrap_or_default();
        mem_available(&String::from_utf8_lossy(&bytes)).unwrap_or(0)
    }

    /// Returns the epoch of the running image in Unix seconds, which is the time of its newest package, or
    /// 0 if the image records none.
    pub fn image_epoch(&self) -> u64 {
        // systemd uses this file for the same purpose. The builder sets its mtime.
        let data = std::fs::metadata(self.path("/usr/lib/clock-epoch"));
        data.map_or(0, |data| u64::try_from(data.mtime()).unwrap_or(0))
    }

    /// Returns whether this is the host on which this process runs, and not another directory tree.
    pub fn is_running_host(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Returns a value of os-release(5) without its quotes.
    pub fn os_release(&self, name: &str) -> io::Result<Option<String>> {
        let bytes = read_limited(&self.path("/etc/os-release"), TEXT_MAX)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let value = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
        Ok(value.map(|value| value.trim_matches(['"', '\'']).to_owned()))
    }
}

/// Returns `MemAvailable` of proc_meminfo(5) in bytes: an estimate that counts caches. The file has it in KiB.
fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Reads a file of at most `max` bytes. Returns `None` if it does not exist.
pub fn read_limited(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(bytes) = read_start(path, max.saturating_add(1))? else { return Ok(None) };
    if bytes.len() as u64 > max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("the file is larger than the limit of {max} bytes"),
        ));
    }
    Ok(Some(bytes))
}

/// Reads at most the first `max` bytes of a file. Returns `None` if it does not exist.
pub fn read_start(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Reads at most the first `max` bytes of a regular file on a volume, whose root directory is given. The volume
/// may have other files: opening a pipe would wait for a writer, and a link may lead to a file such as
/// `/proc/kmsg`, which waits for an event. Returns `None` if the file does not exist.
pub fn read_regular(root: &Path, path: &str, max: u64) -> io::Result<Option<Vec<u8>>> {
    let root = File::open(root)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match openat2(root, path, how) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT) => return Ok(None),
        Err(Errno::EXDEV) => return Err(io::Error::other("a link leads out of the volume")),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_files_below_its_root() {
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
    fn reads_the_available_memory() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::new(directory.path());
        assert_eq!(host.available_memory(), 0);
        std::fs::create_dir(directory.path().join("proc")).unwrap();
        let available = |text: &str| {
            std::fs::write(directory.path().join("proc/meminfo"), text).unwrap();
            host.available_memory()
        };
        for valid in [
            "MemTotal: 9 kB\nMemAvailable:   22 kB\n",
            "MemAvailable: 22kB",
            "MemAvailable:22\tkB ",
        ] {
            assert_eq!(available(valid), 22 * 1024, "{valid:?}");
        }
        for invalid in ["", "MemAvailable: kB", "MemAvailable: 1 MB", "MemAvailable: -1 kB"] {
            assert_eq!(available(invalid), 0, "{invalid:?}");
        }
        assert_eq!(available(&format!("MemAvailable: {} kB", u64::MAX)), 0);
    }

    #[test]
    fn rejects_files_above_the_limit() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "12345").unwrap();
        assert_eq!(read_limited(file.path(), 5).unwrap().unwrap(), b"12345");
        assert!(read_limited(file.path(), 4).is_err());
        assert!(read_limited(Path::new("/nonexistent/x"), 4).unwrap().is_none());
    }
}
