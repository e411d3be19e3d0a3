//! Stage 3: turns the root tree of the distribution into EtchaOS.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use walkdir::WalkDir;

use super::added;
use super::bootstrap::RootTree;
use super::build::{Build, Describe};
use super::commands::{environment, run_part};
use super::{compiler, variables};
use crate::command::Tool;
use crate::image::digest;
use crate::log_file::LogFile;
use crate::updater_binary;

/// The number of hexadecimal digits of the content's digest in a version.
const VERSION_DIGITS: usize = 8;

/// The size of the ESP in MiB. The slots need room to grow, because updates cannot resize the partition.
const ESP_MIB: u64 = 1021;

/// A root tree of EtchaOS and its identity.
pub(super) struct Image {
    pub(super) tree: RootTree,
    /// The SHA-256 of the rendered variant and of every file that is added.
    pub(super) recipe: String,
    /// `IMAGE_VERSION`.
    pub(super) version: String,
    /// The environment of the Commands of this stage and the next.
    pub(super) env: BTreeMap<String, String>,
    /// The programs that compiled the updater, with their versions.
    pub(super) toolchain: BTreeMap<String, String>,
}

impl Describe for Image {
    fn describe(&self) -> String {
        format!("version {}", self.version)
    }
}

/// Collects the files to add, and runs the variant's Commands.
pub(super) fn run(build: &Build<'_>, tree: RootTree, log: &mut LogFile) -> Result<Image> {
    let files = build.directories.work.join("files");
    let toolchain = gather(build, &files, log)?;
    let content = digest::of_tree(&files)?;
    let recipe =
        protocol::digest::of_bytes(format!("{}\n{content}", build.variant.rendered).as_bytes());
    let version = version(&tree, &recipe);
    let variables = [
        ("SOURCE_DATE_EPOCH", tree.epoch.to_string()),
        ("IMAGE_VERSION", version.clone()),
        ("ESP_UUID", volume_id(&version)),
        ("ESP_MIB", ESP_MIB.to_string()),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value)).into();
    variables::store(&build.directories.work, &variables)?;
    let mut env = environment(build);
    env.extend(variables);
    run_part(build, "refine", &*tree.toolbox.sandbox, &env, log)?;
    added::check(build, &build.directories.work.join("root"))?;
    Ok(Image { tree, recipe, version, env, toolchain })
}

/// Returns the version, which depends only on the packages and the recipe.
fn version(tree: &RootTree, recipe: &str) -> String {
    let packages: String = tree.packages.iter().map(|package| format!("{package}\n")).collect();
    let content = protocol::digest::of_bytes(format!("{recipe}\n{packages}").as_bytes());
    format!("{}-{}", tree.version, &content[..VERSION_DIGITS])
}

/// Returns the volume identifier of the FAT file system, as tools print it: `1A2B-3C4D`.
fn volume_id(version: &str) -> String {
    let digest = protocol::digest::of_bytes(format!("ESP {version}").as_bytes()).to_uppercase();
    format!("{}-{}", &digest[..4], &digest[4..8])
}

/// Collects everything that is copied over the root tree. Returns the toolchain of the updater.
fn gather(build: &Build<'_>, files: &Path, log: &mut LogFile) -> Result<BTreeMap<String, String>> {
    let units = build.workspace.join("updater/systemd");
    copy_tree(&build.variants.join("files"), files, log)?;
    copy_tree(&units, &files.join("usr/lib/systemd/system"), log)?;
    let compiler = |log: &mut LogFile| compiler::start(build, log);
    let programs = files.join("usr/bin");
    let program = programs.join("etchaos-updater");
    let toolchain = {
        // Until this is dropped, no other build replaces the programs.
        let updater = updater_binary::build(&build.workspace, build.target.arch, compiler, log)?;
        install(&updater.path, &program, 0o755)?;
        install(&updater.renderer, &programs.join("etchaos-render"), 0o755)?;
        updater.toolchain
    };
    let ours = files.join("usr/lib/etchaos");
    fs::create_dir_all(&ours)?;
    let keys: String = build.image_keys.iter().map(|key| format!("{key}\n")).collect();
    fs::write(ours.join("keys"), keys)?;
    if let Some(config) = &build.host_config {
        install(config, &ours.join("updater.json"), 0o644)?;
        // Validates the file with the updater itself; the tree contains no other configuration.
        Tool::new(&program.to_string_lossy())
            .arg("--host-root")
            .arg(files)
            .arg("config")
            .run(log)
            .with_context(|| {
                format!("the updater rejects the configuration {}", config.display())
            })?;
    }
    added::gather(build, files, log)?;
    Ok(toolchain)
}

/// Copies a tree without the files that editors leave behind. Files get the modes that git records, because the image must not depend on the umask
/// of the checkout.
fn copy_tree(from: &Path, to: &Path, log: &mut LogFile) -> Result<()> {
    for entry in WalkDir::new(from).sort_by_file_name() {
        let entry = entry.with_context(|| format!("reading {}", from.display()))?;
        if !entry.file_type().is_dir() && is_leftover(&entry.file_name().to_string_lossy()) {
            log.line(&format!("ignoring {}, which looks like a leftover", entry.path().display()));
            continue;
        }
        let target = to.join(entry.path().strip_prefix(from)?);
        if entry.file_type().is_dir() {
            fs::create_dir_all(&target)?;
            fs::set_permissions(&target, Permissions::from_mode(0o755))?;
        } else if entry.file_type().is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target)?;
        } else {
            let executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
            install(entry.path(), &target, if executable { 0o755 } else { 0o644 })?;
        }
    }
    Ok(())
}

/// Returns whether a file has the name of a backup, a lock or a swap file of an editor, of a conflict of
/// a merge, or of a file manager's settings.
fn is_leftover(name: &str) -> bool {
    let ends = ["~", ".swp", ".swo", ".swx", ".orig", ".rej"];
    let starts = [".#", "#", ".nfs", "._"];
    let names = [".DS_Store", ".directory", "Thumbs.db", "4913"];
    ends.iter().any(|end| name.ends_with(end))
        || starts.iter().any(|start| name.starts_with(start))
        || names.contains(&name)
}

pub(super) fn install(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let failed = || format!("copying {} to {}", from.display(), to.display());
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory).with_context(failed)?;
    }
    fs::copy(from, to).with_context(failed)?;
    fs::set_permissions(to, Permissions::from_mode(mode)).with_context(failed)
}
