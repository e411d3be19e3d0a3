//! Images are pulled from a real registry, Debian's `docker-registry` on the loopback address, and pulls from one
//! that is slow, wrong, protected or absent fail with an error that says what to do.
//!
//! `DOCKER_HOST` names the container engine. Tests that lack something are skipped; with `CI=true`, they fail.

mod faulty;
mod image;
#[path = "../judge/mod.rs"]
mod judge;
mod logins;
mod proxy;
mod registry;
mod sandboxes;
mod tls;
mod tokens;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use builder::log_file::LogFile;
use builder::oci::{Logins, Pull, Reference};
use builder::progress::Bar;
use protocol::Arch;

use image::{Image, gzip, tar, zstd};
use registry::Registry;

/// An image that was pulled.
struct Pulled {
    directory: tempfile::TempDir,
    image: Reference,
    log: String,
}

impl Pulled {
    fn read(&self, name: &str) -> String {
        let path = self.directory.path().join("tree").join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// Pulls an image for amd64.
fn pull(image: &str, logins: Logins) -> Result<Pulled, String> {
    let directory = tempfile::tempdir().unwrap();
    let log_path = directory.path().join("log");
    let mut log = LogFile::create(&log_path, Bar::start("test")).unwrap();
    let pull =
        Pull::new(image.parse().unwrap(), logins).unwrap().with_stall(Duration::from_secs(2));
    let tree = directory.path().join("tree");
    let result = pull.unpack(Arch::Amd64, &tree, &mut log);
    let log = fs::read_to_string(&log_path).unwrap();
    match result {
        Ok(image) => Ok(Pulled { directory, image, log }),
        Err(error) => {
            let left: Vec<PathBuf> =
                directory.path().read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
            assert_eq!(left, [log_path], "a failed pull leaves files");
            Err(format!("{error:#}\nlog: {log}"))
        }
    }
}

fn anonymous() -> Logins {
    Logins::default()
}

/// Returns an image with two layers, of which the second one removes a file of the first.
fn sample() -> Image {
    let first = tar(&[("etc/a", b"1"), ("etc/gone", b"2"), ("usr/bin/tool", b"3")]);
    let second = tar(&[("etc/.wh.gone", b""), ("etc/b", b"4")]);
    Image::new("amd64", &[gzip(&first), zstd(&second)])
}

#[test]
fn pulls_by_tag_and_by_digest() {
    let Some(registry) = Registry::start() else { return };
    let image = sample();
    registry.push("library/test", "1.0", &image);
    let name = format!("{}/library/test", registry.host);
    let digest = image.digest();
    for (reference, expected) in [
        (format!("{name}:1.0"), format!("{name}:1.0@{digest}")),
        (format!("{name}@{digest}"), format!("{name}@{digest}")),
        // The digest counts if there are both.
        (format!("{name}:other@{digest}"), format!("{name}:other@{digest}")),
    ] {
        let pulled = pull(&reference, anonymous()).unwrap();
        assert_eq!(pulled.image.to_string(), expected);
        assert!(pulled.log.contains(&format!("pulled {expected}\n")), "{}", pulled.log);
        assert_eq!(
            ["etc/a", "etc/b", "usr/bin/tool"].map(|file| pulled.read(file)),
            ["1", "4", "3"]
        );
        let tree = pulled.directory.path().join("tree");
        assert!(!tree.join("etc/gone").exists() && tree.join("proc").is_dir());
    }
}

#[test]
fn chooses_the_architecture() {
    let Some(registry) = Registry::start() else { return };
    let of = |arch: &str| Image::new(arch, &[gzip(&tar(&[("etc/arch", arch.as_bytes())]))]);
    let (amd64, arm64) = (of("amd64"), of("arm64"));
    let both = Image::index(&[("arm64", &arm64), ("amd64", &amd64)]);
    registry.push("test", "both", &both);
    registry.push("test", "arm", &Image::index(&[("arm64", &arm64)]));
    let name = format!("{}/test", registry.host);

    let pulled = pull(&format!("{name}:both"), anonymous()).unwrap();
    assert_eq!(pulled.read("etc/arch"), "amd64");
    assert!(pulled.image.to_string().ends_with(&both.digest()), "the digest is that of the index");
    assert!(pulled.log.contains(&amd64.digest()), "{}", pulled.log);

    let error = pull(&format!("{name}:arm"), anonymous()).err().unwrap();
    assert!(error.contains("not for linux/amd64; it is for: linux/arm64"), "{error}");
    let error = pull(&format!("{name}@{}", arm64.digest()), anonymous()).err().unwrap();
    assert!(error.contains("on \"arm64\", expected linux on amd64"), "{error}");
}

#[test]
fn reports_what_the_registry_does_not_have() {
    let Some(registry) = Registry::start() else { return };
    registry.push("test", "1.0", &sample());
    let other = image::digest(b"other");
    for version in ["test:2.0".to_owned(), format!("test@{other}"), "missing:1.0".to_owned()] {
        let error = pull(&format!("{}/{version}", registry.host), anonymous()).err().unwrap();
        for text in [&registry.host, &version, "404", "check the reference"] {
            assert!(error.contains(text), "no {text:?} in: {error}");
        }
    }
}

#[test]
fn hostile_layers_do_not_leave_the_tree() {
    let Some(registry) = Registry::start() else { return };
    let mut layer = tar(&[("aa/evil", b"x")]);
    layer[..2].copy_from_slice(b"..");
    // The checksum of the header: the sum of all bytes, with blanks in its own place.
    layer[148..156].fill(b' ');
    let sum: u32 = layer[..512].iter().map(|byte| u32::from(*byte)).sum();
    layer[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    registry.push("test", "evil", &Image::new("amd64", &[gzip(&layer)]));
    let error = pull(&format!("{}/test:evil", registry.host), anonymous()).err().unwrap();
    assert!(
        error.contains("unpacking layer 1 of 1") && error.contains("contains \"..\""),
        "{error}"
    );
}
