//! Deltas between real SquashFS images.

use std::fs;
use std::path::Path;
use std::time::Instant;

use protocol::delta::DELTA_MAX;

use super::{BlockCounts, MadeDelta, NewFile, accepted, file_of_initrd, plan};
use crate::judge::judge;

/// Makes a delta and applies it.
fn make(old: &[u8], new: &[u8]) -> anyhow::Result<MadeDelta> {
    let made = MadeDelta::between(old, &NewFile::of(new)?)?;
    made.check(old, new)?;
    Ok(made)
}

/// Returns text that compresses as programs do.
fn text(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::new();
    while bytes.len() < length {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.extend_from_slice(&state.to_le_bytes()[2..]);
        bytes.extend_from_slice(b" the same\n");
    }
    bytes
}

/// Returns an archive that contains a SquashFS of a directory, or `None` if mksquashfs is not installed.
fn image(directory: &Path, name: &str, options: &[&str]) -> Option<Vec<u8>> {
    let (tree, to) = (directory.join(name), directory.join(format!("{name}.squashfs")));
    let fixed = ["-comp", "zstd", "-noappend", "-quiet", "-no-progress", "-no-exports"];
    let paths = [tree.to_str().unwrap(), to.to_str().unwrap()];
    judge("mksquashfs", &[&paths[..], &fixed[..], options].concat())?;
    let mut bytes = b"070701 the early files of the initrd".to_vec();
    bytes.extend(fs::read(to).unwrap());
    bytes.extend(b"the end of the archive");
    Some(bytes)
}

/// Returns whether mksquashfs compresses as this library does.
fn has_same_zstd(directory: &Path, options: &[&str]) -> bool {
    let Some(bytes) = image(directory, "new", options) else { return false };
    let new = NewFile::of(&bytes).unwrap();
    let block = new.image.blocks.iter().position(|block| block.is_frame).unwrap();
    new.is_reproduced(block).unwrap()
}

/// Writes two trees, which differ as two releases do.
fn trees(directory: &Path) {
    for (name, kernel) in [("old", "6.12.9"), ("new", "6.12.10")] {
        let root = directory.join(name);
        let modules = root.join("lib/modules").join(kernel);
        fs::create_dir_all(&modules).unwrap();
        for index in 0..40 {
            let mut module = text(index, 20_000 + 1000 * index as usize);
            if name == "new" {
                for at in (100..module.len()).step_by(997) {
                    module[at] = module[at].wrapping_add(16);
                }
            }
            fs::write(modules.join(format!("{index}.ko")), module).unwrap();
        }
        fs::write(root.join("large"), text(77, 3_000_000)).unwrap();
        fs::write(root.join("copy"), text(77, 3_000_000)).unwrap();
        fs::write(root.join("zeros"), vec![0; 1_000_000]).unwrap();
        fs::write(root.join("empty"), "").unwrap();
        std::os::unix::fs::symlink("large", root.join("link")).unwrap();
        fs::hard_link(root.join("zeros"), root.join("linked")).unwrap();
        if name == "new" {
            fs::write(root.join("added"), text(78, 5000)).unwrap();
            let long = "a-long-name-".repeat(10);
            for index in 0..300 {
                fs::write(root.join(format!("{long}{index}")), long.repeat(index)).unwrap();
            }
        }
    }
}

#[test]
fn delta_between_images_is_small_and_gives_the_new_one() {
    let directory = tempfile::tempdir().unwrap();
    trees(directory.path());
    let options: [&[&str]; 3] =
        [&["-b", "256K", "-Xcompression-level", "9"], &["-b", "128K"], &["-no-fragments"]];
    for options in options {
        let Some(old) = image(directory.path(), "old", options) else { return };
        let Some(new) = image(directory.path(), "new", options) else { return };
        for (old, new) in [(&old, &new), (&new, &old)] {
            let made = make(old, new).unwrap();
            let (size, memory) = (made.bytes.len(), made.memory);
            // Another version of zstd than that of this library made the image.
            let max =
                if has_same_zstd(directory.path(), options) { new.len() / 10 } else { new.len() };
            assert!(size < max, "{size} of {} with {options:?}", new.len());
            assert!(memory < 64 << 20, "{memory}");
        }
        let module = file_of_initrd(&new, "/lib/modules/6.12.10/7.ko").unwrap().unwrap();
        let expected = directory.path().join("new/lib/modules/6.12.10/7.ko");
        assert!(module == fs::read(expected).unwrap());
        assert_eq!(file_of_initrd(&new, "/lib").unwrap(), None);
    }
}

#[test]
fn delta_between_other_files_gives_the_new_one() {
    let (old, mut new) = (text(1, 700_000), text(1, 700_000));
    new[300_000] ^= 1;
    new.extend_from_slice(b"more");
    let made = make(&old, &new).unwrap();
    assert!(made.bytes.len() < 200, "{}", made.bytes.len());
    for (old, new) in [(&b""[..], &new[..]), (&old, b"new")] {
        make(old, new).unwrap();
    }
}

/// If blocks were compressed by a program that gives other bytes than this library, the delta is only larger.
#[test]
fn blocks_that_are_not_reproduced_are_literal() {
    let directory = tempfile::tempdir().unwrap();
    trees(directory.path());
    let level = |level: &'static str| {
        image(directory.path(), "new", &["-b", "256K", "-Xcompression-level", level])
    };
    let (Some(old), Some(mut new)) = (level("9"), level("19")) else { return };
    // The file system says another level than that of its blocks.
    let options = super::squashfs::find(&new).unwrap() + 98;
    assert_eq!(new[options], 19);
    new[options] = 3;
    make(&old, &new).unwrap();
}

#[test]
fn a_delta_that_takes_too_long_is_not_made() {
    let (old, new) = (text(1, 1000), text(2, 1000));
    let new = NewFile::of(&new).unwrap();
    let error = plan::delta(&old, &new, Instant::now()).unwrap_err().to_string();
    assert!(error.contains("too long"), "{error}");
}

#[test]
fn a_delta_that_is_too_large_for_hosts_is_not_made() {
    let size = usize::try_from(DELTA_MAX).unwrap();
    assert!(accepted(vec![0; size]).is_ok());
    let error = accepted(vec![0; size + 1]).unwrap_err().to_string();
    assert!(error.contains("hosts accept at most 25165824"), "{error}");
}

#[test]
fn counts_blocks_that_are_not_reproduced() {
    let directory = tempfile::tempdir().unwrap();
    trees(directory.path());
    let options = ["-b", "256K", "-Xcompression-level", "9"];
    let Some(mut new) = image(directory.path(), "new", &options) else { return };
    if !has_same_zstd(directory.path(), &options) {
        return;
    }
    let frames = |bytes: &[u8]| {
        let file = NewFile::of(bytes).unwrap();
        assert_eq!(file.block_counts(), BlockCounts::default());
        file.compress_all().unwrap();
        file.block_counts()
    };
    let right = frames(&new);
    assert!(right.compressed > 20 && right.not_reproduced < right.compressed / 2, "{right:?}");
    // The file system says another level than that of its blocks.
    let level = super::squashfs::find(&new).unwrap() + 98;
    new[level] = 3;
    let wrong = frames(&new);
    assert_eq!(wrong.compressed, right.compressed);
    assert!(wrong.not_reproduced > right.compressed / 2, "{wrong:?}");
}
