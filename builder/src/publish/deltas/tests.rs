//! Deltas are made once, and applied with the updaters of the earlier releases.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use protocol::delta::FORMAT;
use protocol::release::DeltaFile;
use protocol::{Arch, Artifact, Release, Role, digest};

use super::earlier::Earlier;
use super::updater::Updater;
use super::{NewFiles, Predecessors, add};
use crate::destination::Directory;
use crate::judge::judge;
use crate::publish::tests::{release, text};

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

/// Calls a function with the updater of a release, which is a script, and the old and the new file. The content of the
/// new file is "new".
fn with_updater<T>(script: &str, work: impl Fn(&Updater, &Path, &Artifact) -> T) -> Option<T> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let old = initrd(path, script)?;
    fs::write(path.join("new"), "new").unwrap();
    let location = Directory::open(path).unwrap();
    let mut release = release("one");
    release.arch = Arch::native()?;
    release.artifacts.retain(|artifact| artifact.role != Role::Initrd);
    release.artifacts.push(old.clone());
    let earlier = Earlier::new(&location, &release, path).unwrap();
    let old = earlier.file(&old).unwrap();
    let updater = earlier.updater().unwrap().unwrap();
    Some(work(updater, &old, &artifact(&path.join("new"))))
}

/// Checks a delta with an updater that is a script.
fn check(script: &str) -> Option<Result<(), String>> {
    let delta = DeltaFile {
        from: "cd".repeat(32),
        format: FORMAT.into(),
        name: "delta".into(),
        size: 1,
        sha256: "ab".repeat(32),
        url: "delta".into(),
        memory: 7,
    };
    with_updater(script, |updater, old, new| {
        let result = updater.check(&delta, Path::new("delta"), old, new);
        result.map_err(|error| format!("{error:#}"))
    })
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
        ("echo 'not enough memory' >&2; exit 1", "not enough memory"),
    ] {
        let error = check(&script(end)).unwrap().unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_updater_that_takes_too_much_memory_is_killed() {
    // dd allocates its block at once.
    let script =
        "#!/bin/sh\n[ $2 = --help ] || exec dd if=/dev/zero of=/dev/null bs=1200M count=1000\n";
    let Some(result) = check(script) else { return };
    let error = result.unwrap_err();
    assert!(error.contains("of memory, of which it took 1"), "{error}");
}

#[test]
fn an_updater_without_the_command_does_not_know_deltas() {
    for (script, expected) in [
        ("#!/bin/sh\n[ \"$1 $2\" = 'apply-delta --help' ]\n", true),
        ("#!/bin/sh\necho 'unrecognized subcommand' >&2; exit 2\n", false),
    ] {
        let Some(knows) = with_updater(script, |updater, _, _| updater.knows_deltas) else {
            return;
        };
        assert_eq!(knows, expected, "{script}");
    }
}

/// Returns a release whose files are in a directory of its own below `directory`.
fn stored(directory: &Path, content: &str, build: u64) -> Release {
    let mut release = release(content);
    release.build = build;
    fs::create_dir(directory.join(content)).unwrap();
    for artifact in &mut release.artifacts {
        artifact.url = format!("{content}/{}", artifact.name);
        fs::write(directory.join(&artifact.url), text(content, &artifact.name)).unwrap();
    }
    release
}

#[test]
fn releases_with_the_same_kernel_share_its_delta_and_no_delta_is_made_twice() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let (one, mut two) = (stored(path, "one", 1), stored(path, "two", 2));
    two.artifacts[0] = one.artifacts[0].clone();
    let mut new = stored(path, "new", 3);
    let location = Directory::open(path).unwrap();
    let predecessors = Predecessors { location: &location, releases: vec![two, one] };
    let deltas = path.join("deltas");
    fs::create_dir(&deltas).unwrap();
    let file = |file: protocol::release::PublishedFile<'_>| {
        Ok([path.join(file.url), deltas.join(file.url)].into_iter().find(|it| it.exists()).unwrap())
    };
    let files = NewFiles { path: &file, deltas: &deltas };
    let lines = add(&predecessors, &mut new, &files);
    let begin = ["kernel from builds 2, 1: ", "initrd from build 2: ", "initrd from build 1: "];
    assert_eq!(lines.len(), begin.len(), "{lines:?}");
    assert!(lines.iter().zip(begin).all(|(line, begin)| line.starts_with(begin)), "{lines:?}");
    assert!(lines.iter().all(|line| line.ends_with('%')), "{lines:?}");
    let counts: Vec<usize> = new.artifacts.iter().map(|artifact| artifact.deltas.len()).collect();
    assert_eq!(counts, [1, 2, 0]);
    // A new delta could not be written there.
    let files = NewFiles { path: &file, deltas: Path::new("/nonexistent") };
    let before = new.clone();
    assert_eq!(add(&predecessors, &mut new, &files), lines);
    assert_eq!(new, before);
    let none = Predecessors { location: &location, releases: Vec::new() };
    assert_eq!(add(&none, &mut new, &files), Vec::<String>::new());
    assert_eq!(new.deltas().count(), 0);
}
