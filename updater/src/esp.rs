//! The ESP, which is mounted only while it is needed, in a mount namespace of its own.

use std::cell::Cell;
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use protocol::esp::GRUBENV;
use protocol::grubenv::DiskTag;
use sys_mount::{Mount, MountFlags, Unmount, UnmountDrop, UnmountFlags};

pub use crate::boot_disk::BootDiskError;
use crate::boot_disk::{BootDisk, Search};
use crate::fsck;
use crate::host::{Host, read_start};
use crate::io_hint::hint;
use crate::timeout::run_with_timeout;

/// The updater's directory on the host, for mount points and the lock.
pub(crate) const RUN: &str = "/run/etchaos";
/// The file systems of an ESP.
const TYPES: &[&str] = &["vfat"];
/// The timeout of reading the grubenv of a disk that may be the one that was booted.
const INSPECT_TIMEOUT: Duration = Duration::from_secs(60);
/// The limit on the bytes that are read of it. What the updater needs is in the first 512.
const INSPECT_MAX: u64 = 4096;
/// How long to wait for other processes. A read-only mount keeps writers out while a reader reads the
/// configuration or hashes two slots. A repair, which is killed after [`fsck::TIMEOUT`], keeps every other
/// process out.
const BUSY_TIMEOUT: Duration = fsck::TIMEOUT.saturating_add(Duration::from_secs(60));
/// The time between two attempts to mount or to lock.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// How the ESP is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For reading. Other processes may write at the same time.
    Read,
    /// For writing. There is only one writer at a time; a second one fails after `wait`.
    Write {
        /// How long to wait for another writer.
        wait: Duration,
    },
}

/// The ESP, or a directory that stands in for it.
#[derive(Debug)]
pub struct Esp {
    // Fields are dropped in this order: the volume is unmounted before the lock is released.
    volume: Volume,
    _lock: Option<File>,
    needs_tag: bool,
}

/// An ESP that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EspError {
    /// Another writer holds the lock.
    #[error(
        "another etchaos-updater is writing to {}: try again later",
        .0.display()
    )]
    Busy(PathBuf),
    /// The kernel command line has an invalid FAT UUID.
    #[error("the kernel command line has etchaos.esp={0:?}, expected a FAT UUID such as ABCD-1234")]
    Uuid(String),
    /// The disk that was booted is not known.
    #[error(transparent)]
    Disk(BootDiskError),
    /// Mounting needs root.
    #[error("mounting {} needs root: run this with sudo, or give --esp DIR to use a directory", .0.display())]
    NotRoot(PathBuf),
    /// A system call failed.
    #[error("cannot {operation} {}: {error}{}", path.display(), hint(error))]
    Io {
        /// The operation, as a verb.
        operation: &'static str,
        /// The path that it was applied to.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
}

impl Esp {
    /// Opens the directory of `--esp`, or else the file system that the host was booted from. Returns
    /// `None` if neither is known.
    pub fn open(
        host: &Host,
        directory: Option<&Path>,
        access: Access,
    ) -> Result<Option<Self>, EspError> {
        if let Some(directory) = directory {
            if !directory.is_dir() {
                let error = io::Error::from(io::ErrorKind::NotADirectory);
                return Err(EspError::Io { operation: "use --esp", path: directory.into(), error });
            }
            let lock = lock(directory, access)?;
            let volume = Volume { root: directory.to_owned(), _mount: None };
            return Ok(Some(Self { volume, _lock: lock, needs_tag: false }));
        }
        let Some(disk) = with_search(host, |search| search.run())? else { return Ok(None) };
        let BootDisk { node: device, needs_tag, is_proven } = disk;
        if matches!(access, Access::Write { .. }) && !is_proven {
            let name = device.display().to_string();
            return Err(EspError::Disk(BootDiskError::NotProven(name)));
        }
        let lock = match access {
            Access::Read => None,
            Access::Write { .. } => lock(&run_directory(host)?, access)?,
        };
        let target = run_directory(host)?.join("esp");
        // A writer waits for readers at least as long as for another writer.
        let timeout = match access {
            Access::Read => BUSY_TIMEOUT,
            Access::Write { wait } => wait.max(BUSY_TIMEOUT),
        };
        let volume = mount(&device, &target, TYPES, access, timeout)?;
        Ok(Some(Self { volume, _lock: lock, needs_tag }))
    }

    /// Returns whether the disk needs a new tag, because it has none or another disk has the same.
    pub fn needs_tag(&self) -> bool {
        self.needs_tag
    }

    /// Returns the path of a file below the root.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.volume.path(relative)
    }
}

/// A mounted file system, which is unmounted when dropped, or a directory that stands in for one.
#[derive(Debug)]
pub struct Volume {
    root: PathBuf,
    _mount: Option<Unmounted>,
}

impl Volume {
    /// Returns the path of a file below the root.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }
}

/// Mounts a volume read-only. A directory is used without mounting.
pub fn mount_volume(host: &Host, device: &Path, types: &[&str]) -> Result<Volume, EspError> {
    if device.is_dir() {
        return Ok(Volume { root: device.to_owned(), _mount: None });
    }
    mount(device, &run_directory(host)?.join("volume"), types, Access::Read, BUSY_TIMEOUT)
}

struct Unmounted(UnmountDrop<Mount>);

impl std::fmt::Debug for Unmounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "mounted at {}", self.0.target_path().display())
    }
}

/// Mounts a device in a private mount namespace of this thread. Other processes do not see the mount, and the
/// kernel removes it when the thread ends, even if the process is killed.
fn mount(
    device: &Path,
    target: &Path,
    types: &[&str],
    access: Access,
    wait: Duration,
) -> Result<Volume, EspError> {
    prepare(device, target)?;
    let since = Instant::now();
    let mut flags = match access {
        Access::Read => MountFlags::RDONLY,
        Access::Write { .. } => MountFlags::empty(),
    };
    loop {
        if let Access::Write { .. } = access {
            fsck::repair(device);
        }
        let error = match try_types(device, target, types, flags) {
            Ok(volume) => return Ok(volume),
            Err(error) => error,
        };
        // Linux mounts a file system either read-only or read-write everywhere, and returns EBUSY
        // otherwise. A reader then joins a writer by mounting read-write; a writer waits until the
        // readers have unmounted. Both wait for a repair.
        if error.raw_os_error() != Some(Errno::EBUSY as i32) || since.elapsed() > wait {
            return Err(io_error("mount", device)(error));
        }
        match access {
            Access::Read if flags.contains(MountFlags::RDONLY) => flags = MountFlags::empty(),
            Access::Read => {
                flags = MountFlags::RDONLY;
                std::thread::sleep(RETRY_INTERVAL);
            }
            Access::Write { .. } => std::thread::sleep(RETRY_INTERVAL),
        }
    }
}

/// Mounts a device read-only, or fails if it is mounted for writing elsewhere: mounting it for writing would
/// change it.
fn mount_read_only(device: &Path, target: &Path, types: &[&str]) -> Result<Volume, EspError> {
    prepare(device, target)?;
    try_types(device, target, types, MountFlags::RDONLY).map_err(io_error("mount", device))
}

/// Prepares this thread and the mount point for a mount.
fn prepare(device: &Path, target: &Path) -> Result<(), EspError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(EspError::NotRoot(device.to_owned()));
    }
    private_namespace().map_err(io_error("create a mount namespace for", device))?;
    private_directory(target)
}

fn try_types(
    device: &Path,
    target: &Path,
    types: &[&str],
    flags: MountFlags,
) -> io::Result<Volume> {
    let flags = flags | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mut last = io::Error::from(io::ErrorKind::Unsupported);
    for fstype in types {
        match Mount::builder().fstype(*fstype).flags(flags).mount(device, target) {
            Ok(mount) => {
                let mount = Some(Unmounted(mount.into_unmount_drop(UnmountFlags::empty())));
                return Ok(Volume { root: target.to_owned(), _mount: mount });
            }
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Runs a function that mounts file systems in a separate thread. Mounting moves a thread to a private mount
/// namespace, and what this thread runs later needs the host's namespace. Returns `None` if the thread panics.
pub(crate) fn in_own_namespace<T: Send>(mounts: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| scope.spawn(mounts).join().ok())
}

fn private_namespace() -> io::Result<()> {
    thread_local!(static DONE: Cell<bool> = const { Cell::new(false) });
    if DONE.get() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Without this, the mounts would propagate to the host's namespace.
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?;
    DONE.set(true);
    Ok(())
}

fn lock(directory: &Path, access: Access) -> Result<Option<File>, EspError> {
    let Access::Write { wait } = access else { return Ok(None) };
    // The directory itself is locked, so that no lock file is left behind.
    let file = File::open(directory).map_err(io_error("open", directory))?;
    let since = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if since.elapsed() < wait => {
                std::thread::sleep(RETRY_INTERVAL)
            }
            Err(TryLockError::WouldBlock) => return Err(EspError::Busy(directory.to_owned())),
            Err(TryLockError::Error(error)) => return Err(io_error("lock", directory)(error)),
        }
    }
}

/// Records that the disk that was booted got this tag.
pub fn record_tag(host: &Host, tag: DiskTag) -> Result<(), EspError> {
    with_search(host, |search| search.record_tag(tag)).map(|_| ())
}

/// Returns the disk that was booted, or `None` if the host was not booted from a disk.
pub(crate) fn boot_disk(host: &Host) -> Result<Option<BootDisk>, EspError> {
    with_search(host, |search| search.run())
}

/// Calls `run` with a search for the disk that was booted. Returns `None` if the host was not booted from a
/// disk.
fn with_search<T>(
    host: &Host,
    run: impl FnOnce(&Search<'_>) -> Result<T, BootDiskError>,
) -> Result<Option<T>, EspError> {
    let uuid = host.esp_uuid().map_err(io_error("read", Path::new("/proc/cmdline")))?;
    let Some(uuid) = uuid else { return Ok(None) };
    let (uuid, run_directory) = (fat_uuid(&uuid)?, run_directory(host)?);
    let target = run_directory.join("candidate");
    let read_grubenv = |device: &Path| inspect(device.to_owned(), target.clone(), TYPES);
    let search =
        Search { host, uuid: &uuid, run_directory: &run_directory, read_grubenv: &read_grubenv };
    run(&search).map(Some).map_err(|error| match error {
        BootDiskError::NotRoot(path) => EspError::NotRoot(path),
        error => EspError::Disk(error),
    })
}

/// Reads the grubenv of a disk that may be the one that was booted, for [`Search::read_grubenv`]. It is mounted
/// read-only, in a thread with a mount namespace of its own, because a disk may hang.
fn inspect(device: PathBuf, target: PathBuf, types: &'static [&'static str]) -> Option<Vec<u8>> {
    let path = device.clone();
    let read = move || -> Result<Vec<u8>, EspError> {
        let volume = mount_read_only(&device, &target, types)?;
        // GRUB reads a file that is larger than it should be.
        let bytes = read_start(&volume.path(GRUBENV), INSPECT_MAX);
        Ok(bytes.map_err(io_error("read the grubenv of", &device))?.unwrap_or_default())
    };
    match run_with_timeout(INSPECT_TIMEOUT, read) {
        Some(Ok(bytes)) => Some(bytes),
        Some(Err(error)) => {
            log::warn!("{error}");
            None
        }
        None => {
            log::warn!("{} does not respond", path.display());
            None
        }
    }
}

/// Returns the updater's directory on the host. Creates it, accessible to root only, if it is missing.
pub(crate) fn run_directory(host: &Host) -> Result<PathBuf, EspError> {
    let directory = host.path(RUN);
    private_directory(&directory)?;
    Ok(directory)
}

fn private_directory(directory: &Path) -> Result<(), EspError> {
    let result = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    result.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => EspError::NotRoot(directory.to_owned()),
        _ => io_error("create the directory", directory)(error),
    })
}

/// Returns the UUID as udev spells it. Rejects anything else, because the UUID becomes part of a path.
fn fat_uuid(uuid: &str) -> Result<String, EspError> {
    let digits = |part: &str| part.len() == 4 && part.bytes().all(|b| b.is_ascii_hexdigit());
    match uuid.split_once('-') {
        Some((high, low)) if digits(high) && digits(low) => Ok(uuid.to_ascii_uppercase()),
        _ => Err(EspError::Uuid(uuid.chars().take(32).collect())),
    }
}

fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EspError + use<> {
    let path = path.to_owned();
    move |error| EspError::Io { operation, path, error }
}

#[cfg(test)]
mod tests;
