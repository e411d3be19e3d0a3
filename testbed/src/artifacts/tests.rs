//! Tests of the verification of releases, and releases for other tests.

use super::*;
use protocol::PrivateKey;
use protocol::release::{Artifact, DeltaFile, Document};

/// Returns a directory with a valid release that `change` modifies, and the key that signed it.
pub(crate) fn signed_release(change: impl FnOnce(&mut Release)) -> (tempfile::TempDir, PrivateKey) {
    signed_release_of(&"deb_amd64".parse().unwrap(), change)
}

fn signed_release_of(
    target: &Target,
    change: impl FnOnce(&mut Release),
) -> (tempfile::TempDir, PrivateKey) {
    let dir = tempfile::tempdir().unwrap();
    let artifact = |role: Role| {
        let path = dir.path().join(target.artifact_name(role));
        fs::write(&path, format!("this is the {role}")).unwrap();
        Artifact {
            role,
            name: target.artifact_name(role),
            size: fs::metadata(&path).unwrap().len(),
            sha256: measure(&path).unwrap().1,
            url: format!("7/{}", target.artifact_name(role)),
            deltas: Vec::new(),
        }
    };
    let mut release = Release {
        schema: protocol::release::SCHEMA,
        variant: target.variant.clone(),
        arch: target.arch,
        version: "1".into(),
        build: 1,
        epoch: 1,
        kernel: "6".into(),
        recipe: "cd".repeat(32),
        artifacts: [Role::Kernel, Role::Initrd, Role::Disk].map(artifact).to_vec(),
        packages: Vec::new(),
        bootloader: Vec::new(),
        documents: Vec::new(),
        secure_boot: true,
        toolchain: std::collections::BTreeMap::new(),
    };
    change(&mut release);
    let key = PrivateKey::generate();
    let claims = Claims { etchaos_release: Some(release), ..Claims::default() };
    let token = token::sign(&key, &claims).unwrap();
    fs::write(dir.path().join(target.manifest_name()), token).unwrap();
    (dir, key)
}

fn check(release: &(tempfile::TempDir, PrivateKey)) -> Result<Artifacts, String> {
    check_for(release, SectorSize::B512)
}

fn check_for(
    (dir, key): &(tempfile::TempDir, PrivateKey),
    sector_size: SectorSize,
) -> Result<Artifacts, String> {
    let (target, keys) = ("deb_amd64".parse().unwrap(), key.public().clone().into());
    verify(dir.path(), &target, &keys, sector_size).map_err(|error| error.to_string())
}

/// Verifies the release of [`signed_release`].
pub(crate) fn verified(release: &(tempfile::TempDir, PrivateKey)) -> Artifacts {
    check(release).unwrap()
}

#[test]
fn serves_artifacts_at_the_urls_of_the_manifest() {
    let artifacts = check(&signed_release(|_| {})).unwrap();
    let paths: Vec<&str> = artifacts.served.iter().map(|s| s.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "etchaos_deb_amd64.jwt",
            "7/etchaos_deb_amd64.vmlinuz",
            "7/etchaos_deb_amd64.initrd",
            "7/etchaos_deb_amd64.raw.zst"
        ]
    );
    assert!(artifacts.disk.ends_with("etchaos_deb_amd64.raw.zst"));
    assert!(artifacts.kernel.ends_with("etchaos_deb_amd64.vmlinuz"));
}

#[test]
fn serves_the_deltas_that_are_there() {
    let release = signed_release(|release| {
        release.artifacts[1].deltas = vec![DeltaFile {
            from: "ab".repeat(32),
            format: "x".into(),
            name: "the.delta".into(),
            size: 5,
            sha256: digest::of_bytes(b"delta"),
            url: "7/the.delta".into(),
            memory: 1,
        }];
    });
    let is_served =
        |artifacts: Artifacts| artifacts.served.iter().any(|it| it.path == "7/the.delta");
    assert!(!is_served(check(&release).unwrap()));
    let path = release.0.path().join("the.delta");
    fs::write(&path, "delta").unwrap();
    assert!(is_served(check(&release).unwrap()));
    fs::write(&path, "other").unwrap();
    assert!(check(&release).unwrap_err().contains("does not match"));
}

#[test]
fn names_the_problem_of_an_invalid_release() {
    let untrusted = (signed_release(|_| {}).0, PrivateKey::generate());
    assert!(check(&untrusted).unwrap_err().contains("not trusted here"));
    let other = signed_release(|r| r.variant = "ubu".parse().unwrap());
    assert!(check(&other).unwrap_err().contains("is for ubu_amd64, not for deb_amd64"));
    let elsewhere = signed_release(|r| r.artifacts[1].url = "http://elsewhere/x".into());
    assert!(check(&elsewhere).unwrap_err().contains("refuse to download the initrd"));
    let no_disk = signed_release(|r| r.artifacts.truncate(2));
    assert!(check(&no_disk).unwrap_err().contains("has no disk"));

    let changed = signed_release(|_| {});
    fs::write(changed.0.path().join("etchaos_deb_amd64.initrd"), "that is the initrd").unwrap();
    assert!(check(&changed).unwrap_err().contains("SHA-256"));
    fs::write(changed.0.path().join("etchaos_deb_amd64.initrd"), "short").unwrap();
    assert!(check(&changed).unwrap_err().contains("found 5 bytes"));
    fs::remove_file(changed.0.path().join("etchaos_deb_amd64.initrd")).unwrap();
    assert!(check(&changed).unwrap_err().contains("No such file"));
}

#[test]
fn boots_the_disk_image_for_the_sectors_of_the_machine() {
    let without = signed_release(|_| {});
    let error = check_for(&without, SectorSize::B4096).unwrap_err();
    assert!(error.contains("no disk image for sectors of 4096 bytes"), "{error}");

    let name = "etchaos_deb_amd64.4k.raw.zst";
    let with = signed_release(|release| {
        let Artifact { size, sha256, .. } = release.artifacts[0].clone();
        let kind = kind::DISK_4K.to_owned();
        let (name, url) = (name.to_owned(), format!("7/{name}"));
        release.documents.push(Document { kind, name, size, sha256, url });
    });
    let path = with.0.path().join(name);
    let kernel = with.0.path().join("etchaos_deb_amd64.vmlinuz");
    fs::copy(&kernel, &path).unwrap();
    assert_eq!(check_for(&with, SectorSize::B4096).unwrap().disk, path);
    assert_ne!(check(&with).unwrap().disk, path);
    let (target, keys) = ("deb_amd64".parse().unwrap(), with.1.public().clone().into());
    let previous = verify_previous(with.0.path(), &target, &keys, SectorSize::B4096);
    assert_eq!(previous.unwrap().disk, path);
    fs::write(&path, "changed").unwrap();
    assert!(check_for(&with, SectorSize::B4096).unwrap_err().contains("does not match"));
    // A release is complete without it.
    check(&with).unwrap();
}

#[test]
fn verifies_releases_of_both_architectures() {
    for name in ["deb_amd64", "deb_arm64"] {
        let target: Target = name.parse().unwrap();
        let (dir, key) = signed_release_of(&target, |_| {});
        let keys = key.public().clone().into();
        let artifacts = verify(dir.path(), &target, &keys, SectorSize::B512).unwrap();
        assert_eq!(artifacts.release.target(), target);
        assert_eq!(artifacts.served[1].path, format!("7/etchaos_{name}.vmlinuz"));
    }
    // The files of one architecture under the names of the other.
    let (dir, key) = signed_release(|_| {});
    let arm: Target = "deb_arm64".parse().unwrap();
    let amd = dir.path().join("etchaos_deb_amd64.jwt");
    fs::rename(amd, dir.path().join(arm.manifest_name())).unwrap();
    let keys = key.public().clone().into();
    let error = verify(dir.path(), &arm, &keys, SectorSize::B512).unwrap_err();
    assert!(error.to_string().contains("is for deb_amd64, not for deb_arm64"), "{error}");
}
