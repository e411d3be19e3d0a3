//! Registries that are slow, wrong or absent.

use std::time::{Duration, Instant};

use crate::image::{Image, gzip, noise, tar};
use crate::proxy::{Fault, Proxy};
use crate::registry::{Registry, free_address};
use crate::{anonymous, pull, sample};

/// The size of the file in the layer of [`large`], in bytes.
const SIZE: usize = 300_000;

/// Returns an image whose layer takes several reads.
fn large() -> Image {
    Image::new("amd64", &[gzip(&tar(&[("etc/large", &noise(SIZE))]))])
}

/// Pulls through a server with a fault, and checks that the error has these texts.
fn fails(registry: &Registry, version: &str, path: &str, fault: Fault, texts: &[&str]) {
    let proxy = Proxy::start(&registry.host, path, fault.clone());
    let started = Instant::now();
    let error = pull(&format!("{}/test{version}", proxy.host), anonymous()).err();
    let error = error.unwrap_or_else(|| panic!("{fault:?} for {path} is not noticed"));
    assert!(started.elapsed() < Duration::from_secs(30), "{fault:?} takes too long");
    for text in [&["pulling the image ", &proxy.host], texts].concat() {
        assert!(error.contains(text), "{fault:?} for {path}: no {text:?} in: {error}");
    }
}

#[test]
fn wrong_answers_are_noticed() {
    let Some(registry) = Registry::start() else { return };
    let (image, other) = (large(), sample());
    let index = Image::index(&[("amd64", &image)]);
    registry.push("test", "1", &image);
    registry.push("test", "index", &index);
    let layer = image.layer(0);
    let (tag, by_digest) = (":1", format!("@{}", image.digest()));
    let (blob, config) =
        (format!("blobs/{layer}"), format!("blobs/{}", crate::image::digest(&image.blobs[0])));
    let replaced = || Fault::Replace(other.manifest.clone());
    let expected_layer = format!("expected {layer}");
    let size = image.blobs[1].len();
    let total = format!("of {size} bytes");

    // What a digest names can be nothing else.
    fails(
        &registry,
        &by_digest,
        "manifests",
        Fault::Change,
        &[&image.digest(), "as in the reference"],
    );
    fails(
        &registry,
        &by_digest,
        "manifests",
        replaced(),
        &[&other.digest(), "as in the reference"],
    );
    let part = format!("manifests/{}", image.digest());
    fails(&registry, ":index", &part, replaced(), &["verifying manifests", "expected"]);
    fails(&registry, tag, &config, Fault::Change, &["verifying blobs"]);
    fails(&registry, tag, &config, Fault::Extend(1), &["verifying blobs", "bytes, expected"]);
    fails(
        &registry,
        tag,
        &blob,
        Fault::Change,
        &["layer 1 of 1", "has the digest", &expected_layer],
    );
    let noise = Fault::Replace(noise(size));
    fails(&registry, tag, &blob, noise, &["has the digest", &expected_layer]);
    fails(&registry, tag, &blob, Fault::Extend(1), &["sends more than", &total[3..]]);
    fails(&registry, tag, &blob, Fault::Replace(Vec::new()), &["fetched 0", &total, "ended early"]);
    fails(&registry, tag, &blob, Fault::Truncate(0), &["fetched 0", &total]);
    // What a tag names has to be an image.
    fails(
        &registry,
        tag,
        "manifests",
        Fault::Replace(b"<html>".to_vec()),
        &["reading the manifest"],
    );
    fails(&registry, tag, "manifests", Fault::Extend(5 << 20), &["more than 4194304 bytes"]);
    fails(&registry, tag, "manifests", Fault::Truncate(9), &["interrupted"]);
    fails(
        &registry,
        tag,
        "manifests",
        Fault::Replace(index.manifest),
        &["not for linux/amd64", "expected"][..0],
    );
    fails(
        &registry,
        tag,
        "/v2/",
        Fault::Status("503 Service Unavailable"),
        &["503", "try again later"],
    );
    fails(&registry, tag, "/v2/", Fault::Status("429 Too Many Requests"), &["429", "docker login"]);
    fails(
        &registry,
        tag,
        &blob,
        Fault::Redirect("file:///etc/passwd".to_owned()),
        &["layer 1 of 1"],
    );
}

#[test]
fn interrupted_layers_are_continued() {
    let Some(registry) = Registry::start() else { return };
    let image = large();
    registry.push("test", "1", &image);
    for (fault, requests) in [(Fault::TruncateFirst(100_000, 2), 3), (Fault::NoRanges(100_000), 2)]
    {
        let proxy = Proxy::start(&registry.host, &image.layer(0), fault.clone());
        let pulled = pull(&format!("{}/test:1", proxy.host), anonymous()).unwrap();
        assert!(pulled.log.contains("interrupted after 100000 of"), "{}", pulled.log);
        assert_eq!(proxy.requests(), requests, "{fault:?}");
        let file = pulled.directory.path().join("tree/etc/large");
        assert_eq!(std::fs::read(file).unwrap(), noise(SIZE), "{fault:?}");
    }
    // It does not continue for ever.
    let size = image.blobs[1].len();
    let proxy = Proxy::start(&registry.host, &image.layer(0), Fault::Truncate(1000));
    let error = pull(&format!("{}/test:1", proxy.host), anonymous()).err().unwrap();
    assert!(error.contains(&format!("fetched 4000 of {size} bytes")), "{error}");
    assert_eq!(proxy.requests(), 4);
}

#[test]
fn slow_registries_count_as_absent() {
    let Some(registry) = Registry::start() else { return };
    let image = large();
    registry.push("test", "1", &image);
    fails(&registry, ":1", "manifests", Fault::Stall(0), &["fetching manifests/1", "timeout"]);
    fails(&registry, ":1", &image.layer(0), Fault::Stall(1000), &["fetched 4000 of", "timeout"]);
}

#[test]
fn absent_registries_are_named() {
    let host = free_address();
    let error = pull(&format!("{host}/test:1"), anonymous()).err().unwrap();
    for text in [
        &format!("pulling the image {host}/test:1 from the registry {host}"),
        "refused",
        "that it runs",
    ] {
        assert!(error.contains(text), "no {text:?} in: {error}");
    }
    let error = pull("no-such-registry.invalid/test:1", anonymous()).err().unwrap();
    assert!(
        error.contains("no-such-registry.invalid") && error.contains("check its name"),
        "{error}"
    );
}
