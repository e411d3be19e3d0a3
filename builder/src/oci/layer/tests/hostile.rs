//! Layers that try to change files outside of the tree, or to exhaust the build host.

use super::*;

use proptest::prelude::*;

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
    assert_eq!(world.path("file").metadata().unwrap().mode() & 0o777, 0o755);
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
