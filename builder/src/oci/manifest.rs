//! The JSON documents of an image: the index of its platforms, its manifest and its configuration.
//!
//! Docker's formats and those of the Open Container Initiative (OCI) have the same fields, and differ in the names
//! of their types.

use anyhow::{Context, Result, bail, ensure};
use protocol::Arch;
use serde::Deserialize;

use super::reference::Digest;

/// The types of indexes and manifests, for the header `Accept`.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// The maximum number of layers. Docker does not make more than 127.
const LAYERS_MAX: usize = 128;
/// The maximum size of a compressed layer, in bytes. Those of official images of distributions have 30 MB to
/// 150 MB.
const LAYER_MAX: u64 = 2 << 30;
/// The maximum number of platforms that an error lists.
const LISTED_MAX: usize = 16;

/// The compression of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// A file of the registry that a document names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    /// The size in bytes.
    pub(super) size: u64,
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) blob: Blob,
    pub(super) compression: Compression,
}

/// The document that a reference names.
#[derive(Debug)]
pub(super) enum Document {
    /// An index with one manifest for each platform.
    Index(Index),
    /// A manifest.
    Image(Image),
}

/// A manifest: the parts of an image.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) config: Blob,
    /// The layers, the lowest first.
    pub(super) layers: Vec<Layer>,
}

/// The manifests of an image for several platforms.
#[derive(Debug, Deserialize)]
pub(super) struct Index {
    manifests: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
    #[serde(default)]
    variant: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawImage {
    config: RawBlob,
    layers: Vec<RawBlob>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBlob {
    media_type: String,
    digest: String,
    size: u64,
}

#[derive(Deserialize)]
struct RawConfig {
    architecture: String,
    os: String,
    rootfs: RawRootfs,
}

#[derive(Deserialize)]
struct RawRootfs {
    diff_ids: Vec<String>,
}

impl Document {
    /// Parses an index or a manifest.
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let value: serde_json::Value = serde_json::from_slice(text)?;
        // A document with both could mean one image for one program, and another one for another program.
        match (value.get("manifests").is_some(), value.get("layers").is_some()) {
            (true, false) => Ok(Self::Index(serde_json::from_value(value)?)),
            (false, true) => Ok(Self::Image(Image::new(serde_json::from_value(value)?)?)),
            (true, true) => bail!("it has both manifests and layers"),
            (false, false) => {
                match value.get("schemaVersion").and_then(serde_json::Value::as_u64) {
                    Some(version) if version != 2 => {
                        bail!("it has schema version {version}, expected 2")
                    }
                    _ => bail!("it has neither manifests nor layers"),
                }
            }
        }
    }
}

impl Image {
    fn new(raw: RawImage) -> Result<Self> {
        ensure!(
            (1..=LAYERS_MAX).contains(&raw.layers.len()),
            "it has {} layers, expected 1 to {LAYERS_MAX}",
            raw.layers.len()
        );
        let config = Blob::new(&raw.config)?;
        let layers = raw.layers.iter().map(|layer| {
            let blob = Blob::new(layer)?;
            ensure!(
                blob.size <= LAYER_MAX,
                "the layer {} has {} bytes, expected at most {LAYER_MAX}",
                blob.digest,
                blob.size
            );
            Ok(Layer { blob, compression: compression(&layer.media_type)? })
        });
        Ok(Self { config, layers: layers.collect::<Result<_>>()? })
    }
}

impl Blob {
    fn new(raw: &RawBlob) -> Result<Self> {
        Ok(Self { digest: raw.digest.parse()?, size: raw.size })
    }
}

/// Returns the compression of a layer by its type.
fn compression(media_type: &str) -> Result<Compression> {
    Ok(match media_type {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar" => Compression::None,
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Compression::Gzip,
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
        // Layers of other types are encrypted, are at another server, or are no file systems.
        _ => bail!(
            "a layer has the type {media_type:.80?}, expected a tar file, also with gzip or zstd"
        ),
    })
}

impl Index {
    /// Returns the manifest for an architecture.
    pub(super) fn find(&self, arch: Arch) -> Result<Blob> {
        let entry = self.manifests.iter().find(|entry| entry.is_for(arch));
        let entry = entry.with_context(|| {
            let platforms = self.manifests.iter().filter_map(|entry| entry.platform.as_ref());
            let names: Vec<String> = platforms.take(LISTED_MAX).map(Platform::describe).collect();
            format!("the image is not for linux/{arch}; it is for: {}", names.join(", "))
        })?;
        Ok(Blob { digest: entry.digest.parse()?, size: entry.size })
    }
}

impl Entry {
    fn is_for(&self, arch: Arch) -> bool {
        let Some(Platform { architecture, os, variant }) = &self.platform else { return false };
        // Variants of an architecture need newer processors, except for these.
        let baseline = match arch {
            Arch::Amd64 => "v1",
            Arch::Arm64 => "v8",
        };
        os == "linux"
            && *architecture == arch.to_string()
            && ["", baseline].contains(&variant.as_str())
    }
}

impl Platform {
    fn describe(&self) -> String {
        let parts = [&self.os, &self.architecture, &self.variant];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        let parts: Vec<String> = parts
            .map(|part| part.chars().take(20).collect::<String>().escape_debug().to_string())
            .collect();
        parts.join("/")
    }
}

/// Checks that the configuration of an image is for an architecture and has this number of layers.
pub(super) fn check_config(text: &[u8], arch: Arch, layers: usize) -> Result<()> {
    let RawConfig { architecture, os, rootfs } = serde_json::from_slice(text)?;
    ensure!(
        os == "linux" && architecture == arch.to_string(),
        "the image is for {os:.20?} on {architecture:.20?}, expected linux on {arch}, the architecture of \
         this machine"
    );
    ensure!(
        rootfs.diff_ids.len() == layers,
        "the configuration has {} layers, and the manifest {layers}",
        rootfs.diff_ids.len()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn digest(byte: char) -> String {
        format!("sha256:{}", byte.to_string().repeat(64))
    }

    fn image() -> Value {
        let layer = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        json!({
            "schemaVersion": 2,
            "config": {"mediaType": "application/json", "digest": digest('c'), "size": 3},
            "layers": [{"mediaType": layer, "digest": digest('1'), "size": 4, "urls": ["http://x/"]}],
        })
    }

    fn parse(value: &Value) -> Result<Document> {
        Document::parse(value.to_string().as_bytes())
    }

    fn error(value: &Value) -> String {
        format!("{:#}", parse(value).unwrap_err())
    }

    #[test]
    fn reads_manifests_of_docker_and_oci() {
        let mut value = image();
        for (media_type, expected) in [
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Compression::Gzip),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Compression::Gzip),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Compression::Zstd),
            ("application/vnd.oci.image.layer.v1.tar", Compression::None),
        ] {
            value["layers"][0]["mediaType"] = json!(media_type);
            let Document::Image(image) = parse(&value).unwrap() else { panic!("no image") };
            assert_eq!(image.layers[0].compression, expected);
            assert_eq!((image.layers[0].blob.size, image.config.size), (4, 3));
        }
    }

    #[test]
    fn rejects_other_manifests() {
        let mut value = image();
        value["manifests"] = json!([]);
        assert!(error(&value).contains("both"));
        assert!(error(&json!({"schemaVersion": 1, "fsLayers": []})).contains("schema version 1"));
        assert!(error(&json!({})).contains("neither"));
        assert!(Document::parse(b"[").is_err());
        for (field, value, text) in [
            ("mediaType", json!("application/vnd.oci.image.layer.v1.tar+encrypted"), "encrypted"),
            ("digest", json!("sha256:../../x"), "the digest is"),
            ("size", json!(LAYER_MAX + 1), "expected at most"),
            ("size", json!(-1), "invalid value"),
        ] {
            let mut changed = image();
            changed["layers"][0][field] = value;
            assert!(error(&changed).contains(text), "{}", error(&changed));
        }
        let mut many = image();
        many["layers"] = json!(vec![many["layers"][0].clone(); LAYERS_MAX + 1]);
        assert!(error(&many).contains("129 layers"));
        many["layers"] = json!([]);
        assert!(error(&many).contains("0 layers"));
    }

    #[test]
    fn chooses_the_platform() {
        let entry = |os: &str, arch: &str, variant: Option<&str>, byte: char| {
            let mut platform = json!({"os": os, "architecture": arch});
            if let Some(variant) = variant {
                platform["variant"] = json!(variant);
            }
            json!({"digest": digest(byte), "size": 1, "platform": platform})
        };
        let value = json!({"manifests": [
            {"digest": digest('0'), "size": 1},
            entry("unknown", "unknown", None, '1'),
            entry("windows", "amd64", None, '2'),
            entry("linux", "amd64", Some("v3"), '3'),
            entry("linux", "amd64", None, '4'),
            entry("linux", "arm", Some("v7"), '5'),
            entry("linux", "arm64", Some("v8"), '6'),
        ]});
        let Document::Index(index) = parse(&value).unwrap() else { panic!("no index") };
        assert_eq!(index.find(Arch::Amd64).unwrap().digest.to_string(), digest('4'));
        assert_eq!(index.find(Arch::Arm64).unwrap().digest.to_string(), digest('6'));

        let value = json!({"manifests": [entry("linux", "s390x", None, '1')]});
        let Document::Index(index) = parse(&value).unwrap() else { panic!("no index") };
        let error = format!("{:#}", index.find(Arch::Amd64).unwrap_err());
        assert!(error.contains("not for linux/amd64; it is for: linux/s390x"), "{error}");
    }

    #[test]
    fn configuration_has_the_architecture() {
        let config = |arch: &str| {
            json!({"os": "linux", "architecture": arch, "rootfs": {"diff_ids": ["x"]}}).to_string()
        };
        check_config(config("arm64").as_bytes(), Arch::Arm64, 1).unwrap();
        let error = check_config(config("arm64").as_bytes(), Arch::Amd64, 1).unwrap_err();
        assert!(error.to_string().contains("expected linux on amd64"), "{error}");
        assert!(check_config(config("amd64").as_bytes(), Arch::Amd64, 2).is_err());
        assert!(check_config(b"{}", Arch::Amd64, 1).is_err());
    }
}
