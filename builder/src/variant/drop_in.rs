//! Drop-ins: files beside a variant that add to it, such as `deb.d/tools.jsonnet` to `deb.jsonnet`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use protocol::{Arch, Variant};
use serde_json::{Value, json};

use super::content::{AddedFile, Bytes, Content};
use super::directories::Variants;
use super::fields::Field;
use super::render::render;

/// The drop-ins of a variant.
#[derive(Debug, Default)]
pub(super) struct DropIns(Vec<(PathBuf, Content)>);

impl DropIns {
    /// Reads and checks all drop-ins of a variant.
    pub(super) fn load(variants: &Variants, variant: &Variant, arch: Arch) -> Result<Self> {
        let mut loaded = Vec::new();
        let mut owners: BTreeMap<String, PathBuf> = BTreeMap::new();
        for path in variants.drop_ins(variant)? {
            let content = load(variants, &path, arch)?;
            for file in content.paths() {
                let other = owners.insert(file.to_owned(), path.clone());
                ensure!(
                    other.is_none(),
                    "{} and {} both have the path {file}",
                    other.unwrap_or_default().display(),
                    path.display()
                );
            }
            loaded.push((path, content));
        }
        Ok(Self(loaded))
    }

    /// Returns the paths of the drop-ins.
    pub(super) fn into_paths(self) -> Vec<PathBuf> {
        self.0.into_iter().map(|(path, _)| path).collect()
    }

    /// Returns the drop-ins as JSON, for the variant. It has no paths of this machine, so that the same
    /// content gives the same recipe.
    pub(super) fn to_json(&self) -> String {
        let all: Vec<Value> = self.0.iter().map(|(_, content)| to_json(content)).collect();
        Value::from(all).to_string()
    }

    /// Checks that a rendered variant has the content of the drop-ins, and adds the files that the variant
    /// knows only by their digest.
    pub(super) fn apply(&self, variant: &mut Content, name: &str) -> Result<()> {
        for (path, added) in &self.0 {
            let has = |known: &[String], added: &[String]| added.iter().all(|a| known.contains(a));
            let is_applied = has(&variant.packages, &added.packages)
                && has(&variant.kernel_arguments, &added.kernel_arguments)
                && (variant.disk4k || !added.disk4k)
                && added.paths().all(|path| variant.paths().any(|other| other == path));
            ensure!(
                is_applied,
                "{name} ignores the drop-in {}; a variant has to be the result of variant() or extend() of \
                 lib/etchaos.libsonnet",
                path.display()
            );
        }
        for file in &mut variant.files {
            let Bytes::Digest { sha256, source } = &mut file.bytes else { continue };
            *source = self.source(&file.path, sha256);
            ensure!(
                source.is_some(),
                "{name} has the file {} without its content; \"source\" is for drop-ins, and a variant has \
                 \"content\", such as importstr 'file'",
                file.path
            );
        }
        Ok(())
    }

    /// Returns the file that a drop-in copies to a path.
    fn source(&self, path: &str, digest: &str) -> Option<PathBuf> {
        let mut files = self.0.iter().flat_map(|(_, content)| &content.files);
        files.find_map(|file| match &file.bytes {
            Bytes::Digest { sha256, source } if file.path == path && sha256 == digest => {
                source.clone()
            }
            _ => None,
        })
    }
}

fn load(variants: &Variants, path: &Path, arch: Arch) -> Result<Content> {
    let name = path.display().to_string();
    let directory = path.parent().with_context(|| format!("{name} is in no directory"))?;
    let rendered = render(variants, path, arch, None)?;
    let value: Value =
        serde_json::from_str(&rendered).with_context(|| format!("reading {name}"))?;
    let object = Field::root(&name, &value).object(&Content::FIELDS)?;
    Content::read(&object, Some(directory))
}

fn to_json(content: &Content) -> Value {
    let Content { packages, units, files, kernel_arguments, binaries, disk4k } = content;
    let files = files.iter().map(|AddedFile { path, mode, bytes }| {
        let mode = format!("{mode:o}");
        match bytes {
            Bytes::Text(text) => json!({"path": path, "mode": mode, "content": text}),
            Bytes::Digest { sha256, .. } => json!({"path": path, "mode": mode, "sha256": sha256}),
        }
    });
    let binaries = binaries.iter().map(|binary| {
        json!({
            "name": binary.name, "url": binary.url, "sha256": binary.sha256, "path": binary.path,
        })
    });
    json!({
        "packages": packages,
        "units": {"enable": units.enable, "disable": units.disable, "mask": units.mask},
        "files": files.collect::<Vec<_>>(),
        "kernelArguments": kernel_arguments,
        "binaries": binaries.collect::<Vec<_>>(),
        "disk4k": disk4k,
    })
}
