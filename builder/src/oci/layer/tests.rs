//! Layers of images.

mod hostile;

use super::*;

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use tar::Header;

use crate::cache::tree_digest;

/// A directory with the tree, beside files that no layer may change.
struct World {
    directory: tempfile::TempDir,
    tree: Tree,
    before: String,
}

/// An entry of a layer: its name, its type, and its content or the target of the link.
type Item<'a> = (&'a str, EntryType, &'a str);

const FILE: EntryType = EntryType::Regular;
const DIR: EntryType = EntryType::Directory;
const SYMLINK: EntryType = EntryType::Symlink;
const LINK: EntryType = EntryType::Link;

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let outer = directory.path().join("outer");
        fs::create_dir_all(outer.join("sub")).unwrap();
        for name in ["secret", "sub/file"] {
            fs::write(outer.join(name), "outside").unwrap();
        }
        fs::create_dir(directory.path().join("tree")).unwrap();
        let tree = Tree::open(&directory.path().join("tree")).unwrap();
        let before = tree_digest(&outer).unwrap();
        Self { directory, tree, before }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("tree").join(name)
    }

    fn outer(&self) -> String {
        self.directory.path().join("outer").to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn exists(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    fn unpack(&self, items: &[Item<'_>]) -> Result<()> {
        self.unpack_bytes(&archive(items), Compression::None)
    }

    fn unpack_bytes(&self, bytes: &[u8], compression: Compression) -> Result<()> {
        self.unpack_with(bytes, compression, &mut Allowance::default())
    }

    fn unpack_with(
        &self,
        bytes: &[u8],
        compression: Compression,
        allowance: &mut Allowance,
    ) -> Result<()> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let result = unpack(&mut file, compression, &self.tree, allowance);
        self.check_outer();
        result
    }

    /// Checks that nothing outside of the tree has changed.
    fn check_outer(&self) {
        assert_eq!(tree_digest(Path::new(&self.outer())).unwrap(), self.before);
        let names = self.directory.path().read_dir().unwrap();
        assert_eq!(names.count(), 2, "there is a file beside the tree");
    }

    fn fails(&self, items: &[Item<'_>], text: &str) {
        let error = format!("{:#}", self.unpack(items).unwrap_err());
        assert!(error.contains(text), "expected {text:?} in: {error}");
    }
}

/// Returns a header without the checks of the `tar` crate.
fn header(name: &str, kind: EntryType, link: &str, size: usize) -> Header {
    let mut header = Header::new_gnu();
    let gnu = header.as_gnu_mut().unwrap();
    gnu.name[..name.len()].copy_from_slice(name.as_bytes());
    gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(0o755);
    header.set_uid(nix::unistd::geteuid().as_raw().into());
    header.set_gid(nix::unistd::getegid().as_raw().into());
    header.set_mtime(1_000_000);
    header.set_cksum();
    header
}

fn append(bytes: &mut Vec<u8>, header: &Header, content: &[u8]) {
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
}

fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, kind, text) in items {
        let (link, content) = if *kind == FILE { ("", *text) } else { (*text, "") };
        append(&mut bytes, &header(name, *kind, link, content.len()), content.as_bytes());
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// Returns a tar file whose first entry has an extended header.
fn with_extension(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let length = (1..).find(|length| length.to_string().len() + rest.len() == *length).unwrap();
    let record = format!("{length}{rest}");
    let mut bytes = Vec::new();
    append(&mut bytes, &header("x", EntryType::XHeader, "", record.len()), record.as_bytes());
    bytes.extend_from_slice(&archive(&[("file", FILE, "content")]));
    bytes
}

#[test]
fn restores_files_links_and_their_properties() {
    let world = World::new();
    let mut bytes = Vec::new();
    let mut program = header("./bin/program", FILE, "", 4);
    program.set_mode(0o4711);
    program.set_cksum();
    append(&mut bytes, &program, b"text");
    bytes.extend_from_slice(&archive(&[
        ("bin/", DIR, ""),
        ("link", SYMLINK, "bin/program"),
        ("hard", LINK, "./bin/program"),
        ("hard", LINK, "bin/program"),
        ("dir/", FILE, ""),
        ("null", EntryType::Char, ""),
        ("disk", EntryType::Block, ""),
        ("pipe", EntryType::Fifo, ""),
    ]));
    world.unpack_bytes(&bytes, Compression::None).unwrap();
    let metadata = world.path("bin/program").metadata().unwrap();
    assert_eq!(
        (metadata.mode() & 0o7777, metadata.mtime(), metadata.nlink()),
        (0o4711, 1_000_000, 2)
    );
    assert_eq!(fs::read_link(world.path("link")).unwrap(), Path::new("bin/program"));
    assert_eq!((world.read("hard"), world.read("link")), ("text".into(), "text".into()));
    assert!(world.path("dir").is_dir(), "the oldest format marks directories by a slash");
    for name in ["null", "disk", "pipe"] {
        assert!(!world.exists(name), "{name}");
    }
}

#[test]
fn reads_all_compressions() {
    let first = archive(&[("a", FILE, "1"), ("b", FILE, "2")]);
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let members = [gzip(&first[..700]), gzip(&first[700..])].concat();
    for (bytes, compression) in [
        (first.clone(), Compression::None),
        (members, Compression::Gzip),
        (zstd::encode_all(&first[..], 1).unwrap(), Compression::Zstd),
    ] {
        let world = World::new();
        world.unpack_bytes(&bytes, compression).unwrap();
        assert_eq!(world.read("a") + &world.read("b"), "12", "{compression:?}");
    }
    for compression in [Compression::Gzip, Compression::Zstd] {
        let world = World::new();
        assert!(world.unpack_bytes(&first, compression).is_err());
        assert!(!world.exists("a"));
    }
}

#[test]
fn later_layers_change_and_remove_files() {
    let world = World::new();
    world
        .unpack(&[
            ("a/x", FILE, "old"),
            ("a/sub/y", FILE, "old"),
            ("b/x", FILE, "old"),
            ("c", FILE, "old"),
            ("d/x", FILE, "old"),
            ("e", SYMLINK, "b"),
        ])
        .unwrap();
    world
        .unpack(&[
            // Removals concern lower layers only, also if they come last.
            ("a/new", FILE, "new"),
            ("a/.wh..wh..opq", FILE, ""),
            ("c", FILE, "new"),
            (".wh.c", FILE, ""),
            (".wh.d", FILE, ""),
            ("b/.wh.missing", FILE, ""),
            ("missing/.wh.x", FILE, ""),
            ("b/.wh..wh.plnk", FILE, ""),
            // Another type replaces what was there.
            ("e/", DIR, ""),
            ("e/inner", FILE, "new"),
        ])
        .unwrap();
    assert_eq!(fs::read_dir(world.path("a")).unwrap().count(), 1);
    assert_eq!(
        (world.read("a/new"), world.read("c"), world.read("b/x")),
        ("new".into(), "new".into(), "old".into())
    );
    assert!(!world.exists("d") && !world.exists("b/.wh..wh.plnk"));
    assert!(world.exists("e/inner") && !world.exists("b/inner"));

    world.unpack(&[("a", FILE, "file"), ("b/.wh.x", FILE, "")]).unwrap();
    assert_eq!(world.read("a"), "file");
    assert!(!world.exists("b/x"));
}

#[test]
fn links_of_lower_layers_lead_to_their_directories() {
    let world = World::new();
    world
        .unpack(&[
            ("usr/lib/keep", FILE, "old"),
            ("lib", SYMLINK, "usr/lib"),
            ("abs", SYMLINK, "/usr/lib"),
        ])
        .unwrap();
    world.unpack(&[("lib/one", FILE, "1"), ("abs/two", FILE, "2")]).unwrap();
    assert_eq!(world.read("usr/lib/one") + &world.read("usr/lib/two"), "12");
    // A directory in place of a link hides nothing of the directory that the link led to.
    world
        .unpack(&[("lib/", DIR, ""), ("lib/.wh..wh..opq", FILE, ""), ("lib/new", FILE, "3")])
        .unwrap();
    assert!(world.exists("usr/lib/keep") && world.exists("lib/new") && !world.exists("lib/one"));
}
