//! Tests of lists of files, with a real release where one is given.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::*;
use crate::judge::skip;
use crate::log_file::LogFile;
use crate::progress::Bar;

fn log(directory: &Path) -> LogFile {
    LogFile::create(&directory.join("log"), Bar::start("test")).unwrap()
}

/// Returns the directory of a build with its work directory.
fn artifacts() -> Option<PathBuf> {
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

#[test]
fn trees_and_published_files_give_the_same_list() {
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
    let (initrd, disk) = (path("initrd"), path("raw"));
    let start = Instant::now();
    let published = of_artifacts(&initrd, Some(&disk), &mut log(temporary.path())).unwrap();
    println!("read from the published files in {:.2?}", start.elapsed());
    for (built, published) in built.entries.iter().zip(&published.entries) {
        assert_eq!(built, published);
    }
    assert_eq!(built.entries.len(), published.entries.len());
}
