//! Images that the tests make: layers, configurations, manifests and indexes.

use std::io::Write;
use std::process::Command;

use builder::oci::Digest;
use protocol::Arch;
use serde_json::{Value, json};

pub(crate) const GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub(crate) const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image, as a registry stores it.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// The manifest or the index.
    pub(crate) manifest: Vec<u8>,
    pub(crate) media_type: &'static str,
    /// The configuration and the layers.
    pub(crate) blobs: Vec<Vec<u8>>,
    /// The images of an index.
    pub(crate) parts: Vec<Image>,
}

/// The type of a layer, its compressed content, and the digest of its tar file.
pub(crate) type Layer = (&'static str, Vec<u8>, String);

impl Image {
    /// Returns an image for an architecture.
    pub(crate) fn new(arch: &str, layers: &[Layer]) -> Self {
        let ids: Vec<String> = layers.iter().map(|(_, _, id)| id.clone()).collect();
        let config = json!({"os": "linux", "architecture": arch, "config": {},
            "rootfs": {"type": "layers", "diff_ids": ids}});
        let config = config.to_string().into_bytes();
        let layers_json: Vec<Value> =
            layers.iter().map(|(media_type, bytes, _)| descriptor(media_type, bytes)).collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config), "layers": layers_json});
        let layers = layers.iter().map(|(_, bytes, _)| bytes.clone());
        Self {
            manifest: manifest.to_string().into_bytes(),
            media_type: MANIFEST,
            blobs: [config].into_iter().chain(layers).collect(),
            parts: Vec::new(),
        }
    }

    /// Returns an index of images for several architectures.
    pub(crate) fn index(parts: &[(&str, &Image)]) -> Self {
        let entries = parts.iter().map(|(arch, image)| {
            let mut entry = descriptor(image.media_type, &image.manifest);
            entry["platform"] = json!({"os": "linux", "architecture": arch});
            entry
        });
        let entries: Vec<Value> = entries.collect();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        Self {
            manifest: index.to_string().into_bytes(),
            media_type: INDEX,
            blobs: Vec::new(),
            parts: parts.iter().map(|(_, image)| (*image).clone()).collect(),
        }
    }

    pub(crate) fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// Returns the digest of a layer.
    pub(crate) fn layer(&self, index: usize) -> String {
        digest(&self.blobs[index + 1])
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    Digest::of_bytes(bytes).to_string()
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

/// Returns a tar file with these files, which belong to the user of the tests.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_uid(nix::unistd::geteuid().as_raw().into());
        header.set_gid(nix::unistd::getegid().as_raw().into());
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Layer {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    (GZIP, encoder.finish().unwrap(), digest(bytes))
}

pub(crate) fn zstd(bytes: &[u8]) -> Layer {
    (ZSTD, zstd::encode_all(bytes, 1).unwrap(), digest(bytes))
}

/// Returns bytes that do not compress.
pub(crate) fn noise(size: usize) -> Vec<u8> {
    let mut state: u32 = 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(|_| next()).collect()
}

/// Returns an image with the programs of this machine that a sandbox needs. Its largest layer is compressed by
/// this function.
pub(crate) fn runnable(compress: fn(&[u8]) -> Layer) -> Image {
    let script = "files=$(for name in bash cat mkdir tar; do command -v $name; done)
        libraries=$(for file in $files; do ldd $file; done | grep --only-matching '/[^ ]*' | sort --unique)
        tar --create --dereference --hard-dereference --absolute-names $files $libraries";
    let output = Command::new("bash").args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The scripts of variants run with /bin/bash, and a command may be found elsewhere.
    let mut links = tar::Builder::new(Vec::new());
    for (name, target) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        header.set_uid(0);
        header.set_gid(0);
        links.append_link(&mut header, name, target).unwrap();
        let mut header = header.clone();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        links.append_data(&mut header, target, std::io::empty()).unwrap();
    }
    let marker = tar(&[("etc/marker", b"from the image\n")]);
    let arch = Arch::native().expect("builds are possible here").to_string();
    let layers = [gzip(&links.into_inner().unwrap()), compress(&output.stdout), gzip(&marker)];
    Image::new(&arch, &layers)
}
