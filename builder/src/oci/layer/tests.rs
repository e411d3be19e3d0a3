//! Layers of good and of hostile images.

use super::*;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use proptest::prelude::*;
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

#[test]
fn paths_stay_in_the_tree() {
    for name in ["../evil", "a/../../evil", "..", "a/..", "/../evil"] {
        for kind in [FILE, DIR, SYMLINK, LINK] {
            World::new().fails(&[(name, kind, "x")], "contains \"..\"");
        }
    }
    let world = World::new();
    world.unpack(&[("/etc/absolute", FILE, "x"), ("//etc//./two", FILE, "x")]).unwrap();
    assert!(world.exists("etc/absolute") && world.exists("etc/two"));
}

#[test]
fn symbolic_links_do_not_lead_outside() {
    let world = World::new();
    let outer = world.outer();
    let up = "../../../../../../../..";
    world
        .unpack(&[
            ("link", SYMLINK, &outer),
            ("up", SYMLINK, up),
            ("file", SYMLINK, &format!("{outer}/secret")),
        ])
        .unwrap();
    for name in ["link/secret", "link/new", "link/sub/file", "link/.wh.secret", "link/.wh..wh..opq"]
    {
        // Whether it fails does not matter; the files outside do not change.
        let _ = world.unpack(&[(name, FILE, "evil")]);
        let _ = world
            .unpack(&[("again", SYMLINK, &outer), (&name.replace("link", "again"), FILE, "evil")]);
    }
    world.unpack(&[("up/top", FILE, "x")]).unwrap();
    assert_eq!(world.read("top"), "x", "above the root directory is the root directory");
    // The link itself is replaced, not what it leads to.
    world.unpack(&[("file", FILE, "new"), ("link", DIR, "")]).unwrap();
    assert_eq!(world.read("file"), "new");
    assert!(world.path("link").symlink_metadata().unwrap().is_dir());
    world.unpack(&[("loop", SYMLINK, "loop")]).unwrap();
    world.fails(&[("loop/x", FILE, "x")], "too many symbolic links");
}

#[test]
fn hard_links_do_not_lead_outside() {
    let world = World::new();
    let outer = world.outer();
    let secret = format!("{outer}/secret");
    world.unpack(&[("link", SYMLINK, &outer), ("file", SYMLINK, &secret)]).unwrap();
    for target in [secret.as_str(), "link/secret", "missing", "", "."] {
        world.fails(&[("x", LINK, target)], "hard link");
    }
    world.fails(&[("d/", DIR, ""), ("x", LINK, "d")], "not a file");
    // A second name of a symbolic link is a symbolic link, and writing to it replaces it.
    world.unpack(&[("x", LINK, "file"), ("x", FILE, "evil")]).unwrap();
    assert_eq!(world.read("x"), "evil");
}

#[test]
fn removals_stay_in_their_directory() {
    let world = World::new();
    world.unpack(&[("a/b/c", FILE, "x")]).unwrap();
    for name in ["a/b/.wh...", "a/b/.wh..", "a/b/.wh."] {
        world.fails(&[(name, FILE, "")], "removes no file");
    }
    world.fails(&[("../.wh.outer", FILE, "")], "contains \"..\"");
    assert!(world.exists("a/b/c"));
}

#[test]
fn large_layers_are_rejected_before_they_are_unpacked() {
    let big = "0".repeat(3 << 20);
    let bytes = archive(&[("a", FILE, "x"), ("big", FILE, &big)]);
    let bomb = zstd::encode_all(&bytes[..], 1).unwrap();
    assert!(bomb.len() < 2000);
    let world = World::new();
    let mut allowance = Allowance { entries: 9, bytes: 2 << 20 };
    let error = world.unpack_with(&bomb, Compression::Zstd, &mut allowance).unwrap_err();
    assert!(format!("{error:#}").contains("larger than what is allowed"), "{error:#}");
    assert!(!world.exists("a"));

    // The limits are for all layers together.
    let mut allowance = Allowance { entries: 5, bytes: 4 << 20 };
    world.unpack_with(&bomb, Compression::Zstd, &mut allowance).unwrap();
    assert!(world.unpack_with(&bomb, Compression::Zstd, &mut allowance).is_err());
    let mut allowance = Allowance { entries: 3, bytes: 8 << 20 };
    world.unpack_with(&bomb, Compression::Zstd, &mut allowance).unwrap();
    let error = world.unpack_with(&bomb, Compression::Zstd, &mut allowance).unwrap_err();
    assert!(format!("{error:#}").contains("more files"), "{error:#}");
    // Zeros after the end of the archive count, too.
    let trailing = [archive(&[("b", FILE, "x")]), vec![0; 3 << 20]].concat();
    let mut allowance = Allowance { entries: 3, bytes: 2 << 20 };
    assert!(world.unpack_with(&trailing, Compression::None, &mut allowance).is_err());
}

#[test]
fn rejects_headers_that_need_memory_or_move_the_end_of_an_entry() {
    let fails = |bytes: &[u8], text: &str| {
        let error = World::new().unpack_bytes(bytes, Compression::None).unwrap_err();
        assert!(format!("{error:#}").contains(text), "expected {text:?} in: {error:#}");
    };
    for kind in [
        EntryType::GNULongName,
        EntryType::GNULongLink,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
    ] {
        let mut bytes = Vec::new();
        append(&mut bytes, &header("x", kind, "", 2 << 20), &vec![b'a'; 2 << 20]);
        fails(&bytes, "an extended header has 2097152 bytes");
    }
    fails(&with_extension("size", "600"), "\"size\" is not supported");
    fails(&with_extension("GNU.sparse.major", "1"), "is not supported");
    fails(&archive(&[("x", EntryType::GNUSparse, "")]), "sparse");
    fails(&archive(&[("x", EntryType::new(b'?'), "")]), "the type '?'");
    fails(&with_extension("path", "../evil"), "contains \"..\"");
    fails(&archive(&[("x", SYMLINK, "")]), "target");

    let world = World::new();
    world.unpack_bytes(&with_extension("path", &"d/".repeat(200)), Compression::None).unwrap();
    world.unpack_bytes(&with_extension("SCHILY.xattr.user.a", "b"), Compression::None).unwrap();
    assert_eq!(xattr::list(world.path("file")).unwrap().count(), 0);
    assert_eq!(world.path("file").metadata().unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn sandboxes_need_directories_to_mount_on() {
    let world = World::new();
    world.tree.require_directories(&["proc"]).unwrap();
    assert!(world.path("proc").is_dir());
    let outer = world.outer();
    world.unpack(&[("etc", SYMLINK, &outer)]).unwrap();
    let error = world.tree.require_directories(&["proc", "etc"]).unwrap_err();
    assert!(error.to_string().contains("/etc of the image is a Symlink"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_layer_changes_files_outside(
        layers in prop::collection::vec(prop::collection::vec((
            "(\\.\\./|/|\\./|a/|b/|l/|\\.wh\\.){0,3}(a|b|l|\\.\\.|secret|\\.wh\\.a|\\.wh\\.\\.wh\\.\\.opq|\\.wh\\.\\.\\.)",
            prop::sample::select(vec![FILE, DIR, SYMLINK, LINK]),
            prop::sample::select(vec!["OUTER", "OUTER/secret", "..", "../..", "a", "b/l", "l/secret", "/", "/proc/self/root"]),
        ), 1..6), 1..4),
    ) {
        let world = World::new();
        let outer = world.outer();
        for layer in &layers {
            let targets: Vec<String> = layer.iter().map(|(_, _, target)| target.replace("OUTER", &outer)).collect();
            let items: Vec<Item<'_>> = layer.iter().zip(&targets).map(|((name, kind, _), target)| {
                (name.as_str(), *kind, target.as_str())
            }).collect();
            let _ = world.unpack(&items);
        }
    }
}
