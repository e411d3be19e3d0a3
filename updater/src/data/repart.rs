//! Lets systemd-repart decide where the data partition begins and ends.
//!
//! systemd-repart works on a copy of the partition table, in a sparse file that is as large as the disk. It
//! would write to the disk in an order that does not survive a power cut; see [`super::table`].

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::disk::Disk;
use super::error::DataError;
use super::layout::{LABEL, TYPE, UNFINISHED};
use super::sectors::Sectors;
use super::table::{Copies, Geometry, Table};
use crate::process::Process;

/// The name of the copy. It does not end with .conf, so it is no definition.
const COPY: &str = "disk.raw";
const PROGRAM: &str = "systemd-repart";
/// systemd-repart needs less than a second, because the file has nothing but the table.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The minimum size of the partition in MiB. XFS needs 300.
const SIZE_MIN: u64 = 512;

/// Returns the table that systemd-repart makes of `table`: with a data partition if it has none, or with a larger
/// one if there is room after it. Without `table`, returns a new one. Works in `directory`.
///
/// # Errors
/// Fails if there is no room for a partition of [`SIZE_MIN`].
pub(super) fn plan(
    disk: &Disk,
    table: Option<&Table>,
    directory: &Path,
) -> Result<Table, DataError> {
    let scratch = Scratch::create(directory, disk)?;
    if let Some(table) = table {
        let written = table.as_new().write(&scratch.copy);
        written.map_err(DataError::io("copy the partition table to", &scratch.directory))?;
    }
    let empty = if table.is_some() { "--empty=refuse" } else { "--empty=require" };
    let mut definitions = std::ffi::OsString::from("--definitions=");
    definitions.push(&scratch.directory);
    let process = Process::new(PROGRAM, TIMEOUT)
        .args(["--dry-run=no", "--pretty=no", "--seed=random", empty])
        .args([definitions]);
    // Older versions do not have this option, and the default is 512.
    let size = disk.geometry().sector;
    let size = (size != 512).then(|| format!("--sector-size={size}"));
    process.args(size).args([scratch.file()]).stdout()?;
    let copies = Copies::read(&scratch.copy);
    let copies = copies.map_err(DataError::io("read", &scratch.file()))?;
    let problem = || "it is not valid".to_owned();
    let plan = copies
        .primary
        .ok_or_else(|| DataError::Plan { node: disk.node.clone(), problem: problem() })?;
    Ok(plan.as_new())
}

/// The definition of the partition (repart.d(5)).
fn definition() -> String {
    format!(
        "[Partition]\nType={TYPE}\nLabel={LABEL}\nFlags={UNFINISHED:#x}\nSizeMinBytes={SIZE_MIN}M\n"
    )
}

/// A directory with the definition and the copy of the table, which is removed when dropped.
struct Scratch {
    directory: PathBuf,
    copy: Sectors,
}

impl Scratch {
    fn create(parent: &Path, disk: &Disk) -> Result<Self, DataError> {
        let directory = parent.join("repart");
        // An earlier command may have been killed.
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(DataError::io("remove", &directory)(error));
            }
            _ => {}
        }
        let created = DirBuilder::new().mode(0o700).create(&directory);
        created.map_err(DataError::io("create", &directory))?;
        let definition_file = directory.join("data.conf");
        fs::write(&definition_file, definition())
            .map_err(DataError::io("write", &definition_file))?;
        let path = directory.join(COPY);
        let create = || {
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            let Geometry { sector, sectors } = disk.geometry();
            file.set_len(sector * sectors)?;
            Ok(file)
        };
        let file = create().map_err(DataError::io("create", &path))?;
        Ok(Self { directory, copy: Sectors { file, geometry: disk.geometry() } })
    }

    fn file(&self) -> PathBuf {
        self.directory.join(COPY)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
