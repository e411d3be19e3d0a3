//! Publications to directories.

mod deltas;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use protocol::{Artifact, Claims, PrivateKey, Release, Role, digest};

use super::bridge::bridge;
use super::renew::renew;
use super::withdraw::withdraw;
use super::*;
use crate::destination::Directory;
use crate::figures::Figures;
use crate::packaged::Packaged;
use crate::published;
use crate::signing::Keys;
use crate::tested::{Record, Tested};

/// Returns the text of a file of a release. Most of it is the same in all releases.
pub(super) fn text(content: &str, name: &str) -> String {
    let lines = (0..400).map(|line| format!("line {line} of {name}, {}\n", line * line));
    format!("{content} {name}\n{}", lines.collect::<String>())
}

/// Returns a release whose files contain `content`.
pub(super) fn release(content: &str) -> Release {
    let target: Target = "deb_amd64".parse().unwrap();
    let artifact = |role: Role| {
        let name = target.artifact_name(role);
        let text = text(content, &name);
        Artifact {
            role,
            size: text.len() as u64,
            sha256: digest::of_bytes(text.as_bytes()),
            url: name.clone(),
            name,
            deltas: Vec::new(),
        }
    };
    Release {
        schema: protocol::release::SCHEMA,
        variant: target.variant.clone(),
        arch: target.arch,
        version: format!("13.{content}"),
        build: 1,
        epoch: 1,
        kernel: "6".into(),
        recipe: "cd".repeat(32),
        artifacts: [Role::Kernel, Role::Initrd, Role::Disk].map(artifact).to_vec(),
        packages: Vec::new(),
        bootloader: Vec::new(),
        documents: Vec::new(),
        secure_boot: true,
        toolchain: BTreeMap::new(),
    }
}

/// Returns a new signing key.
pub(super) fn signing() -> Signing {
    let key = PrivateKey::generate().reveal();
    let directory = tempfile::tempdir().unwrap();
    Signing::load(Keys { key: Some(&key), ..Keys::default() }, directory.path()).unwrap()
}

/// Destinations in a temporary directory, and the key of the publisher.
struct World {
    directory: tempfile::TempDir,
    signing: Signing,
    sites: Vec<Site>,
    target: Target,
    deltas: usize,
    months: usize,
}

const WEEK: i64 = 7 * 24 * 3600;

/// Returns the time of a weekly publication.
fn week(number: i64) -> Timestamp {
    Timestamp::from_second(1_600_000_000 + number * WEEK).unwrap()
}

impl World {
    fn new(names: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let site = |name: &&str| Site {
            destination: Box::new(Directory::open(&directory.path().join(name)).unwrap()),
            public: None,
        };
        let sites = names.iter().map(site).collect();
        let target = "deb_amd64".parse().unwrap();
        Self { sites, directory, signing: signing(), target, deltas: 0, months: 0 }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn publisher<'a>(&'a self, signing: &'a Signing) -> Publisher<'a> {
        Publisher {
            target: &self.target,
            sites: &self.sites,
            signing,
            retention: Retention { releases: 2, months: self.months, after: Duration::ZERO },
            deltas: self.deltas,
            work: self.directory.path(),
            progress: &|_| {},
        }
    }

    /// Returns a release that was built: its files contain `content`.
    fn packaged(&self, content: &str) -> Packaged {
        let directory = self.path(&format!("built-{content}"));
        fs::create_dir_all(&directory).unwrap();
        let release = release(content);
        for artifact in &release.artifacts {
            let text = text(content, &artifact.name);
            fs::write(directory.join(&artifact.name), text).unwrap();
        }
        let template = Claims { iat: Some(0), exp: Some(30 * 24 * 3600), ..Claims::default() };
        let issued = issue(release, 1, &template, &self.signing, week(0)).unwrap();
        Packaged::write(&directory, &issued.text, &self.signing.ring().unwrap()).unwrap()
    }

    fn publish(&self, content: &str, at: Timestamp) -> Report {
        self.publish_tested(&Tested::untested(self.packaged(content)), at)
    }

    fn publish_tested(&self, tested: &Tested, at: Timestamp) -> Report {
        publish(&self.publisher(&self.signing), tested, at).unwrap()
    }

    /// Returns the release that hosts find, after a check of all its files.
    fn live(&self, site: usize) -> Release {
        let location = self.sites[site].location();
        let ring = self.signing.ring().unwrap();
        let live = published::live(location, &self.target, &ring).unwrap().unwrap();
        for file in live.release().all_files() {
            assert_eq!(published::problem(location, file).unwrap(), None, "{}", file.url);
        }
        live.release().clone()
    }

    fn content(&self, site: usize) -> String {
        let url = self.live(site).artifact(Role::Kernel).unwrap().url.clone();
        let root = self.sites[site].destination.describe();
        let text = fs::read_to_string(Path::new(&root).join(url)).unwrap();
        text.split(' ').next().unwrap().to_owned()
    }
}

#[test]
fn publishes_once_and_leaves_the_same_release_unchanged() {
    let world = World::new(&["cdn"]);
    let report = world.publish("a", week(0));
    assert!(matches!(report.outcome, Outcome::Published { differences: None, .. }), "{report:?}");
    assert_eq!(report.destinations[0].uploaded, 5, "three artifacts, notes and checksums");
    let first = world.live(0);
    let report = world.publish("a", week(1));
    assert_eq!(report.outcome, Outcome::Unchanged { build: first.build });
    assert_eq!(report.destinations[0].uploaded, 0);
    let report = world.publish("b", week(2));
    assert!(matches!(report.outcome, Outcome::Published { differences: Some(_), .. }));
    assert_eq!(world.content(0), "b");
    // Hosts that read the first manifest finish their download.
    for file in first.files() {
        assert_eq!(published::problem(world.sites[0].location(), file).unwrap(), None);
    }
}

/// Returns a release that was tested, and whose kernel took this time to boot.
fn tested(world: &World, content: &str, kernel: f64) -> Tested {
    let packaged = world.packaged(content);
    let figures = Figures::from_json(&crate::figures::tests::example(kernel)).unwrap();
    let record = Record { content: packaged.content(), updated_from: None, steps: 17, figures };
    Tested::passed(packaged, record).unwrap()
}

#[test]
fn a_manifest_has_the_figures_of_its_test_and_keeps_them() {
    let world = World::new(&["cdn"]);
    let figures = || {
        let ring = world.signing.ring().unwrap();
        let live = published::live(world.sites[0].location(), &world.target, &ring).unwrap();
        live.unwrap().manifest.claims.etchaos_figures.clone().unwrap()
    };
    world.publish_tested(&tested(&world, "a", 5.0), week(0));
    assert_eq!(figures(), crate::figures::tests::example(5.0));
    // Another test of the same files measures other figures. The release is the same.
    let again = tested(&world, "a", 6.0);
    let report = world.publish_tested(&again, week(1));
    assert!(matches!(report.outcome, Outcome::Unchanged { .. }), "{report:?}");
    let report = world.publish_tested(&again, week(3));
    assert!(matches!(report.outcome, Outcome::Renewed { .. }), "{report:?}");
    assert_eq!(figures(), crate::figures::tests::example(5.0));
    // The release notes compare the figures of the next release.
    world.publish_tested(&tested(&world, "b", 6.0), week(4));
    assert_eq!(figures(), crate::figures::tests::example(6.0));
    let notes = world.live(0).document("notes").unwrap().url.clone();
    let notes = fs::read_to_string(world.path("cdn").join(notes)).unwrap();
    assert!(notes.contains("| `boot uefi: kernel` | `5.0 s` | `6.0 s` | `× 1.20` |"), "{notes}");
}

#[test]
fn checksums_are_those_that_sha256sum_expects() {
    let world = World::new(&["cdn"]);
    world.publish("a", week(0));
    let url = world.live(0).document("checksums").unwrap().url.clone();
    let directory = world.path("cdn").join(url).parent().unwrap().to_owned();
    let arguments = ["-c", "cd \"$0\" && sha256sum --check --strict SHA256SUMS"];
    let output =
        crate::judge::judge("sh", &[&arguments[..], &[directory.to_str().unwrap()]].concat());
    assert_eq!(output.unwrap().matches(": OK").count(), 4);
}

#[test]
fn repairs_files_that_are_missing_or_damaged() {
    let world = World::new(&["cdn"]);
    world.publish("a", week(0));
    let release = world.live(0);
    let path = |role| world.path("cdn").join(&release.artifact(role).unwrap().url);
    fs::remove_file(path(Role::Kernel)).unwrap();
    fs::write(path(Role::Initrd), "damaged").unwrap();
    let report = world.publish("a", week(1));
    assert_eq!(report.outcome, Outcome::Unchanged { build: release.build });
    assert_eq!(report.destinations[0].uploaded, 1);
    assert_eq!(report.destinations[0].repaired.len(), 1, "{report:?}");
    assert_eq!(world.content(0), "a");
}

#[test]
fn publishes_anew_if_a_file_cannot_be_repaired() {
    let world = World::new(&["cdn"]);
    world.publish("a", week(0));
    let url = world.live(0).document("checksums").unwrap().url.clone();
    fs::remove_file(world.path("cdn").join(url)).unwrap();
    let report = world.publish("a", week(1));
    assert!(matches!(report.outcome, Outcome::Published { .. }), "{report:?}");
    world.live(0);
}

#[test]
fn renews_the_manifest_in_the_second_half_of_its_validity() {
    let world = World::new(&["cdn"]);
    world.publish("a", week(0));
    let first = world.live(0);
    let report = world.publish("a", week(3));
    assert!(matches!(report.outcome, Outcome::Renewed { .. }), "{report:?}");
    let second = world.live(0);
    assert!(second.build > first.build && second.artifacts == first.artifacts);
    let report = renew(&world.publisher(&world.signing), week(3)).unwrap();
    assert_eq!(report.outcome, Outcome::Renewed { build: second.build + 1 });
    assert_eq!(report.destinations[0].uploaded, 0);
}

#[test]
fn all_mirrors_get_the_same_manifest() {
    let world = World::new(&["one", "two"]);
    world.publish("a", week(0));
    assert_eq!(world.live(0), world.live(1));
    fs::remove_dir_all(world.path("two")).unwrap();
    fs::create_dir(world.path("two")).unwrap();
    let report = world.publish("a", week(1));
    assert!(matches!(report.outcome, Outcome::Renewed { .. }), "{report:?}");
    assert_eq!(report.destinations.iter().map(|site| site.uploaded).collect::<Vec<_>>(), [0, 5]);
    assert_eq!(world.live(0), world.live(1));
}

#[test]
fn an_error_of_one_mirror_does_not_stop_the_others() {
    let world = World::new(&["one", "two"]);
    world.publish("a", week(0));
    let lock = world.sites[0].destination.lock().unwrap();
    let report = world.publish("b", week(1));
    let error = report.check().unwrap_err().to_string();
    assert!(error.contains("1 of 2 destinations failed") && error.contains("another publisher"));
    assert_eq!((world.content(0), world.content(1)), ("a".into(), "b".into()));
    drop(lock);
    world.publish("b", week(1));
    assert_eq!(world.live(0), world.live(1));
}

#[test]
fn withdraws_to_the_release_before() {
    let world = World::new(&["cdn"]);
    let publisher = world.publisher(&world.signing);
    assert!(withdraw(&publisher, None, week(0)).is_err(), "nothing is published");
    world.publish("a", week(0));
    assert!(withdraw(&publisher, None, week(0)).is_err(), "there is no release before");
    world.publish("b", week(1));
    let bad = world.live(0);
    let report = withdraw(&publisher, None, week(1)).unwrap();
    assert!(matches!(report.outcome, Outcome::Published { .. }), "{report:?}");
    assert_eq!(report.destinations[0].uploaded, 0);
    assert!(world.live(0).build > bad.build);
    assert_eq!(world.content(0), "a");
    // A second withdrawal must not publish the bad release again.
    let error = withdraw(&publisher, None, week(1)).unwrap_err().to_string();
    assert!(error.contains("--build"), "{error}");
    withdraw(&publisher, Some(bad.build), week(1)).unwrap();
    assert_eq!(world.content(0), "b");
}

#[test]
fn bridges_a_release_with_an_older_key() {
    let mut world = World::new(&["cdn"]);
    world.publish("a", week(0));
    let old = PrivateKey::generate();
    let trusted = world.signing.trusted.iter().map(ToString::to_string).collect::<Vec<_>>();
    let reveal = old.reveal();
    let keys = Keys { key: Some(&reveal), trusted: &trusted, ..Keys::default() };
    let older = Signing::load(keys, world.directory.path()).unwrap();
    let from = Directory::open(&world.path("cdn")).unwrap();
    world.sites[0].destination = Box::new(Directory::open(&world.path("cdn/bridge/1")).unwrap());
    bridge(&world.publisher(&older), &from, None, week(1)).unwrap();
    let ring = old.public().clone().into();
    let location = world.sites[0].location();
    let live = published::live(location, &world.target, &ring).unwrap().unwrap();
    assert_eq!(live.manifest.key_id(), old.id());
    for file in live.release().files() {
        assert_eq!(published::problem(location, file).unwrap(), None, "{}", file.url);
    }
}

#[test]
fn keeps_the_number_of_releases_and_removes_interrupted_uploads() {
    let world = World::new(&["cdn"]);
    let interrupted = world.path("cdn/deb_amd64/13.x-0000/etchaos_deb_amd64.initrd");
    fs::create_dir_all(interrupted.parent().unwrap()).unwrap();
    fs::write(&interrupted, "x").unwrap();
    for (number, content) in ["a", "b", "c"].into_iter().enumerate() {
        world.publish(content, week(i64::try_from(number).unwrap()));
    }
    let listed = world.sites[0].destination.list("").unwrap();
    let has = |part: &str| listed.iter().any(|file| file.path.contains(part));
    assert!(!has("13.a") && has("13.b") && has("13.c"), "{listed:?}");
    assert!(interrupted.exists(), "another publisher could be uploading it");
    let old = std::time::SystemTime::now() - Duration::from_secs(2 * 24 * 3600);
    fs::File::options().write(true).open(&interrupted).unwrap().set_modified(old).unwrap();
    world.publish("c", week(2));
    assert!(!interrupted.exists());
}

#[test]
fn second_publisher_with_the_same_build_number_is_refused() {
    let world = World::new(&["cdn"]);
    world.publish("a", week(0));
    let ring = world.signing.ring().unwrap();
    // Both have read the same manifest, as two publishers of an S3 bucket can.
    let first = world.sites[0].open(&world.target, &ring).unwrap();
    let live = first.live.clone();
    drop(first);
    world.publish("b", week(1));
    let mut second = world.sites[0].open(&world.target, &ring).unwrap();
    second.live = live;
    let mut release = release("c");
    layout::assign_urls(&mut release);
    let packaged = world.packaged("c");
    let files = Files::in_directory(&packaged.directory, &release).unwrap();
    let issue =
        |build| issue(release.clone(), build, packaged.claims(), &world.signing, week(1)).unwrap();
    for build in [world.live(0).build, 2_099_010_101] {
        let error = second.put(&issue(build), &files, &|_| {}).unwrap_err();
        assert!(error.is::<crate::destination::Conflict>(), "{build}: {error:#}");
    }
    assert_eq!(world.content(0), "b");
}

#[test]
fn history_with_another_build_is_not_published_again() {
    let world = World::new(&["cdn"]);
    world.publish("a", week(0));
    world.publish("b", week(1));
    let second = world.live(0).build;
    world.publish("c", week(2));
    let third = world.live(0).build;
    let path = |build| world.path("cdn").join(layout::history_path(&world.target, build));
    fs::copy(path(third), path(second)).unwrap();
    let publisher = world.publisher(&world.signing);
    let error = withdraw(&publisher, Some(second), week(1)).unwrap_err().to_string();
    assert!(error.contains("expected"), "{error}");
}

#[test]
fn forged_history_does_not_remove_the_live_release() {
    let world = World::new(&["cdn"]);
    world.publish("a", week(0));
    let forger = signing();
    for (build, content) in [(2_099_010_101, "x"), (2_099_010_102, "y"), (2_099_010_103, "z")] {
        let mut release = release(content);
        layout::assign_urls(&mut release);
        let claims = world.packaged(content).claims().clone();
        let forged = issue(release, build, &claims, &forger, week(0)).unwrap();
        let path = world.path("cdn").join(layout::history_path(&world.target, build));
        fs::write(path, forged.text).unwrap();
    }
    world.publish("b", week(1));
    assert_eq!(world.content(0), "b");
}
