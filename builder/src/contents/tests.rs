//! Tests of lists of files: of small images, of a real release where one is given, and from attackers.

use std::fs;
use std::io::Cursor;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::Instant;

use cpio::newc::{Builder, ModeFileType, trailer};
use proptest::prelude::*;
use protocol::digest;

use super::*;
use crate::image::initrd::Initrd;
use crate::judge::{judge, skip};
use crate::log_file::LogFile;
use crate::progress::Bar;

/// Returns a log in a directory.
pub(crate) fn log(directory: &Path) -> LogFile {
    LogFile::create(&directory.join("log"), Bar::start("test")).unwrap()
}

/// Returns the directory of a build with its work directory.
pub(crate) fn artifacts() -> Option<PathBuf> {
    let Some(directory) = std::env::var_os("ETCHAOS_ARTIFACTS") else {
        skip("ETCHAOS_ARTIFACTS does not name the directory of a build");
        return None;
    };
    if !nix::unistd::geteuid().is_root() {
        skip("unpacking /usr needs root");
        return None;
    }
    Some(directory.into())
}

/// A small image: trees for `early`, `root` and `esp`, and the initrd of the first two.
pub(crate) struct Small(tempfile::TempDir);

impl Small {
    pub(crate) fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            skip("owners of files and unpacking /usr need root");
            return None;
        }
        let small = Self(tempfile::tempdir().unwrap());
        for path in ["early/bin", "root/etc", "root/usr/bin", "root/usr/lib/systemd", "esp/etchaos"]
        {
            fs::create_dir_all(small.path(path)).unwrap();
        }
        small.write("early/init", "#!/bin/sh\n");
        small.write("root/etc/hosts", "127.0.0.1 localhost\n");
        small.write("root/etc/binary", b"\xff\0");
        small.write("root/usr/bin/tool", b"\x7fELF");
        small.write("root/usr/lib/systemd/system.conf", "[Manager]\n");
        small.write("esp/etchaos/GRUB.cfg", "set x=1\n");
        symlink("usr/bin", small.path("root/bin")).unwrap();
        fs::hard_link(small.path("root/usr/bin/tool"), small.path("root/usr/bin/same")).unwrap();
        chown(small.path("root/etc/binary"), Some(3), Some(42)).unwrap();
        let mode = |mode| fs::Permissions::from_mode(mode);
        fs::set_permissions(small.path("root/usr/bin/tool"), mode(0o755)).unwrap();
        small.package()?;
        Some(small)
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(path), content).unwrap();
    }

    /// Writes the initrd again.
    pub(crate) fn package(&self) -> Option<()> {
        let text = |path: &str| self.path(path).to_str().unwrap().to_owned();
        let usr = self.path("usr.squashfs");
        judge(
            "mksquashfs",
            &[&text("root/usr"), &text("usr.squashfs"), "-noappend", "-all-time", "0", "-quiet"],
        )?;
        let (early, root) = (self.path("early"), self.path("root"));
        Initrd { early: &early, root: &root, usr: &usr, epoch: 0 }
            .write(&self.path("initrd"))
            .unwrap();
        Some(())
    }

    pub(crate) fn built(&self) -> Contents {
        let (early, root, esp) = (self.path("early"), self.path("root"), self.path("esp"));
        Trees { early: &early, root: &root, esp: &esp }.contents().unwrap()
    }
}

/// Returns an archive with one file.
pub(crate) fn archive_with(name: &str, mtime: u32, content: &[u8]) -> Vec<u8> {
    let header = Builder::new(name).mode(0o644).mtime(mtime);
    let header = header.set_mode_file_type(ModeFileType::Regular);
    let mut writer = header.write(Vec::new(), content.len() as u32);
    std::io::Write::write_all(&mut writer, content).unwrap();
    trailer(writer.finish().unwrap()).unwrap()
}

#[test]
fn trees_and_published_files_of_a_release_give_the_same_list() {
    let Some(directory) = artifacts() else { return };
    let work = directory.join("work");
    let (early, root, esp) = (work.join("out/early"), work.join("root"), work.join("out/esp"));
    let start = Instant::now();
    let built = Trees { early: &early, root: &root, esp: &esp }.contents().unwrap();
    let collected = start.elapsed();
    let document = built.to_document().unwrap();
    println!(
        "{} entries in {collected:.2?}, with the document {:.2?}, {} bytes",
        built.entries.len(),
        start.elapsed(),
        document.len()
    );
    assert_eq!(Contents::from_document(&document).unwrap(), built);
    let temporary = tempfile::tempdir().unwrap();
    let path = |extension: &str| directory.join(format!("etchaos_deb_amd64.{extension}"));
    let initrd = of_initrd(&path("initrd"), &mut log(temporary.path())).unwrap();
    let esp = of_esp(&path("raw")).unwrap();
    let published = Contents::new([initrd.entries, esp.entries].concat()).unwrap();
    for (built, published) in built.entries.iter().zip(&published.entries) {
        assert_eq!(built, published);
    }
    assert_eq!(built.entries.len(), published.entries.len());
}

#[test]
fn keeps_owners_links_attributes_and_texts() {
    let Some(small) = Small::new() else { return };
    // CAP_NET_RAW as effective and permitted, in the format of `linux/capability.h`, revision 2.
    let capability = [[1, 0, 0, 2], [0, 32, 0, 0], [0; 4], [0; 4], [0; 4]].concat();
    let tool = small.path("root/usr/bin/tool");
    if let Err(error) = xattr::set(&tool, "security.capability", &capability) {
        return skip(&format!("the file system has no capabilities: {error}"));
    }
    small.package().unwrap();
    let built = small.built();
    let published = of_initrd(&small.path("initrd"), &mut log(&small.path(""))).unwrap();
    let (esp, rest): (Vec<Entry>, _) =
        built.entries.iter().cloned().partition(|entry| entry.place == Place::Esp);
    assert_eq!(rest, published.entries);
    assert_eq!(esp[0].name(), "esp:/etchaos/grub.cfg");
    assert_eq!(esp[0].text.as_deref(), Some("set x=1\n"));

    let get = |path| built.get(Place::System, path).unwrap();
    let tool = get("/usr/bin/tool");
    assert_eq!(tool.xattrs["security.capability"].len(), 40);
    assert_eq!((tool.access.unwrap().mode, &tool.text), (0o755, &None));
    assert_eq!(get("/usr/bin/same").sha256, tool.sha256);
    assert_eq!(get("/usr/lib/systemd/system.conf").text.as_deref(), Some("[Manager]\n"));
    assert_eq!(get("/bin").target.as_deref(), Some("usr/bin"));
    let binary = get("/etc/binary");
    assert_eq!((binary.access.unwrap().uid, binary.access.unwrap().gid), (3, 42));
    assert_eq!((binary.size, &binary.text), (2, &None));
    assert!(built.get(Place::Early, "/init").is_some());
    assert!(built.get(Place::System, "/usr/missing").is_none());
}

fn file(path: &str, text: &str) -> Entry {
    Entry {
        place: Place::System,
        path: path.to_owned(),
        kind: Kind::File,
        access: None,
        size: text.len() as u64,
        sha256: Some(digest::of_bytes(text.as_bytes())),
        target: None,
        xattrs: Default::default(),
        text: Some(text.to_owned()),
    }
}

#[test]
fn rejects_invalid_lists() {
    let changes: [fn(&mut Contents); 14] = [
        |c| c.schema = 2,
        |c| c.entries.reverse(),
        |c| c.entries[1].path = "/a".into(),
        |c| c.entries[1].path = "/b/../../etc".into(),
        |c| c.entries[1].path = "b".into(),
        |c| c.entries[1].path = "/b//c".into(),
        |c| c.entries[1].path = format!("/b{}", "x".repeat(5000)),
        |c| c.entries[0].text = Some("other".into()),
        |c| c.entries[0].sha256 = None,
        |c| c.entries[0].sha256 = Some("AB".repeat(32)),
        |c| c.entries[0].kind = Kind::Link,
        |c| c.entries[0].target = Some("/b".into()),
        |c| drop(c.entries[0].xattrs.insert("user.x".into(), "not hex".into())),
        |c| *c = Contents { entries: vec![c.entries[0].clone(); 200_001], ..c.clone() },
    ];
    let valid = Contents::new(vec![file("/b", "b"), file("/a", "a")]).unwrap();
    assert_eq!(Contents::from_document(&valid.to_document().unwrap()).unwrap(), valid);
    for (index, change) in changes.into_iter().enumerate() {
        let mut contents = valid.clone();
        change(&mut contents);
        let document = contents.to_document().unwrap();
        assert!(Contents::from_document(&document).is_err(), "change {index}");
    }
}

#[test]
fn rejects_documents_that_are_too_large_or_truncated() {
    let bomb = zstd::bulk::compress(&vec![b' '; (64 << 20) + 1], 1).unwrap();
    assert!(bomb.len() < 1 << 20);
    let error = |document: &[u8]| format!("{:#}", Contents::from_document(document).unwrap_err());
    assert!(error(&bomb).contains("after decompression"), "{}", error(&bomb));
    let large = vec![0; (16 << 20) + 1];
    assert!(error(&large).contains("at most"), "{}", error(&large));
    let valid = Contents::new(vec![file("/a", "a")]).unwrap().to_document().unwrap();
    for end in 0..valid.len() {
        assert!(Contents::from_document(&valid[..end]).is_err(), "{end} bytes");
    }
}

#[test]
fn a_later_archive_replaces_files_of_an_earlier_one() {
    let Some(small) = Small::new() else { return };
    let mut initrd = fs::read(small.path("initrd")).unwrap();
    initrd.extend([0; 8]);
    initrd.extend(archive_with("sysroot/etc/hosts", 0, b"::1 localhost\n"));
    // /usr is mounted over this directory.
    initrd.extend(archive_with("sysroot/usr/hidden", 0, b""));
    small.write("initrd", initrd);
    let found = of_initrd(&small.path("initrd"), &mut log(&small.path(""))).unwrap();
    let hosts = found.get(Place::System, "/etc/hosts").unwrap();
    assert_eq!(hosts.text.as_deref(), Some("::1 localhost\n"));
    assert!(found.get(Place::System, "/usr/hidden").is_none());
}

#[test]
fn rejects_archives_with_other_paths_and_types_and_truncated_ones() {
    let read = |bytes: &[u8]| archive::read(Cursor::new(bytes), &mut |_, _| Ok(()));
    let valid = archive_with("sysroot/a", 0, b"content");
    read(&valid).unwrap();
    for name in ["../a", "/a", "a/./b", "a//b", "a/../b", &"x".repeat(5000)] {
        assert!(read(&archive_with(name, 0, b"")).is_err(), "{name}");
    }
    for end in 1..valid.len() - 1 {
        assert!(read(&valid[..end]).is_err(), "{end} bytes");
    }
    for kind in [ModeFileType::Char, ModeFileType::Fifo, ModeFileType::Socket] {
        let header = Builder::new("a").set_mode_file_type(kind);
        assert!(read(&header.write(Vec::new(), 0).finish().unwrap()).is_err());
    }
    let link = Builder::new("a").nlink(2).set_mode_file_type(ModeFileType::Regular);
    assert!(read(&link.write(Vec::new(), 0).finish().unwrap()).is_err());
    // A compressed archive.
    assert!(read(&[0x1f, 0x8b, 8, 0]).is_err());
}

#[test]
fn names_the_part_at_an_offset() {
    let bytes = archive_with("sysroot/a", 0, b"content");
    let part = |offset| archive::part_at(offset, Cursor::new(&bytes)).unwrap();
    let content = bytes.windows(7).position(|bytes| bytes == b"content").unwrap() as u64;
    assert_eq!(part(0), "the header of sysroot/a");
    assert_eq!(part(content - 1), "the header of sysroot/a");
    assert_eq!(part(content + 2), "the content of sysroot/a, at its offset 2");
    assert_eq!(part(content + 20), "an archive's end");
}

#[test]
fn rejects_an_initrd_without_a_squashfs() {
    let Some(small) = Small::new() else { return };
    let list = |initrd: &[u8]| {
        small.write("initrd", initrd);
        format!("{:#}", of_initrd(&small.path("initrd"), &mut log(&small.path(""))).unwrap_err())
    };
    assert!(list(&archive_with("init", 0, b"")).contains("no usr.squashfs"));
    assert!(list(&archive_with("usr.squashfs", 0, b"no SquashFS")).contains("not a SquashFS"));
    let many = [b"hsqs".as_slice(), &[0xff; 4]].concat();
    assert!(list(&archive_with("usr.squashfs", 0, &many)).contains("at most 200000"));
}

proptest! {
    #[test]
    fn bytes_from_attackers_never_cause_a_panic(
        position in 0_usize..400, bytes in prop::collection::vec(any::<u8>(), 1..30),
    ) {
        let mut archive = archive_with("sysroot/a", 0, b"content");
        let mut document = Contents::new(vec![file("/a", "a")]).unwrap().to_document().unwrap();
        for target in [&mut archive, &mut document] {
            let position = position % target.len();
            let end = target.len().min(position + bytes.len());
            target[position..end].copy_from_slice(&bytes[..end - position]);
        }
        let _ = archive::read(Cursor::new(&archive), &mut |_, _| Ok(()));
        let _ = Contents::from_document(&document);
    }
}
