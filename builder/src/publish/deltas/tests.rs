//! Deltas are tested with the updater of the earlier release.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use protocol::delta::FORMAT;
use protocol::release::DeltaFile;
use protocol::{Arch, Artifact, Role, digest};

use super::earlier::Earlier;
use crate::destination::Directory;
use crate::judge::judge;
use crate::publish::Site;
use crate::publish::tests::release;

/// Writes an initrd whose updater is a script to `directory`, and returns it as an artifact; `None` if
/// mksquashfs is not installed.
fn initrd(directory: &Path, script: &str) -> Option<Artifact> {
    let (tree, image) = (directory.join("usr"), directory.join("x.initrd"));
    fs::create_dir_all(tree.join("bin")).unwrap();
    let updater = tree.join("bin/etchaos-updater");
    fs::write(&updater, script).unwrap();
    fs::set_permissions(&updater, Permissions::from_mode(0o755)).unwrap();
    let paths = [tree.to_str().unwrap(), image.to_str().unwrap()];
    judge(
        "mksquashfs",
        &[&paths[..], &["-comp", "zstd", "-noappend", "-quiet", "-no-progress"]].concat(),
    )?;
    Some(artifact(&image))
}

fn artifact(path: &Path) -> Artifact {
    let bytes = fs::read(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    Artifact {
        role: Role::Initrd,
        url: name.clone(),
        name,
        size: bytes.len() as u64,
        sha256: digest::of_bytes(&bytes),
        deltas: Vec::new(),
    }
}

/// Checks a delta with an updater that is a script. The new file has the content "new".
fn check(script: &str) -> Option<Result<(), String>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let old = initrd(path, script)?;
    fs::write(path.join("new"), "new").unwrap();
    let site = Site { destination: Box::new(Directory::open(path).unwrap()), public: None };
    let mut release = release("one");
    release.arch = Arch::native()?;
    release.artifacts.retain(|artifact| artifact.role != Role::Initrd);
    release.artifacts.push(old.clone());
    let earlier = Earlier::new(&site, release, path).unwrap();
    let delta = DeltaFile {
        from: old.sha256.clone(),
        format: FORMAT.into(),
        name: "delta".into(),
        size: 1,
        sha256: "ab".repeat(32),
        url: "delta".into(),
        memory: 7,
    };
    let result = earlier.check(&delta, &path.join("delta"), &old, &artifact(&path.join("new")));
    Some(result.map_err(|error| format!("{error:#}")))
}

#[test]
fn a_delta_must_give_the_file_with_the_updater_of_the_earlier_release() {
    let arguments =
        "[ \"$1\" = apply-delta ] && [ \"$5\" = --memory=7 ] && [ -e \"$3\" ] || exit 9\n";
    let script = |end: &str| format!("#!/bin/sh\n{arguments}{end}\n");
    let Some(result) = check(&script("printf new >\"$4\"")) else { return };
    assert_eq!(result, Ok(()));
    for (end, expected) in [
        ("printf other >\"$4\"", "makes a file with the SHA-256"),
        ("echo 'unrecognized subcommand' >&2; exit 2", "unrecognized subcommand"),
    ] {
        let error = check(&script(end)).unwrap().unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_updater_that_takes_too_much_memory_is_killed() {
    // dd allocates its block at once.
    let script = "#!/bin/sh\nexec dd if=/dev/zero of=/dev/null bs=1200M count=1000\n";
    let Some(result) = check(script) else { return };
    let error = result.unwrap_err();
    assert!(error.contains("of memory, of which it took 1"), "{error}");
}
