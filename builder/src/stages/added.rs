//! The files and programs that the variant and its drop-ins add to the image.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::build::Build;
use super::refine::install;
use crate::download;
use crate::image::digest;
use crate::log_file::LogFile;
use crate::variant::{AddedFile, Bytes};

/// The mode of programs.
const PROGRAM_MODE: u32 = 0o755;

/// Writes the files and programs to the tree that is copied over the root tree.
///
/// # Errors
/// Fails if the tree has a file at the same path, because that one belongs to EtchaOS.
pub(super) fn gather(build: &Build<'_>, files: &Path, log: &mut LogFile) -> Result<()> {
    let content = &build.variant.content;
    for path in content.paths() {
        ensure!(
            below(files, path).symlink_metadata().is_err(),
            "the variant adds {path}, which is a file of EtchaOS; to change a unit, add a drop-in of \
             systemd beside it"
        );
    }
    for file in &content.files {
        write(file, &below(files, &file.path))?;
    }
    for binary in &content.binaries {
        log.line(&format!("binary {}: {}", binary.name, binary.url));
        let cached = build.directories.cache.join(&binary.sha256);
        download::fetch_cached(binary, &cached, &build.proxies)?;
        install(&cached, &below(files, &binary.path), PROGRAM_MODE)?;
    }
    Ok(())
}

fn write(file: &AddedFile, to: &Path) -> Result<()> {
    match &file.bytes {
        Bytes::Text(text) => {
            let failed = || format!("writing {}", to.display());
            fs::create_dir_all(to.parent().unwrap_or(to)).with_context(failed)?;
            fs::write(to, text).with_context(failed)?;
            fs::set_permissions(to, Permissions::from_mode(file.mode)).with_context(failed)
        }
        Bytes::Digest { sha256, source } => {
            let source = source.as_deref().context("the file has no source")?;
            install(source, to, file.mode)?;
            let (_, found) = digest::of_file(to)?;
            ensure!(
                found == *sha256,
                "{} changed during the build; start it again",
                source.display()
            );
            Ok(())
        }
    }
}

/// Checks that refine has left the files and programs in the root tree.
pub(super) fn check(build: &Build<'_>, root: &Path) -> Result<()> {
    let content = &build.variant.content;
    for file in &content.files {
        let sha256 = match &file.bytes {
            Bytes::Text(text) => protocol::digest::of_bytes(text.as_bytes()),
            Bytes::Digest { sha256, .. } => sha256.clone(),
        };
        check_file(root, &file.path, file.mode, &sha256)?;
    }
    for binary in &content.binaries {
        check_file(root, &binary.path, PROGRAM_MODE, &binary.sha256)?;
    }
    Ok(())
}

fn check_file(root: &Path, path: &str, mode: u32, sha256: &str) -> Result<()> {
    let file = below(root, path);
    // A link would lead out of the tree.
    let metadata = file.symlink_metadata().ok().filter(fs::Metadata::is_file);
    let found =
        metadata.map(|metadata| (metadata.permissions().mode() & 0o7777, digest::of_file(&file)));
    let is_kept =
        matches!(&found, Some((found, Ok((_, digest)))) if *found == mode && digest == sha256);
    ensure!(
        is_kept,
        "the variant adds {path}, but the stage refine removes or changes this file; choose another path, \
         or another variant of the Command \"refine\""
    );
    Ok(())
}

/// Returns a path of the image below a directory.
fn below(directory: &Path, path: &str) -> PathBuf {
    directory.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_refine_removes_or_changes_are_errors() {
        let root = tempfile::tempdir().unwrap();
        let path = "/etc/tool/settings";
        let file = AddedFile { path: path.into(), mode: 0o640, bytes: Bytes::Text("a\n".into()) };
        let sha256 = protocol::digest::of_bytes(b"a\n");
        let check = || check_file(root.path(), path, 0o640, &sha256);
        write(&file, &below(root.path(), path)).unwrap();
        check().unwrap();

        let written = below(root.path(), path);
        fs::set_permissions(&written, Permissions::from_mode(0o644)).unwrap();
        assert!(check().unwrap_err().to_string().contains(path));
        fs::write(&written, "b\n").unwrap();
        fs::set_permissions(&written, Permissions::from_mode(0o640)).unwrap();
        assert!(check().is_err());
        fs::remove_file(&written).unwrap();
        assert!(check().is_err());
        std::os::unix::fs::symlink("/etc/hostname", &written).unwrap();
        assert!(check().is_err());
    }

    #[test]
    fn a_source_that_changes_during_the_build_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        fs::write(&source, "new").unwrap();
        let bytes = |content: &[u8]| Bytes::Digest {
            sha256: protocol::digest::of_bytes(content),
            source: Some(source.clone()),
        };
        let to = directory.path().join("to");
        let file = AddedFile { path: "/etc/to".into(), mode: 0o600, bytes: bytes(b"old") };
        assert!(write(&file, &to).unwrap_err().to_string().contains("changed during the build"));
        write(&AddedFile { bytes: bytes(b"new"), ..file }, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o7777, 0o600);
    }
}
