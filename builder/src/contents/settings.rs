//! Decides which files are settings, whose text a list of files contains.

use super::entry::{Entry, Place, TEXT_MAX};

/// Directories of the running system with files that configure it.
const DIRECTORIES: [&str; 6] = [
    "/etc/",
    "/usr/lib/systemd/",
    "/usr/lib/sysctl.d/",
    "/usr/lib/tmpfiles.d/",
    "/usr/lib/sysusers.d/",
    "/usr/lib/modprobe.d/",
];
/// Single files of the running system.
const FILES: [&str; 3] = ["/usr/lib/os-release", TRUSTED_KEYS, "/usr/lib/etchaos/updater.json"];
/// The keys that the updater trusts, one per line.
pub(crate) const TRUSTED_KEYS: &str = "/usr/lib/etchaos/keys";

/// Returns whether a list of files contains the text of a file at this path, if it is short and text.
pub(super) fn is_setting(place: Place, path: &str) -> bool {
    match place {
        Place::System => {
            FILES.contains(&path) || DIRECTORIES.iter().any(|start| path.starts_with(start))
        }
        Place::Early => false,
        Place::Esp => path.ends_with("/grub.cfg"),
    }
}

/// Returns whether a file of this size may be a setting.
pub(super) fn may_have_text(entry: &Entry) -> bool {
    entry.size <= TEXT_MAX && is_setting(entry.place, &entry.path)
}

/// Returns the content as text, or `None` if it is binary.
pub(super) fn text(bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}
