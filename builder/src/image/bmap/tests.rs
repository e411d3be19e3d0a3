use super::*;
use crate::image::compress;
use crate::judge::judge;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// There is something before and after the ESP, as in a disk image.
const START: u64 = 2 << 20;
const TAIL: u64 = 1 << 20;
/// A FAT with clusters of one sector is a FAT32 only if it has at least 65,525 sectors for data.
const ESP_SECTORS: u64 = 80 << 10;
/// The sizes of the ESP and of the image for sectors of 512 bytes.
const ESP: u64 = esp_size(512);
const SIZE: u64 = START + ESP + TAIL;

#[test]
fn maps_everything_but_blocks_that_are_wholly_free() {
    let free = [4096..4097, 8191..16385, 20000..24000, 40960..49152];
    assert_eq!(mapped(12, &free), [0..2, 4..10]);
    assert_eq!(mapped(13, &free), [0..2, 4..10, 12..13]);
    assert_eq!(mapped(3, &[]), vec![Range { start: 0, end: 3 }]);
    assert_eq!(mapped(3, &[0..4096, 4096..12288]), []);
}

/// Returns the size of the ESP in bytes on a disk with this sector size.
const fn esp_size(sector_size: u64) -> u64 {
    ESP_SECTORS * sector_size
}

/// Writes a disk image whose ESP has a file of zeros, a file of noise and a deleted file.
fn image(directory: &Path) -> Option<PathBuf> {
    image_for(directory, 512)
}

/// Writes such a disk image for disks with sectors of this size.
fn image_for(directory: &Path, sector_size: u64) -> Option<PathBuf> {
    let esp = directory.join("esp.img");
    let length = esp_size(sector_size);
    File::create(&esp).unwrap().set_len(length).unwrap();
    // Clusters of one sector: a block has parts of several files if sectors are smaller than blocks.
    let (esp_name, size) = (esp.to_str().unwrap(), sector_size.to_string());
    judge("mkfs.vfat", &["-F", "32", "-S", &size, "-s", "1", "--invariant", esp_name])?;
    fs::write(directory.join("zeros"), vec![0; 3_000_001]).unwrap();
    fs::write(directory.join("noise"), noise(5_000_003)).unwrap();
    for name in ["deleted", "zeros", "noise"] {
        let from = directory.join(if name == "deleted" { "noise" } else { name });
        judge("mcopy", &["-i", esp_name, from.to_str().unwrap(), &format!("::{name}")])?;
    }
    judge("mdel", &["-i", esp_name, "::deleted"])?;
    let disk = directory.join("disk.raw");
    let file = File::create(&disk).unwrap();
    file.set_len(START + length + TAIL).unwrap();
    file.write_all_at(&noise(700_000), 0).unwrap();
    file.write_all_at(&fs::read(&esp).unwrap(), START).unwrap();
    file.write_all_at(&noise(512), START + length + TAIL - 512).unwrap();
    Some(disk)
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Copies an image over garbage with `bmaptool`, and returns the result.
fn copy_over_garbage(directory: &Path, disk: &Path, map: &Path) -> Option<PathBuf> {
    let target = directory.join("target");
    let length = fs::metadata(disk).unwrap().len();
    fs::write(&target, vec![0xa5; usize::try_from(length).unwrap()]).unwrap();
    let [map, disk, to] = [map, disk, &target].map(|path| path.to_str().unwrap());
    judge("bmaptool", &["copy", "--bmap", map, disk, to])?;
    Some(target)
}

#[test]
fn bmaptool_writes_a_valid_file_system_over_garbage() {
    for sector_size in [512, 4096] {
        let directory = tempfile::tempdir().unwrap();
        let Some(disk) = image_for(directory.path(), sector_size) else { return };
        let map = directory.path().join("disk.bmap");
        let end = START + esp_size(sector_size);
        let count = write(&disk, START..end, &map).unwrap();
        // 8 MB of files, 3 MiB around the ESP, and 0.6 MiB of FATs.
        let total = (end + TAIL) / BLOCK;
        assert!((2600..3200).contains(&count.mapped) && count.total == total, "{count:?}");
        let packed = directory.path().join("disk.raw.zst");
        compress::write(&disk, &packed).unwrap();
        for source in [&disk, &packed] {
            let Some(target) = copy_over_garbage(directory.path(), source, &map) else { return };
            check_copy(directory.path(), &disk, &target);
        }
    }
}

/// Checks that the ESP of a copied disk is valid and complete, and that the rest is the same.
fn check_copy(directory: &Path, disk: &Path, target: &Path) {
    let (image, target) = (fs::read(disk).unwrap(), fs::read(target).unwrap());
    let tail = usize::try_from(TAIL).unwrap();
    let (start, end) = (usize::try_from(START).unwrap(), image.len() - tail);
    assert!(image[..start] == target[..start], "the start of the disk differs");
    assert!(image[end..] == target[end..], "the end of the disk differs");
    let esp = directory.join("copied.img");
    fs::write(&esp, &target[start..end]).unwrap();
    let esp_name = esp.to_str().unwrap();
    judge("fsck.vfat", &["-n", esp_name]);
    for name in ["zeros", "noise"] {
        let copy = directory.join(format!("{name}.copy"));
        judge("mcopy", &["-n", "-i", esp_name, &format!("::{name}"), copy.to_str().unwrap()]);
        assert!(fs::read(copy).unwrap() == fs::read(directory.join(name)).unwrap(), "{name}");
    }
}

#[test]
fn bmaptool_rejects_a_changed_map_and_a_changed_image() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = image(directory.path()) else { return };
    let map = directory.path().join("disk.bmap");
    write(&disk, START..START + ESP, &map).unwrap();
    if judge("bmaptool", &["--version"]).is_none() {
        return;
    }
    let copy = |disk: &Path, map: &Path| {
        let target = directory.path().join("rejected");
        std::process::Command::new("bmaptool")
            .args(["copy", "--bmap"])
            .args([map, disk, &target])
            .output()
            .unwrap()
    };
    assert!(copy(&disk, &map).status.success());

    let changed_map = directory.path().join("changed.bmap");
    fs::write(&changed_map, fs::read_to_string(&map).unwrap() + "\n").unwrap();
    let output = copy(&disk, &changed_map);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("checksum"), "{error}");

    File::options().write(true).open(&disk).unwrap().write_all_at(b"x", 5000).unwrap();
    let output = copy(&disk, &map);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("checksum"), "{error}");
}

#[test]
fn same_disk_gives_same_map() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = image(directory.path()) else { return };
    let map = |name: &str| {
        let to = directory.path().join(name);
        write(&disk, START..START + ESP, &to).unwrap();
        fs::read_to_string(to).unwrap()
    };
    assert_eq!(map("a"), map("b"));
}

#[test]
fn rejects_disk_without_a_file_system() {
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk.raw");
    File::create(&disk).unwrap().set_len(SIZE).unwrap();
    assert!(write(&disk, START..START + ESP, &directory.path().join("map")).is_err());
}
