//! Tests with the files of small releases, and of a real one where one is given.

use std::fs;

use protocol::Artifact;

use super::super::Diff;
use super::super::command::Format;
use super::super::load::Loaded;
use super::super::tests::release;
use super::*;
use crate::contents::tests::{Small, archive_with, artifacts, log};
use crate::judge::judge;

/// Returns a release with the initrd in a directory.
fn with_initrd(directory: &Path) -> Release {
    let mut release = release("");
    for artifact in &mut release.artifacts {
        let path = directory.join(&artifact.name);
        if artifact.role == Role::Kernel {
            fs::write(&path, "kernel").unwrap();
        }
        artifact.size = fs::metadata(path).unwrap().len();
    }
    release
}

fn explained(old: &Path, new: &Path) -> Vec<Finding> {
    let releases = (with_initrd(old), with_initrd(new));
    let temporary = tempfile::tempdir().unwrap();
    explain(
        ReleaseFiles { release: &releases.0, directory: old },
        ReleaseFiles { release: &releases.1, directory: new },
        &mut log(temporary.path()),
    )
    .unwrap()
}

#[test]
fn explain_names_the_files_inside_that_differ() {
    let (Some(old), Some(new)) = (Small::new(), Small::new()) else { return };
    new.write("root/usr/bin/tool", "another tool");
    new.write("root/etc/new", "new\n");
    new.package().unwrap();
    let findings = explained(&old.path(""), &new.path(""));
    assert_eq!((&*findings[0].file, &findings[0].verdict), ("kernel", &Verdict::Equal));
    let text = findings[1].to_string();
    for expected in [
        "initrd: different from offset ",
        "\n  +  /etc/new  4 bytes",
        "\n  ~  /usr/bin/tool  content, 4 → 12 bytes",
    ] {
        assert!(text.contains(expected), "no {expected:?} in {text}");
    }
    assert!(!text.contains("/etc/hosts"), "{text}");
    fs::remove_file(new.path("vmlinuz")).unwrap();
}

#[test]
fn explain_names_the_archive_member_if_all_files_are_equal() {
    let Some(small) = Small::new() else { return };
    // Both initrds get the same SquashFS: mksquashfs records the time at which it runs.
    let initrd = fs::read(small.path("initrd")).unwrap();
    let directory = |name: &str, mtime| {
        let directory = small.path(name);
        fs::create_dir(&directory).unwrap();
        let archive = archive_with("sysroot/etc/late", mtime, b"late\n");
        fs::write(directory.join("initrd"), [initrd.clone(), vec![0; 4], archive].concat())
            .unwrap();
        directory
    };
    let text = explained(&directory("old", 1), &directory("new", 2))[1].to_string();
    assert!(text.contains("first difference is in the header of sysroot/etc/late\n"), "{text}");
    assert!(text.contains("all files inside are equal"), "{text}");
}

#[test]
fn explain_reports_missing_files() {
    let Some(small) = Small::new() else { return };
    let release = with_initrd(&small.path(""));
    let nowhere = tempfile::tempdir().unwrap();
    let findings = explain(
        ReleaseFiles { release: &release, directory: &small.path("") },
        ReleaseFiles { release: &release, directory: nowhere.path() },
        &mut log(&small.path("")),
    )
    .unwrap();
    assert!(findings.iter().all(|finding| matches!(finding.verdict, Verdict::Missing { .. })));
    assert!(findings[0].to_string().contains("does not exist"));
}

#[test]
fn explain_names_the_files_of_a_real_release_that_differ() {
    let Some(directory) = artifacts() else { return };
    let changed = tempfile::tempdir().unwrap();
    let path = |name: &str| changed.path().join(format!("etchaos_deb_amd64.{name}"));
    let from = |name: &str| directory.join(format!("etchaos_deb_amd64.{name}"));
    let mut release = release("");
    for name in ["vmlinuz", "initrd", "raw"] {
        let (from, to) = (from(name), path(name));
        let arguments = ["--sparse=always", from.to_str().unwrap(), to.to_str().unwrap()];
        if judge("cp", &arguments).is_none() {
            return;
        }
    }
    for role in [Role::Kernel, Role::Initrd, Role::Disk] {
        let name = role.extension();
        release.artifacts.retain(|artifact| artifact.role != role);
        let name = format!("etchaos_deb_amd64.{name}");
        let (sha256, size) = ("ab".repeat(32), 1);
        release.artifacts.push(Artifact {
            role,
            url: name.clone(),
            name,
            size,
            sha256,
            deltas: Vec::new(),
        });
    }
    let initrd = fs::read(path("initrd")).unwrap();
    let archive = archive_with("sysroot/etc/motd", 0, b"hello\n");
    fs::write(path("initrd"), [initrd, vec![0; 4], archive].concat()).unwrap();
    let cfg = changed.path().join("grub.cfg");
    fs::write(&cfg, "set timeout=1\n").unwrap();
    let image = format!("{}@@2M", path("raw").display());
    let arguments = ["-o", "-i", &image, cfg.to_str().unwrap(), "::/etchaos/grub.cfg"];
    if judge("mcopy", &arguments).is_none() {
        return;
    }
    crate::image::compress::write(&path("raw"), &path("raw.zst")).unwrap();
    let findings = explain(
        ReleaseFiles { release: &release, directory: &directory },
        ReleaseFiles { release: &release, directory: changed.path() },
        &mut log(changed.path()),
    )
    .unwrap();
    let text: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    println!("{text}");
    assert!(text.contains("kernel: equal\n"), "{text}");
    assert!(text.contains("/etc/motd"), "{text}");
    assert!(text.contains("disk: different"), "{text}");
    assert!(text.contains("in the EFI system partition"), "{text}");
    assert!(text.contains("~  esp:/etchaos/grub.cfg  content, "), "{text}");

    let list = |initrd: &Path| contents::of_initrd(initrd, &mut log(changed.path())).unwrap();
    let (old, new) = (list(&from("initrd")), list(&path("initrd")));
    let loaded =
        |contents| Loaded { release: release.clone(), contents: Some(contents), figures: None };
    let text = Diff::between(&loaded(old), &loaded(new)).render(Format::Text).unwrap();
    println!("{text}");
    assert!(text.contains("+  /etc/motd  6 bytes"), "{text}");
    assert!(text.contains("added /etc/motd\n    @@ -0,0 +1 @@\n    +hello\n"), "{text}");
}
