//! The list of mounted file systems (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::host::read_limited;

/// The list of the mounts that this process sees.
pub(crate) const FILE: &str = "/proc/self/mountinfo";
/// The maximum size of the list. A host with hundreds of containers has some hundred kB.
const FILE_MAX: u64 = 16 << 20;

/// A mounted file system, or a part of one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The major and minor number of the device of the file system.
    pub(crate) device: Vec<u8>,
    /// The directory at which it is mounted.
    pub(crate) target: PathBuf,
}

/// Reads a list. Later mounts may be below earlier ones.
///
/// # Errors
/// Fails if the file cannot be read, or is too large.
pub(crate) fn read(file: &Path) -> io::Result<Vec<Mount>> {
    let bytes = read_limited(file, FILE_MAX)?.unwrap_or_default();
    Ok(bytes.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// Parses a line: two IDs, the device, the root, the mount point, and more.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ').skip(2);
    let (device, target) = (fields.next()?.to_vec(), fields.nth(1)?);
    Some(Mount { device, target: OsString::from_vec(unescape(target)).into() })
}

/// Replaces `\040`, which stands for a blank, and other bytes that are written as octal numbers.
fn unescape(mut text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let [first, rest @ ..] = text {
        text = match (first, rest) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', rest @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest
            }
            _ => {
                bytes.push(*first);
                rest
            }
        };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_lines_with_any_name() {
        let line =
            b"36 35 98:0 /docker /var/lib/a\\040b\\134040\xff rw,noatime - ext4 /dev/vda3 rw";
        let target = OsString::from_vec(b"/var/lib/a b\\040\xff".to_vec()).into();
        assert_eq!(parse(line), Some(Mount { device: b"98:0".to_vec(), target }));
        for line in ["36 35 98:0 /", "", "   "] {
            assert_eq!(parse(line.as_bytes()), None, "{line:?}");
        }
        assert_eq!(unescape(b"\\04\\999\\"), b"\\04\\999\\");
    }

    #[test]
    fn finds_the_mounts_of_this_process() {
        let mounts = read(Path::new(FILE)).unwrap();
        assert!(mounts.iter().any(|mount| mount.target == Path::new("/proc")));
    }
}
