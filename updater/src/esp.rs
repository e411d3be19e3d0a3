//! The ESP: mounted while it is needed, at a mount point that nobody else sees.

use std::cell::Cell;
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use sys_mount::{Mount, MountFlags, Unmount, UnmountDrop, UnmountFlags};

use crate::files::hint;
use crate::fsck;
use crate::host::Host;

/// Our directory on the host: mount points, and the lock.
pub(crate) const RUN: &str = "/run/etchaos";
/// udev may not have seen the disk yet when the first of our units starts: an emulated machine on a
/// busy host took three minutes.
const DEVICE_BOOT_WAIT: Duration = Duration::from_secs(300);
/// A host that is up has seen its disks.
const DEVICE_WAIT: Duration = Duration::from_secs(10);
/// A reader that mounted the ESP read-only keeps writers out for as long as it takes to read a
/// configuration, or to hash two slots; a repair, which is ended after [`fsck::TIMEOUT`], keeps everybody
/// out.
const BUSY_WAIT: Duration = fsck::TIMEOUT.saturating_add(Duration::from_secs(60));
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// What is to be done with the ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read. Others may write meanwhile.
    Read,
    /// Write. There is one writer at a time; others end, after they waited this long.
    Write {
        /// How long to wait for another writer.
        wait: Duration,
    },
}

/// The ESP, or a directory that is like it.
#[derive(Debug)]
pub struct Esp {
    // Dropped in this order: unmounted first, then unlocked.
    volume: Volume,
    _lock: Option<File>,
}

/// An ESP that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum EspError {
    /// Another writer is at work.
    #[error(
        "another etchaos-updater is at work on {}: try again when it has ended",
        .0.display()
    )]
    Busy(PathBuf),
    /// The kernel command line names something that is not a FAT UUID.
    #[error(
        "the kernel command line says etchaos.esp={0:?}, expected a FAT UUID such as ABCD-1234"
    )]
    Uuid(String),
    /// There is no such disk.
    #[error(
        "there is no {}, which the kernel command line names as the ESP; give --esp DIR to use a directory",
        .0.display()
    )]
    NoDevice(PathBuf),
    /// Who mounts must be root.
    #[error("mounting {} needs root: run this with sudo, or give --esp DIR to use a directory", .0.display())]
    NotRoot(PathBuf),
    /// The system refused.
    #[error("cannot {doing} {}: {why}{}", path.display(), hint(why))]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
}

impl Esp {
    /// The directory that the operator named, or else the file system that was booted from. `None` if
    /// neither is known.
    pub fn open(
        host: &Host,
        directory: Option<&Path>,
        access: Access,
    ) -> Result<Option<Self>, EspError> {
        if let Some(directory) = directory {
            if !directory.is_dir() {
                let why = io::Error::from(io::ErrorKind::NotADirectory);
                return Err(EspError::Io { doing: "use --esp", path: directory.into(), why });
            }
            let lock = lock(directory, access)?;
            let volume = Volume { root: directory.to_owned(), _mount: None };
            return Ok(Some(Self { volume, _lock: lock }));
        }
        let uuid = host.esp_uuid().map_err(io_error("read", Path::new("/proc/cmdline")))?;
        let Some(uuid) = uuid else { return Ok(None) };
        let device = host.path(&format!("/dev/disk/by-uuid/{}", fat_uuid(&uuid)?));
        wait_for(&device, host)?;
        let lock = match access {
            Access::Read => None,
            Access::Write { .. } => lock(&run_directory(host)?, access)?,
        };
        let target = run_directory(host)?.join("esp");
        // Who waits for another writer has as much patience with readers.
        let patience = match access {
            Access::Read => BUSY_WAIT,
            Access::Write { wait } => wait.max(BUSY_WAIT),
        };
        let volume = mount(&device, &target, &["vfat"], access, patience)?;
        Ok(Some(Self { volume, _lock: lock }))
    }

    /// A path below its root.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.volume.path(relative)
    }
}

/// A mounted file system, unmounted when dropped; or a directory that is like one.
#[derive(Debug)]
pub struct Volume {
    root: PathBuf,
    _mount: Option<Unmounted>,
}

impl Volume {
    /// A path below its root.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }
}

/// Mounts a volume read-only. A directory in its place stands for it.
pub fn mount_volume(host: &Host, device: &Path, types: &[&str]) -> Result<Volume, EspError> {
    if device.is_dir() {
        return Ok(Volume { root: device.to_owned(), _mount: None });
    }
    mount(device, &run_directory(host)?.join("volume"), types, Access::Read, BUSY_WAIT)
}

struct Unmounted(UnmountDrop<Mount>);

impl std::fmt::Debug for Unmounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "mounted at {}", self.0.target_path().display())
    }
}

/// Mounts in a mount namespace of this thread's own: others do not see it, and the kernel unmounts it
/// when the thread ends, in whatever way.
fn mount(
    device: &Path,
    target: &Path,
    types: &[&str],
    access: Access,
    wait: Duration,
) -> Result<Volume, EspError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(EspError::NotRoot(device.to_owned()));
    }
    private_namespace().map_err(io_error("make a mount namespace for", device))?;
    private_directory(target)?;
    let since = Instant::now();
    let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mut flags = match access {
        Access::Read => safe | MountFlags::RDONLY,
        Access::Write { .. } => safe,
    };
    loop {
        if let Access::Write { .. } = access {
            fsck::repair(device);
        }
        let error = match try_types(device, target, types, flags) {
            Ok(mount) => {
                let mount = Some(Unmounted(mount.into_unmount_drop(UnmountFlags::empty())));
                return Ok(Volume { root: target.to_owned(), _mount: mount });
            }
            Err(error) => error,
        };
        // All mounts of a file system are read-only, or all are not. Where a writer came first, a
        // reader joins it; a writer waits for readers to go. Everybody waits for a repair.
        if error.raw_os_error() != Some(Errno::EBUSY as i32) || since.elapsed() > wait {
            return Err(io_error("mount", device)(error));
        }
        match access {
            Access::Read if flags.contains(MountFlags::RDONLY) => flags = safe,
            Access::Read => {
                flags = safe | MountFlags::RDONLY;
                std::thread::sleep(PAUSE);
            }
            Access::Write { .. } => std::thread::sleep(PAUSE),
        }
    }
}

fn try_types(device: &Path, target: &Path, types: &[&str], flags: MountFlags) -> io::Result<Mount> {
    let mut last = io::Error::from(io::ErrorKind::Unsupported);
    for fstype in types {
        match Mount::builder().fstype(*fstype).flags(flags).mount(device, target) {
            Ok(mount) => return Ok(mount),
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => return Err(error),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn private_namespace() -> io::Result<()> {
    thread_local!(static DONE: Cell<bool> = const { Cell::new(false) });
    if DONE.get() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Without this, what is mounted here would still be mounted there.
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?;
    DONE.set(true);
    Ok(())
}

fn lock(directory: &Path, access: Access) -> Result<Option<File>, EspError> {
    let Access::Write { wait } = access else { return Ok(None) };
    // The directory itself is locked: there is no file to be left behind.
    let file = File::open(directory).map_err(io_error("open", directory))?;
    let since = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if since.elapsed() < wait => std::thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => return Err(EspError::Busy(directory.to_owned())),
            Err(TryLockError::Error(error)) => return Err(io_error("lock", directory)(error)),
        }
    }
}

fn wait_for(device: &Path, host: &Host) -> Result<(), EspError> {
    let since = Instant::now();
    let booting = host.uptime().map_or(Duration::ZERO, |up| DEVICE_BOOT_WAIT.saturating_sub(up));
    while !device.exists() {
        if since.elapsed() > booting.max(DEVICE_WAIT) {
            return Err(EspError::NoDevice(device.to_owned()));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Our directory on the host, which is root's alone; made, if it is not there.
pub(crate) fn run_directory(host: &Host) -> Result<PathBuf, EspError> {
    let directory = host.path(RUN);
    private_directory(&directory)?;
    Ok(directory)
}

fn private_directory(directory: &Path) -> Result<(), EspError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => EspError::NotRoot(directory.to_owned()),
        _ => io_error("make the directory", directory)(error),
    })
}

/// The name that udev gives it. Nothing else gets into a path.
fn fat_uuid(uuid: &str) -> Result<String, EspError> {
    let digits = |part: &str| part.len() == 4 && part.bytes().all(|b| b.is_ascii_hexdigit());
    match uuid.split_once('-') {
        Some((high, low)) if digits(high) && digits(low) => Ok(uuid.to_ascii_uppercase()),
        _ => Err(EspError::Uuid(uuid.chars().take(32).collect())),
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EspError + use<> {
    let path = path.to_owned();
    move |why| EspError::Io { doing, path, why }
}

#[cfg(test)]
mod tests;
