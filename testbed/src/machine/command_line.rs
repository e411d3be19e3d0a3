//! A QEMU command line under construction, and its quoting.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// A command line under construction.
#[derive(Default)]
pub(super) struct CommandLine(Vec<OsString>);

impl CommandLine {
    /// Returns the arguments.
    pub(super) fn into_arguments(self) -> Vec<OsString> {
        self.0
    }

    /// Appends arguments as they are.
    pub(super) fn arguments<const N: usize>(&mut self, arguments: [&str; N]) {
        self.0.extend(arguments.map(OsString::from));
    }

    /// Appends a path as it is.
    pub(super) fn path(&mut self, path: &Path) {
        self.0.push(path.into());
    }

    /// Appends `name part,part`. Commas within a part are doubled, which is QEMU's quoting.
    pub(super) fn option(&mut self, name: &str, parts: impl IntoIterator<Item = String>) {
        let quoted: Vec<Vec<u8>> = parts.into_iter().map(|part| quoted(part.as_ref())).collect();
        self.raw(name, &[&quoted.join(&b',')]);
    }

    /// Appends a name, and pieces that are quoted already, as a single argument.
    pub(super) fn raw(&mut self, name: &str, pieces: &[&[u8]]) {
        self.0.extend([name.into(), OsString::from_vec(pieces.concat())]);
    }

    /// Appends a character device that writes to a file.
    pub(super) fn file_device(&mut self, id: &str, path: &Path) {
        let head = format!("file,id={id},path=");
        self.raw("-chardev", &[head.as_bytes(), &quoted(path.as_os_str())]);
    }
}

/// Returns `text` with doubled commas.
pub(super) fn quoted(text: &OsStr) -> Vec<u8> {
    let bytes = text.as_bytes().iter();
    bytes.flat_map(|byte| std::iter::repeat_n(*byte, if *byte == b',' { 2 } else { 1 })).collect()
}
