//! A CDN that is a directory, or a mounted volume.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::Path;

use super::CdnError;

/// Opens a file at a byte, and says how long the file is.
pub(super) fn open(path: &str, from: u64) -> Result<(File, u64), CdnError> {
    open_at(Path::new(path), from).map_err(|why| CdnError::File { path: path.to_owned(), why })
}

fn open_at(path: &Path, from: u64) -> io::Result<(File, u64)> {
    // Looked at first: opening a pipe would wait for ever.
    let length = match std::fs::metadata(path)? {
        data if data.is_file() => data.len(),
        _ => return Err(io::Error::other("it is not a file")),
    };
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    Ok((file, length))
}
