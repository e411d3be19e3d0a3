//! The identity of a release.

use std::fmt;
use std::str::FromStr;

/// The identity of a release on a host: a digest of the target, kernel and initrd.
///
/// Releases with the same id boot the same bytes, even if the packages of their boot loaders differ.
/// An id is the first 64 bits of a SHA-256, written as 16 hexadecimal digits to fit into grubenv.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReleaseId(u64);

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ReleaseId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_valid = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = is_valid.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or(())
    }
}
