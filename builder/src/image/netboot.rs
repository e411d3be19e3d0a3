//! The archive for network boot: a tar file to be unpacked in the root of a TFTP or HTTP server.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use protocol::Target;
use protocol::release::is_file_name;
use tar::{Builder, EntryType, Header};
use walkdir::WalkDir;

/// The directory of the release and of its boot script.
const DIRECTORY: &str = "etchaos";

/// The contents of the archive.
#[derive(Debug)]
pub(crate) struct NetworkBoot<'a> {
    /// The tree of the boot loaders and the boot scripts, which becomes the root of the archive.
    pub loaders: &'a Path,
    /// The kernel.
    pub kernel: &'a Path,
    /// The initrd.
    pub initrd: &'a Path,
    /// The target. The kernel and the initrd are in a directory of this name, so that a server can have
    /// the files of several targets.
    pub target: &'a Target,
    /// The version of the release. The directory has one of this name, so that a server can change to
    /// another release while hosts boot.
    pub version: &'a str,
    /// The modification time of all entries, in Unix seconds.
    pub epoch: u32,
}

impl NetworkBoot<'_> {
    /// Writes the archive. The same input gives the same bytes.
    pub(crate) fn write(&self, to: &Path) -> Result<()> {
        let failed = || format!("writing {}", to.display());
        let out = BufWriter::new(File::create(to).with_context(failed)?);
        let mut archive = Archive { tar: Builder::new(out), epoch: self.epoch };
        for (name, file) in self.entries()? {
            match file {
                Some(file) => archive.file(&name, &file),
                None => archive.directory(&name),
            }
            .with_context(failed)?;
        }
        archive.tar.into_inner().and_then(|mut out| out.flush()).with_context(failed)
    }

    /// Returns the names in the archive and their files, `None` for directories.
    ///
    /// The boot scripts come last, so that they never name files that are not unpacked yet.
    fn entries(&self) -> Result<Vec<(PathBuf, Option<PathBuf>)>> {
        ensure!(
            is_file_name(self.version),
            "the version is {:?}, expected the name of a directory",
            self.version
        );
        let target = Path::new(DIRECTORY).join(self.target.to_string());
        let release = target.join(self.version);
        let mut entries = vec![
            (PathBuf::from(DIRECTORY), None),
            (target, None),
            (release.clone(), None),
            (release.join("initrd"), Some(self.initrd.to_owned())),
            (release.join("vmlinuz"), Some(self.kernel.to_owned())),
        ];
        let (mut loaders, mut scripts) = (Vec::new(), Vec::new());
        for entry in WalkDir::new(self.loaders).min_depth(1).sort_by_file_name() {
            let entry = entry.with_context(|| format!("reading {}", self.loaders.display()))?;
            let name = entry.path().strip_prefix(self.loaders)?.to_owned();
            if name == Path::new(DIRECTORY) {
                continue;
            }
            let file = (!entry.file_type().is_dir()).then(|| entry.path().to_owned());
            match name.extension().is_some_and(|extension| extension == "cfg") {
                true => scripts.push((name, file)),
                false => loaders.push((name, file)),
            }
        }
        entries.append(&mut loaders);
        entries.append(&mut scripts);
        Ok(entries)
    }
}

struct Archive<W: Write> {
    tar: Builder<W>,
    epoch: u32,
}

impl<W: Write> Archive<W> {
    fn file(&mut self, name: &Path, file: &Path) -> Result<()> {
        let content = File::open(file).with_context(|| format!("reading {}", file.display()))?;
        let size = content.metadata()?.len();
        let mut header = self.header(EntryType::Regular, 0o644, size);
        let failed = || format!("adding {}", file.display());
        self.tar.append_data(&mut header, name, content).with_context(failed)
    }

    /// Adds a directory, so that the server can read it whatever the umask of the user who unpacks the
    /// archive.
    fn directory(&mut self, name: &Path) -> Result<()> {
        let mut header = self.header(EntryType::Directory, 0o755, 0);
        self.tar.append_data(&mut header, name, std::io::empty()).context("adding a directory")
    }

    fn header(&self, kind: EntryType, mode: u32, size: u64) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(u64::from(self.epoch));
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size);
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::judge;
    use std::fs;

    fn write(directory: &Path, version: &str) -> Result<PathBuf> {
        write_for(directory, "deb_amd64", ["bootx64.efi", "boot-x86_64.cfg"], version)
    }

    fn write_for(
        directory: &Path,
        target: &str,
        [shim, script]: [&str; 2],
        version: &str,
    ) -> Result<PathBuf> {
        let loaders = directory.join("loaders");
        fs::create_dir_all(loaders.join("grub")).unwrap();
        fs::create_dir_all(loaders.join("etchaos")).unwrap();
        for (name, content) in [
            (&*format!("loaders/{shim}"), "shim"),
            (&format!("loaders/etchaos/{script}"), "script"),
            ("loaders/grub/grub.cfg", "stub"),
            ("k", "kernel"),
            ("i", ""),
        ] {
            fs::write(directory.join(name), content).unwrap();
        }
        let to = directory.join("netboot.tar");
        NetworkBoot {
            loaders: &loaders,
            kernel: &directory.join("k"),
            initrd: &directory.join("i"),
            target: &target.parse().unwrap(),
            version,
            epoch: 1_000_000_000,
        }
        .write(&to)?;
        Ok(to)
    }

    #[test]
    fn tar_lists_readable_files_with_the_boot_script_last() {
        let directory = tempfile::tempdir().unwrap();
        let archive = write(directory.path(), "13.1-ab").unwrap();
        let arguments = ["--utc", "--numeric-owner", "-tvf", archive.to_str().unwrap()];
        let Some(listed) = judge("tar", &arguments) else { return };
        let lines: Vec<String> = listed
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let date = "2001-09-09 01:46";
        assert_eq!(
            lines,
            [
                format!("drwxr-xr-x 0/0 0 {date} etchaos"),
                format!("drwxr-xr-x 0/0 0 {date} etchaos/deb_amd64"),
                format!("drwxr-xr-x 0/0 0 {date} etchaos/deb_amd64/13.1-ab"),
                format!("-rw-r--r-- 0/0 0 {date} etchaos/deb_amd64/13.1-ab/initrd"),
                format!("-rw-r--r-- 0/0 6 {date} etchaos/deb_amd64/13.1-ab/vmlinuz"),
                format!("-rw-r--r-- 0/0 4 {date} bootx64.efi"),
                format!("drwxr-xr-x 0/0 0 {date} grub"),
                format!("-rw-r--r-- 0/0 6 {date} etchaos/boot-x86_64.cfg"),
                format!("-rw-r--r-- 0/0 4 {date} grub/grub.cfg"),
            ]
        );
    }

    #[test]
    fn archives_of_two_architectures_share_only_what_is_equal() {
        let root = tempfile::tempdir().unwrap();
        let mut count = 0;
        for (target, names) in [
            ("deb_amd64", ["bootx64.efi", "boot-x86_64.cfg"]),
            ("deb_arm64", ["bootaa64.efi", "boot-arm64.cfg"]),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let archive = write_for(directory.path(), target, names, "13.1-ab").unwrap();
            for entry in tar::Archive::new(File::open(archive).unwrap()).entries().unwrap() {
                let mut entry = entry.unwrap();
                let path = root.path().join(entry.path().unwrap());
                let mut content = String::new();
                std::io::Read::read_to_string(&mut entry, &mut content).unwrap();
                if entry.header().entry_type().is_dir() {
                    fs::create_dir_all(path).unwrap();
                } else if path.exists() {
                    assert_eq!(path, root.path().join("grub/grub.cfg"));
                    assert_eq!(fs::read_to_string(path).unwrap(), content);
                } else {
                    fs::write(path, content).unwrap();
                    count += 1;
                }
            }
        }
        assert_eq!(count, 9);
    }

    #[test]
    fn same_content_gives_same_archive() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let read = |directory: &Path| fs::read(write(directory, "1").unwrap()).unwrap();
        assert!(read(a.path()) == read(b.path()));
    }

    #[test]
    fn rejects_version_that_is_not_a_directory_name() {
        let directory = tempfile::tempdir().unwrap();
        for version in ["../x", "", "a/b", ".."] {
            assert!(write(directory.path(), version).is_err(), "{version}");
        }
    }
}
