//! Deltas are made once, and applied with the updaters of the earlier releases.

use std::fs;
use std::path::{Path, PathBuf};

use protocol::delta::FORMAT;
use protocol::release::DeltaFile;
use protocol::{Arch, Artifact, Release, Role, digest};

use super::earlier::Earlier;
use super::updater::Updater;
use super::{Added, NewFiles, Predecessors, RELEASES_MAX, add, confined};
use crate::destination::Directory;
use crate::judge::{judge, skip};
use crate::publish::tests::{release, text};

/// An updater that prints an error and fails, unless it prints its help.
const REFUSES: &str =
    "if (!strcmp(v[2], \"--help\")) return 0; fputs(\"refused\\n\", stderr); return 1;";
/// An updater of a version that does not support deltas.
const OLD: &str = "return 2;";

/// Writes an initrd with an updater to `directory`, and returns it as an artifact; `None` if mksquashfs or a
/// compiler is not installed. The updater is a static program, as those of releases; this is the body of `main` in C.
fn initrd(directory: &Path, name: &str, main: &str) -> Option<Artifact> {
    let (tree, image) = (directory.join("usr"), directory.join(name));
    fs::create_dir_all(tree.join("bin")).unwrap();
    let (source, updater) = (directory.join("updater.c"), tree.join("bin/etchaos-updater"));
    fs::write(&source, format!("int main(int c, char **v) {{ {main} }}\n")).unwrap();
    let headers = ["stdio", "stdlib", "string", "unistd", "arpa/inet", "sys/prctl"];
    let headers = headers.iter().flat_map(|name| ["-include".to_owned(), format!("{name}.h")]);
    let headers: Vec<String> = headers.collect();
    let mut arguments: Vec<&str> = headers.iter().map(String::as_str).collect();
    let (source, updater) = (source.to_str().unwrap(), updater.to_str().unwrap());
    arguments.extend(["-static", "-o", updater, source]);
    judge("cc", &arguments)?;
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

/// Calls a function with the updater of a release, which has this body of `main`, and the old and the new file. The
/// content of the new file is "new".
fn with_updater<T>(main: &str, work: impl Fn(&Updater, &Path, &Artifact) -> T) -> Option<T> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let old = initrd(path, "x.initrd", main)?;
    fs::write(path.join("new"), "new").unwrap();
    let location = Directory::open(path).unwrap();
    let mut release = release("one");
    release.arch = Arch::native()?;
    release.artifacts.retain(|artifact| artifact.role != Role::Initrd);
    release.artifacts.push(old.clone());
    if let Some(problem) = confined::problem() {
        skip(problem);
        return None;
    }
    let earlier = Earlier::new(&location, &release, path).unwrap();
    let old = earlier.file(&old).unwrap();
    let updater = earlier.updater().unwrap().unwrap();
    Some(work(updater, &old, &artifact(&path.join("new"))))
}

/// Checks a delta with an updater that has this body of `main`.
fn check(main: &str) -> Option<Result<(), String>> {
    let delta = DeltaFile {
        from: "cd".repeat(32),
        format: FORMAT.into(),
        name: "delta".into(),
        size: 1,
        sha256: "ab".repeat(32),
        url: "delta".into(),
        memory: 7,
    };
    with_updater(main, |updater, old, new| {
        // The content of the delta does not matter to the program.
        let result = updater.check(&delta, old, old, new);
        result.map_err(|error| format!("{error:#}"))
    })
}

#[test]
fn a_delta_must_give_the_file_with_the_updater_of_the_earlier_release() {
    let body = |end: &str| {
        format!(
            "if (c != 6 || strcmp(v[1], \"apply-delta\") || access(v[2], R_OK) || access(v[3], R_OK) \
             || strcmp(v[5], \"--memory=7\")) return 9; {end}"
        )
    };
    let write = |text: &str| {
        format!("FILE *to = fopen(v[4], \"w\"); fputs(\"{text}\", to); return fclose(to);")
    };
    let Some(result) = check(&body(&write("new"))) else { return };
    assert_eq!(result, Ok(()));
    for (end, expected) in [
        (write("other"), "makes a file with the SHA-256"),
        (
            "fputs(\"one\\nnot enough \\033memory\\n\", stderr); return 1;".into(),
            "not enough \\u{1b}memory",
        ),
        ("abort();".into(), "it printed no error"),
    ] {
        let error = check(&body(&end)).unwrap().unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_updater_has_no_privileges() {
    let tests = [
        ("geteuid() == 0 || setuid(0) == 0", "is root"),
        ("prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1", "can get privileges"),
        ("!access(\"/etc\", F_OK) || !access(\"/proc\", F_OK) || !chroot(\"/\")", "sees files"),
        ("getenv(\"HOME\") || getenv(\"CARGO\")", "sees the environment"),
        ("getppid() > 1", "sees processes"),
        (
            "connect(socket(AF_INET, SOCK_DGRAM, 0), (void *)&local, sizeof local) == 0",
            "has a network",
        ),
    ];
    let tests =
        tests.map(|(test, text)| format!("if ({test}) {{ fputs(\"{text}\", stderr); return 1; }}"));
    let start = "struct sockaddr_in local = {AF_INET, htons(9)}; local.sin_addr.s_addr = htonl(INADDR_LOOPBACK);";
    let end = "FILE *to = fopen(v[4], \"w\"); fputs(\"new\", to); return fclose(to);";
    let Some(result) = check(&format!("{start} {} {end}", tests.concat())) else { return };
    assert_eq!(result, Ok(()));
}

#[test]
fn an_updater_that_takes_too_much_memory_is_killed() {
    let main = "if (!strcmp(v[2], \"--help\")) return 0; memset(malloc(1200 << 20), 1, 1200 << 20); pause();";
    let Some(result) = check(main) else { return };
    let error = result.unwrap_err();
    assert!(error.contains("(it took 1"), "{error}");
}

#[test]
fn an_updater_without_the_command_does_not_support_deltas() {
    for (main, expected) in [(REFUSES, true), (OLD, false)] {
        let Some(supports) = with_updater(main, |updater, _, _| updater.supports_deltas) else {
            return;
        };
        assert_eq!(supports, expected, "{main}");
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
    let files = NewFiles { path: &file, deltas: &deltas, work: path };
    let lines = add(&predecessors, &mut new, &files, &|_| {}).lines;
    let begin = [
        "delta of the kernel from builds 2, 1: ",
        "delta of the initrd from build 2: ",
        "delta of the initrd from build 1: ",
    ];
    assert_eq!(lines.len(), begin.len(), "{lines:?}");
    assert!(lines.iter().zip(begin).all(|(line, begin)| line.starts_with(begin)), "{lines:?}");
    assert!(lines.iter().all(|line| line.ends_with('%')), "{lines:?}");
    let counts: Vec<usize> = new.artifacts.iter().map(|artifact| artifact.deltas.len()).collect();
    assert_eq!(counts, [1, 2, 0]);
    // A new delta could not be written there.
    let files = NewFiles { path: &file, deltas: Path::new("/nonexistent"), work: path };
    let before = new.clone();
    assert_eq!(add(&predecessors, &mut new, &files, &|_| {}).lines, lines);
    assert_eq!(new, before);
    // A release whose manifest could not be read is not a reason to remove its delta.
    let none = Predecessors { location: &location, releases: Vec::new() };
    assert_eq!(add(&none, &mut new, &files, &|_| {}), Added::default());
    assert_eq!(new, before);
}

/// Releases in a temporary directory.
struct World {
    directory: tempfile::TempDir,
    location: Directory,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["deltas", "work"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let location = Directory::open(directory.path()).unwrap();
        Self { directory, location }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Returns a release for this machine. Its initrd has an updater with this body of `main`.
    fn release(&self, content: &str, build: u64, main: &str) -> Option<Release> {
        let mut release = stored(self.directory.path(), content, build);
        release.arch = Arch::native()?;
        let initrd = release.artifacts.iter_mut().find(|it| it.role == Role::Initrd).unwrap();
        let url = format!("{content}/{}", initrd.name);
        *initrd =
            Artifact { url: url.clone(), ..self::initrd(&self.path(content), "x.initrd", main)? };
        fs::rename(self.path(content).join("x.initrd"), self.path(&url)).unwrap();
        Some(release)
    }

    fn add(&self, releases: Vec<Release>, new: &mut Release) -> Vec<String> {
        let deltas = self.path("deltas");
        let path = |file: protocol::release::PublishedFile<'_>| {
            let found = [self.path(file.url), deltas.join(file.url)];
            Ok(found.into_iter().find(|path| path.exists()).unwrap())
        };
        let files = NewFiles { path: &path, deltas: &deltas, work: &self.path("work") };
        let predecessors = Predecessors { location: &self.location, releases };
        add(&predecessors, new, &files, &|_| {}).lines
    }

    /// Returns the number of deltas in the directory for those that were made.
    fn made(&self) -> usize {
        fs::read_dir(self.path("deltas")).unwrap().count()
    }
}

fn kernel_deltas(release: &Release) -> usize {
    release.artifact(Role::Kernel).unwrap().deltas.len()
}

#[test]
fn a_delta_that_an_updater_refuses_is_removed() {
    let world = World::new();
    let mut new = stored(world.directory.path(), "new", 3);
    let Some(one) = world.release("one", 1, REFUSES) else { return };
    if confined::problem().is_some() {
        return;
    }
    let lines = world.add(vec![one.clone()], &mut new);
    assert!(lines[0].starts_with("delta of the kernel from build 1: not made: "), "{lines:?}");
    assert!(lines[0].contains("refused"), "{lines:?}");
    assert_eq!((new.deltas().count(), world.made()), (0, 0));
    // Without an updater, the builder applies it. Then another release with the same kernel refuses it.
    let mut two = stored(world.directory.path(), "two", 2);
    two.artifacts[0] = one.artifacts[0].clone();
    world.add(vec![two.clone()], &mut new);
    assert_eq!(kernel_deltas(&new), 1);
    // A release that cannot be read does not disprove it.
    let mut unknown = one.clone();
    fs::write(world.path("one/damaged"), "x").unwrap();
    unknown.artifacts[1].url = "one/damaged".into();
    let mut also_unknown = Release { build: 4, ..unknown.clone() };
    also_unknown.artifacts[1].sha256 = "ab".repeat(32);
    let lines = world.add(vec![unknown, also_unknown], &mut new);
    assert!(lines[1].contains("the published delta was not tested again: "), "{lines:?}");
    assert_eq!(kernel_deltas(&new), 1);
    let lines = world.add(vec![two, one], &mut new);
    assert!(lines[0].contains("refused"), "{lines:?}");
    assert_eq!(kernel_deltas(&new), 0);
}

#[test]
fn a_release_without_a_readable_updater_does_not_prevent_the_delta_of_others() {
    let world = World::new();
    let mut new = stored(world.directory.path(), "new", 3);
    let Some(mut one) = world.release("one", 1, OLD) else { return };
    let two = stored(world.directory.path(), "two", 2);
    one.artifacts[0] = two.artifacts[0].clone();
    fs::write(world.path(&one.artifact(Role::Initrd).unwrap().url), "damaged").unwrap();
    let lines = world.add(vec![two, one.clone()], &mut new);
    assert!(
        lines[0].starts_with("delta of the kernel from builds 2, 1: ") && lines[0].ends_with('%'),
        "{lines:?}"
    );
    assert!(lines[1].contains(": not tested with the updater of build 1: "), "{lines:?}");
    assert_eq!(kernel_deltas(&new), 1);
    new.artifacts[0].deltas.clear();
    let lines = world.add(vec![one], &mut new);
    assert!(
        lines[0].starts_with("delta of the kernel from build 1: not made: fetching"),
        "{lines:?}"
    );
    assert_eq!(kernel_deltas(&new), 0);
}

#[test]
fn a_delta_of_half_of_the_file_is_not_published() {
    let world = World::new();
    let (one, mut new) =
        (stored(world.directory.path(), "one", 1), stored(world.directory.path(), "new", 2));
    let kernel = &mut new.artifacts[0];
    // Digests do not compress.
    let bytes: String = (0..100_u8).map(|number| digest::of_bytes(&[number])).collect();
    fs::write(world.path(&kernel.url), &bytes).unwrap();
    kernel.size = bytes.len() as u64;
    kernel.sha256 = digest::of_bytes(bytes.as_bytes());
    let lines = world.add(vec![one], &mut new);
    assert!(lines[0].contains("expected fewer than 3200, half of the file"), "{lines:?}");
    assert!(lines[1].ends_with('%'), "{lines:?}");
    assert_eq!((kernel_deltas(&new), new.deltas().count(), world.made()), (0, 1, 1));
}

#[test]
fn releases_beyond_the_limit_are_reported() {
    let world = World::new();
    let mut new = stored(world.directory.path(), "new", 99);
    let one = stored(world.directory.path(), "one", 1);
    let lines = world.add(vec![one; RELEASES_MAX + 3], &mut new);
    assert!(lines[0].starts_with("no deltas from 3 older releases: "), "{lines:?}");
    assert_eq!(new.deltas().count(), 2);
}
