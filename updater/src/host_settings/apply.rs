//! Writes the settings to the files of the running host.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use super::settings::HostSettings;
use super::unit_files::{DHCP_DROP_IN, NETWORK, PREFIX, TIMESYNCD, files};
use crate::host::{Host, read_limited};
use crate::record::{create_directory, replace};

/// The file with the host name (hostname(5)). `/etc` is in memory, so the file exists until the next boot.
const HOSTNAME: &str = "/etc/hostname";
/// The limit on files that are compared. Those that this program writes are smaller.
const FILE_MAX: u64 = 64 * 1024;

/// Which daemons have files that were changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// systemd-networkd.
    pub network: bool,
    /// systemd-timesyncd.
    pub time: bool,
}

/// Writes the files of the settings, and removes those of earlier settings. Changes nothing that is already as it
/// should be.
///
/// # Errors
/// Fails if a file cannot be read, written or removed. The files that were changed before stay so.
pub(crate) fn write_files(host: &Host, settings: &HostSettings) -> io::Result<Changes> {
    let network = [NETWORK, DHCP_DROP_IN].iter().try_fold(false, |changed, directory| {
        Ok::<_, io::Error>(write(host, settings, directory)? || changed)
    })?;
    let time = write(host, settings, TIMESYNCD)?;
    Ok(Changes { network, time })
}

/// Makes the files of a directory that belong to this program those of the settings. Returns whether anything
/// was changed.
fn write(host: &Host, settings: &HostSettings, directory: &str) -> io::Result<bool> {
    let (wanted, path) = (files(settings, directory), host.path(directory));
    let stale: Vec<String> =
        ours(&path)?.into_iter().filter(|name| !wanted.contains_key(name)).collect();
    for name in &stale {
        fs::remove_file(path.join(name))
            .map_err(|error| named("remove", &path.join(name), &error))?;
    }
    Ok(write_all(&path, &wanted)? || !stale.is_empty())
}

fn write_all(directory: &Path, wanted: &BTreeMap<String, String>) -> io::Result<bool> {
    let mut changed = false;
    for (name, content) in wanted {
        let path = directory.join(name);
        if read_limited(&path, FILE_MAX).ok().flatten().as_deref() == Some(content.as_bytes()) {
            continue;
        }
        // The umask applies to a parent that is created along the way, and networkd is not root.
        create_directory(directory.parent().unwrap_or(directory))
            .and_then(|()| create_directory(directory))
            .and_then(|()| replace(&path, content.as_bytes()))
            .map_err(|error| named("write", &path, &error))?;
        changed = true;
    }
    Ok(changed)
}

/// Returns the names of the files in a directory that this program wrote.
fn ours(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| named("list", directory, &error))?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: io::Result<Vec<String>> = names.collect();
    Ok(names?.into_iter().filter(|name| name.starts_with(PREFIX)).collect())
}

/// Sets the host name. Without one in the settings, restores the one of the image, if this program has set
/// another: the file does not exist in an image. Returns whether it was changed.
///
/// # Errors
/// Fails if the file cannot be read, written or removed, or if the kernel refuses the name.
pub(crate) fn set_host_name(host: &Host, settings: &HostSettings) -> io::Result<bool> {
    let path = host.path(HOSTNAME);
    let found = read_limited(&path, FILE_MAX).map_err(|error| named("read", &path, &error))?;
    let found = found.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
    if found == settings.hostname {
        return Ok(false);
    }
    match &settings.hostname {
        Some(name) => replace(&path, format!("{name}\n").as_bytes()),
        None => fs::remove_file(&path),
    }
    .map_err(|error| named("write", &path, &error))?;
    // A directory tree has no kernel of its own.
    if host.is_running_host() {
        let default = host.os_release("DEFAULT_HOSTNAME")?;
        let name = settings.hostname.clone().or(default).unwrap_or_else(|| "localhost".to_owned());
        nix::unistd::sethostname(&name)
            .map_err(|error| io::Error::other(format!("cannot set the host name: {error}")))?;
    }
    Ok(true)
}

/// Adds the operation and the path to an error.
fn named(operation: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {operation} {}: {error}", path.display()))
}
