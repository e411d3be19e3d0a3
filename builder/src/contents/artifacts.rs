//! Makes the list of files from the published files of a release.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use protocol::digest;

use super::archive::{self, Header, Type};
use super::entry::{Access, Contents, ENTRIES_MAX, Entry, Kind, Place};
use super::{collect, settings};
use crate::command::Tool;
use crate::image::initrd::{SKELETON, USR};
use crate::log_file::LogFile;

/// The maximum size of all files in `/usr`. They are unpacked to a temporary directory.
const USR_MAX: u64 = 8 << 30;
/// The maximum length of the target of a link.
const TARGET_MAX: u64 = 4096;

/// Returns the list of the files in an initrd.
///
/// Unpacks `/usr` to a temporary directory, which needs root.
pub(crate) fn of_initrd(initrd: &Path, log: &mut LogFile) -> Result<Contents> {
    let failed = || format!("listing the files in {}", initrd.display());
    initrd_entries(initrd, log).and_then(Contents::new).with_context(failed)
}

/// Returns the list of the files on the EFI system partition of a disk image.
pub(crate) fn of_esp(disk: &Path) -> Result<Contents> {
    let failed = || format!("listing the files in {}", disk.display());
    esp_entries(disk).and_then(Contents::new).with_context(failed)
}

fn initrd_entries(initrd: &Path, log: &mut LogFile) -> Result<Vec<Entry>> {
    let temporary = tempfile::tempdir().context("creating a temporary directory")?;
    let image = temporary.path().join(USR);
    // A file in a later archive replaces one in an earlier archive.
    let mut found = BTreeMap::new();
    let input = BufReader::with_capacity(1 << 20, File::open(initrd)?);
    archive::read(input, &mut |header, content| {
        if header.path == USR {
            io::copy(content, &mut File::create(&image)?)?;
        } else if let Some(entry) = entry(header, content)? {
            found.insert((entry.place, entry.path.clone()), entry);
        }
        Ok(())
    })?;
    ensure!(image.exists(), "the initrd has no {USR}");
    let mut entries: Vec<Entry> = found.into_values().collect();
    entries.extend(of_usr(&image, &temporary.path().join("usr"), log)?);
    Ok(entries)
}

/// Returns the entry of a file in the archive, or `None` if `/usr` hides it.
fn entry(header: &Header, content: &mut dyn Read) -> Result<Option<Entry>> {
    let skeleton = header.path.strip_prefix(SKELETON);
    let (place, path) = match skeleton {
        Some("") => (Place::System, "/".to_owned()),
        Some(path) if path.starts_with('/') => (Place::System, path.to_owned()),
        _ => (Place::Early, format!("/{}", header.path)),
    };
    let is_usr = path == "/usr" || path.starts_with("/usr/");
    if header.path.is_empty() || place == Place::System && is_usr {
        return Ok(None);
    }
    let mut entry = Entry {
        place,
        path,
        kind: match header.kind {
            Type::File => Kind::File,
            Type::Directory => Kind::Directory,
            Type::Link => Kind::Link,
        },
        access: Some(Access { mode: header.mode, uid: header.uid, gid: header.gid }),
        size: 0,
        sha256: None,
        target: None,
        xattrs: BTreeMap::new(),
        text: None,
    };
    match header.kind {
        Type::File => measure(&mut entry, header.size, content)?,
        Type::Directory => {}
        Type::Link => {
            let mut target = String::new();
            content.take(TARGET_MAX + 1).read_to_string(&mut target)?;
            entry.target = Some(target);
        }
    }
    Ok(Some(entry))
}

/// Adds size, digest and text of a file.
fn measure(entry: &mut Entry, size: u64, content: &mut dyn Read) -> io::Result<()> {
    entry.size = size;
    if settings::may_have_text(entry) {
        let mut bytes = Vec::new();
        content.take(size).read_to_end(&mut bytes)?;
        entry.size = bytes.len() as u64;
        entry.sha256 = Some(digest::of_bytes(&bytes));
        entry.text = settings::text(bytes);
    } else {
        let (size, sha256) = digest::of_reader(content)?;
        entry.size = size;
        entry.sha256 = Some(sha256);
    }
    Ok(())
}

fn of_usr(image: &Path, to: &Path, log: &mut LogFile) -> Result<Vec<Entry>> {
    let failed = || format!("unpacking {USR}");
    check_size(image, log).with_context(failed)?;
    let arguments = ["-no-progress", "-quiet", "-xattrs", "-dest"];
    Tool::new("unsquashfs").args(arguments).arg(to).arg(image).run(log).with_context(failed)?;
    let entries = collect::usr(to)?;
    // An image from outside can be large, and the caller may keep its own temporary files.
    fs::remove_dir_all(to).with_context(failed)?;
    Ok(entries)
}

/// Checks the number of files and their size before anything is unpacked.
fn check_size(image: &Path, log: &mut LogFile) -> Result<()> {
    // The superblock starts with a magic number and the number of inodes, in little-endian order
    // (kernel document `filesystems/squashfs.rst`).
    let mut start = [0; 8];
    File::open(image)?.read_exact_at(&mut start, 0)?;
    ensure!(start.starts_with(b"hsqs"), "it is not a SquashFS");
    let inodes = u32::from_le_bytes([start[4], start[5], start[6], start[7]]);
    ensure!(
        inodes as usize <= ENTRIES_MAX,
        "it has {inodes} files, expected at most {ENTRIES_MAX}"
    );
    let script =
        "unsquashfs -lln -d '' \"$1\" | awk '{ sum += $3 } END { printf \"%.0f\\n\", sum }'";
    let size = Tool::new("bash")
        .args(["-euo", "pipefail", "-c", script, "bash"])
        .arg(image)
        .env("LC_ALL", "C")
        .run(log)?;
    let size: u64 = size.trim().parse().context("adding the sizes of its files")?;
    ensure!(size <= USR_MAX, "its files have {size} bytes, expected at most {USR_MAX}");
    Ok(())
}

fn esp_entries(disk: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    testbed::visit_esp(&File::open(disk)?, &mut |path, size, content| {
        let mut entry = Entry {
            place: Place::Esp,
            path: path.to_ascii_lowercase(),
            kind: Kind::File,
            access: None,
            size,
            sha256: None,
            target: None,
            xattrs: BTreeMap::new(),
            text: None,
        };
        measure(&mut entry, size, content)?;
        entries.push(entry);
        Ok(())
    })?;
    Ok(entries)
}
