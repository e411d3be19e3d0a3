//! A CDN that is a local directory, such as a mounted volume.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::Path;

use super::error::CdnError;

/// Opens a file at the offset `from`. Returns the file and its length.
pub(super) fn open(path: &str, from: u64) -> Result<(File, u64), CdnError> {
    open_at(Path::new(path), from).map_err(|error| CdnError::File { path: path.to_owned(), error })
}

fn open_at(path: &Path, from: u64) -> io::Result<(File, u64)> {
    // Checked before the file is opened, because opening a named pipe blocks.
    let length = match std::fs::metadata(path)? {
        data if data.is_file() => data.len(),
        _ => return Err(io::Error::other("it is not a regular file")),
    };
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    Ok((file, length))
}
