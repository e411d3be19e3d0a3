//! Tar files that restore a tree exactly: owners, modes, times, links, devices and extended attributes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::command::Tool;
use crate::log_file::LogFile;

/// Writes a tree to a tar file.
pub(crate) fn write(tree: &Path, to: &Path, log: &mut LogFile) -> Result<()> {
    Tool::new("tar")
        // The format "posix" keeps fractions of seconds.
        .args(["--create", "--format=posix", "--xattrs", "--acls", "--numeric-owner", "--file"])
        .arg(to)
        .arg("--directory")
        .arg(tree)
        .arg(".")
        .run(log)?;
    Ok(())
}

/// Unpacks a tar file of [`write`] into a new directory.
pub(crate) fn unpack(tar: &Path, to: &Path, log: &mut LogFile) -> Result<()> {
    fs::create_dir(to).with_context(|| format!("creating {}", to.display()))?;
    Tool::new("tar")
        .args(["--extract", "--same-owner", "--numeric-owner", "--preserve-permissions"])
        // By default, tar restores only the attributes of users, and so would lose file capabilities.
        .args(["--acls", "--xattrs", "--xattrs-include=*", "--file"])
        .arg(tar)
        .arg("--directory")
        .arg(to)
        .run(log)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tree_digest;
    use crate::judge::skip;
    use crate::progress::Bar;
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
    use std::time::{Duration, SystemTime};

    #[test]
    fn unpacked_tree_equals_the_original() {
        if !nix::unistd::geteuid().is_root() {
            return skip("owners and capabilities need root");
        }
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join("d")).unwrap();
        let program = tree.join("d/program");
        fs::write(&program, "program").unwrap();
        chown(&program, Some(12), Some(3_000_000)).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o4711)).unwrap();
        // CAP_NET_RAW, permitted and effective, in the format VFS_CAP_REVISION_2.
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        xattr::set(&program, "security.capability", &capability).unwrap();
        xattr::set(&program, "user.a", b"b").unwrap();
        fs::hard_link(&program, tree.join("link")).unwrap();
        symlink("nowhere", tree.join("symlink")).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_000, 123_456_789);
        fs::File::open(tree.join("d")).unwrap().set_modified(time).unwrap();
        fs::set_permissions(&tree, Permissions::from_mode(0o1777)).unwrap();

        let mut log = LogFile::create(&directory.path().join("log"), Bar::start("test")).unwrap();
        let (tar, copy) = (directory.path().join("tar"), directory.path().join("copy"));
        write(&tree, &tar, &mut log).unwrap();
        unpack(&tar, &copy, &mut log).unwrap();
        assert_eq!(tree_digest(&tree).unwrap(), tree_digest(&copy).unwrap());
        assert_eq!(copy.join("d").metadata().unwrap().mtime_nsec(), 123_456_789);
        let restored = xattr::get(copy.join("d/program"), "security.capability").unwrap();
        assert_eq!(restored.unwrap(), capability);
    }
}
