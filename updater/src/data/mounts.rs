//! Mounts the data partition, and what is kept on it at the places where programs expect it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::error::DataError;
use super::layout::MOUNT_POINT;
use crate::config::FileSystem;
use crate::host::Host;
use crate::mount_info::{self, Mount};

/// The directories of Docker. Newer versions keep images in that of containerd.
const DOCKER: [(&str, &str); 2] =
    [("docker", "/var/lib/docker"), ("containerd", "/var/lib/containerd")];
/// The mode of a directory that the image does not have.
const MODE: u32 = 0o755;

/// A directory of the data partition, and the place where programs see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bind {
    /// The directory, relative to the root of the data partition.
    pub(super) directory: PathBuf,
    /// The absolute path on the host.
    pub(super) target: PathBuf,
}

/// Returns what is mounted for Docker and for these paths below /var.
pub(super) fn binds(paths: &[PathBuf]) -> Vec<Bind> {
    let docker = DOCKER
        .map(|(directory, target)| Bind { directory: directory.into(), target: target.into() });
    let of_path = |path: &PathBuf| Bind {
        directory: path.strip_prefix("/").unwrap_or(path).to_owned(),
        target: path.clone(),
    };
    docker.into_iter().chain(paths.iter().map(of_path)).collect()
}

/// Mounts the file system, if it is not mounted yet. The content of its files is not trusted, so it has no
/// devices and no programs with the rights of others.
pub(super) fn mount_device(host: &Host, device: &Path, kind: FileSystem) -> Result<(), DataError> {
    let target = host.path(MOUNT_POINT);
    if is_mounted(&target)? {
        return Ok(());
    }
    create_directory(&target, MODE)?;
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOATIME;
    let options = match kind {
        FileSystem::Ext4 => Some("errors=remount-ro"),
        FileSystem::Xfs | FileSystem::Btrfs => None,
    };
    mount(Some(device), &target, Some(kind.name()), flags, options)
        .map_err(|error| DataError::io("mount", device)(error.into()))
}

/// Mounts a directory of the data partition, which is created if it is missing.
pub(super) fn mount_bind(host: &Host, bind: &Bind) -> Result<(), DataError> {
    let target = host.path(&bind.target.to_string_lossy());
    if is_mounted(&target)? {
        return Ok(());
    }
    create_directory(&target, MODE)?;
    let source = directory_on(&host.path(MOUNT_POINT), &bind.directory, &target)?;
    mount(Some(&source), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(|error| DataError::io("mount", &target)(error.into()))
}

/// Unmounts everything that is mounted from the data partition, and then the partition.
pub(super) fn unmount_all(host: &Host) -> Result<(), DataError> {
    let root = host.path(MOUNT_POINT);
    let mounts = mounts()?;
    let Some(device) = mounts.iter().find(|mount| mount.target == root).map(|mount| &mount.device)
    else {
        return Ok(());
    };
    let is_bind = |mount: &&Mount| mount.device == *device && mount.target != root;
    // Later mounts may be below earlier ones.
    let binds = mounts.iter().rev().filter(is_bind).map(|mount| mount.target.clone());
    for target in binds.chain([root.clone()]) {
        let unmounted = umount2(&target, MntFlags::empty());
        unmounted.map_err(|error| DataError::io("unmount", &target)(error.into()))?;
    }
    Ok(())
}

/// Returns whether the data partition is mounted.
pub(super) fn is_data_mounted(host: &Host) -> bool {
    is_mounted(&host.path(MOUNT_POINT)).unwrap_or(false)
}

/// Creates a directory of the data partition with its parents, as the image has it at `like`. Links on the data
/// partition are not followed: they could lead anywhere.
fn directory_on(root: &Path, relative: &Path, like: &Path) -> Result<PathBuf, DataError> {
    let mut path = root.to_owned();
    let mut is_new = false;
    for component in relative.components() {
        let Component::Normal(name) = component else {
            return Err(DataError::NotDirectory(relative.to_owned()));
        };
        path.push(name);
        is_new = match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => false,
            Ok(_) => return Err(DataError::NotDirectory(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new()
                    .mode(MODE)
                    .create(&path)
                    .map_err(DataError::io("create", &path))?;
                true
            }
            Err(error) => return Err(DataError::io("read", &path)(error)),
        };
    }
    if is_new {
        let copy = || -> io::Result<()> {
            let data = fs::metadata(like)?;
            chown(&path, Some(data.uid()), Some(data.gid()))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(data.mode() & 0o7777))
        };
        copy().map_err(DataError::io("set the owner and the mode of", &path))?;
    }
    Ok(path)
}

fn create_directory(path: &Path, mode: u32) -> Result<(), DataError> {
    let created = DirBuilder::new().recursive(true).mode(mode).create(path);
    created.map_err(DataError::io("create", path))
}

fn is_mounted(target: &Path) -> Result<bool, DataError> {
    Ok(mounts()?.iter().any(|mount| mount.target == target))
}

fn mounts() -> Result<Vec<Mount>, DataError> {
    let file = Path::new(mount_info::FILE);
    mount_info::read(file).map_err(DataError::io("read", file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creates_directories_and_follows_no_links() {
        let root = tempfile::tempdir().unwrap();
        let like = root.path().join("like");
        DirBuilder::new().mode(0o700).create(&like).unwrap();
        let made = directory_on(root.path(), Path::new("var/lib/x"), &like).unwrap();
        assert_eq!(fs::metadata(&made).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(root.path().join("var/lib")).unwrap().mode() & 0o777, 0o755);
        std::os::unix::fs::symlink("/etc", root.path().join("var/lib/link")).unwrap();
        for path in ["var/lib/link", "var/lib/link/x", "../x"] {
            let result = directory_on(root.path(), Path::new(path), &like);
            assert!(matches!(result, Err(DataError::NotDirectory(_))), "{path}: {result:?}");
        }
    }
}
