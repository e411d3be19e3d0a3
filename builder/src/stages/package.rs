//! Stage 4: writes the kernel, the initrd, the disk image and the manifest.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;
use protocol::esp::{self, Slot};
use protocol::grubenv::{Block, BootState};
use protocol::pattern::{Pattern, PatternFiles};
use protocol::{Artifact, Claims, Package, Release, Role, release};
use serde_json::json;

use super::build::{Build, Describe, LOCK};
use super::commands::{cache_key, run_part};
use super::deltas;
use super::documents::{self, Sources};
use super::refine::Image;
use crate::cache::{self, Found};
use crate::image::disk::{BiosLoader, Disk, Sectors};
use crate::image::initrd::Initrd;
use crate::image::{compress, digest, disk};
use crate::log_file::{LogFile, Origin};
use crate::packaged::Packaged;
use crate::publish::{issue, layout, next_build};
use crate::signing;

/// The name of the file that the Commands of the part "squashfs" create.
const SQUASHFS: &str = "usr.squashfs";

impl Describe for Packaged {
    fn describe(&self) -> String {
        let release = self.release();
        let size: u64 = release.boot_artifacts().map(|artifact| artifact.size).sum();
        format!("kernel and initrd take {} MB, build {}", size / 1_000_000, release.build)
    }
}

/// Writes the files of the release.
pub(super) fn run(build: &Build<'_>, image: Image, log: &mut LogFile) -> Result<Packaged> {
    let mut packaging = Packaging { build, pieces: build.directories.work.join("out"), image, log };
    packaging.set_aside()?;
    packaging.part("package")?;
    packaging.squashfs()?;
    let kernel = packaging.kernel()?;
    let initrd = packaging.initrd()?;
    let installed = packaging.installed(vec![kernel, initrd])?;
    let disk = packaging.disk(&installed)?;
    packaging.manifest(installed, disk)
}

struct Packaging<'a> {
    build: &'a Build<'a>,
    image: Image,
    /// The directory that the variant's Commands write their results to.
    pieces: PathBuf,
    log: &'a mut LogFile,
}

impl Packaging<'_> {
    fn part(&mut self, part: &str) -> Result<()> {
        let sandbox = &*self.image.tree.toolbox.sandbox;
        run_part(self.build, part, sandbox, &self.image.env, self.log)?;
        Ok(())
    }

    /// Moves the artifacts of the previous build to the work directory, which the next build removes in the
    /// background: removing or truncating large files takes seconds on some file systems.
    fn set_aside(&self) -> Result<()> {
        let old = self.build.directories.work.join("old");
        fs::create_dir(&old).with_context(|| format!("creating {}", old.display()))?;
        let artifacts = &self.build.directories.artifacts;
        let failed = || format!("moving the files in {}", artifacts.display());
        for entry in artifacts.read_dir().with_context(failed)? {
            let entry = entry.with_context(failed)?;
            let is_file = entry.file_type().with_context(failed)?.is_file();
            if is_file && entry.file_name() != LOCK {
                fs::rename(entry.path(), old.join(entry.file_name())).with_context(failed)?;
            }
        }
        Ok(())
    }

    /// Creates the SquashFS of `/usr`, or copies that of an earlier build with the same tree.
    fn squashfs(&mut self) -> Result<()> {
        let usr = self.build.directories.work.join("root/usr");
        let digest = self.log.timed("hash /usr", Origin::Built, |_| cache::tree_digest(&usr))?;
        let tools = &self.image.tree.toolbox.state.tools;
        let key = cache_key(self.build, "squashfs", &self.image.env, &[&digest, tools]);
        let squashfs = self.pieces.join(SQUASHFS);
        let copy = |from: &Path, to: &Path| -> Result<()> {
            fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
            Ok(())
        };
        if let Some(Found { data, value: () }) = self.build.cache.find(&key, self.log) {
            return self.log.timed("squashfs", Origin::Cached, |_| copy(&data, &squashfs));
        }
        self.part("squashfs")?;
        self.log.timed("store the squashfs", Origin::Built, |_| {
            self.build.cache.store(&key, (), |to| copy(&squashfs, to))
        })
    }

    fn kernel(&self) -> Result<Artifact> {
        let path = self.path(Role::Kernel);
        fs::copy(self.pieces.join("vmlinuz"), &path).context("copying the kernel")?;
        self.artifact(Role::Kernel)
    }

    fn initrd(&mut self) -> Result<Artifact> {
        let initrd = Initrd {
            early: &self.pieces.join("early"),
            root: &self.build.directories.work.join("root"),
            usr: &self.pieces.join(SQUASHFS),
            epoch: self.image.tree.epoch,
        };
        let to = self.path(Role::Initrd);
        self.log.timed("initrd", Origin::Built, |_| initrd.write(&to))?;
        self.artifact(Role::Initrd)
    }

    /// Returns the release as a new disk image contains it.
    ///
    /// It has no build number and no date, so that the same content gives the same image. It does not
    /// list the disk image, whose digest depends on it.
    fn installed(&self, artifacts: Vec<Artifact>) -> Result<Release> {
        let bootloader = self.pieces.join("bootloader");
        let bootloader = fs::read_to_string(&bootloader)
            .with_context(|| format!("reading {}", bootloader.display()))?;
        let tree = &self.image.tree;
        Ok(Release {
            schema: release::SCHEMA,
            variant: self.build.target.variant.clone(),
            arch: self.build.target.arch,
            version: self.image.version.clone(),
            build: 0,
            epoch: u64::from(tree.epoch),
            kernel: tree.kernel.clone(),
            recipe: self.image.recipe.clone(),
            artifacts,
            packages: tree.packages.clone(),
            bootloader: Package::parse_list(&bootloader)?,
            documents: Vec::new(),
            secure_boot: self.build.variant.secure_boot,
            toolchain: std::collections::BTreeMap::new(),
        })
    }

    fn disk(&mut self, installed: &Release) -> Result<Artifact> {
        let esp = self.pieces.join("esp");
        let claims = self.claims(installed);
        let manifest = match self.build.image_manifest {
            Some(published) => signing::sign_like(published, self.build.image_keys, &claims)?,
            None => self.build.signing.sign(&claims)?,
        };
        self.lay_out_esp(&esp, &manifest)?;
        self.part("esp")?;
        let read = |name: &str| {
            let path = self.pieces.join(name);
            fs::read(&path).with_context(|| format!("reading {}", path.display()))
        };
        let bios = match disk::has_bios(self.build.target.arch) {
            true => Some(BiosLoader {
                boot_img: read("bios/boot.img")?,
                core_img: read("bios/core.img")?,
            }),
            false => None,
        };
        self.write_disk("disk image", Sectors::Of512(bios), &self.path(Role::Disk))?;
        if self.build.variant.content.disk4k {
            let name = documents::disk_4k_name(&self.build.target);
            let to = self.build.directories.artifacts.join(name);
            self.write_disk("disk image for sectors of 4096 bytes", Sectors::Of4096, &to)?;
        }
        self.artifact(Role::Disk)
    }

    /// Writes a disk image, and compresses it to `to`.
    fn write_disk(&mut self, what: &str, sectors: Sectors, to: &Path) -> Result<()> {
        let esp = match sectors {
            Sectors::Of512(_) => "esp-512.img",
            Sectors::Of4096 => "esp-4096.img",
        };
        let disk = Disk { esp: &self.pieces.join(esp), sectors, seed: &self.image.version };
        let raw = to.with_extension("");
        self.log.timed(what, Origin::Built, |_| disk.write(&raw))?;
        let compress = |_: &mut LogFile| compress::write(&raw, to);
        self.log.timed(&format!("compress the {what}"), Origin::Built, compress)
    }

    /// Writes the tree of the ESP: boot loaders, boot script, and slot `a` with a confirmed release.
    fn lay_out_esp(&self, esp: &Path, manifest: &str) -> Result<()> {
        let slot = Slot::A.directory();
        let place = |from: &Path, to: &str| -> Result<()> {
            let to = esp.join(to);
            fs::create_dir_all(to.parent().context("the path has no directory")?)?;
            fs::copy(from, &to).with_context(|| format!("copying {}", from.display()))?;
            Ok(())
        };
        for file in self.pieces.join("efi").read_dir().context("reading the boot loaders")? {
            let file = file?;
            place(&file.path(), &format!("EFI/BOOT/{}", file.file_name().to_string_lossy()))?;
        }
        place(&self.pieces.join("efi-stub.cfg"), &esp::grub_stub(&self.build.variant.esp_vendor))?;
        place(&self.pieces.join("grub.cfg"), esp::GRUB_CFG)?;
        for role in Role::BOOT {
            if let Some(name) = esp::slot_file(role) {
                place(&self.path(role), &format!("{slot}/{name}"))?;
            }
        }
        fs::create_dir_all(esp.join(Slot::B.directory()))?;
        fs::write(esp.join(&slot).join(esp::MANIFEST), manifest)?;
        fs::write(esp.join(&slot).join(esp::CONFIRMED), "")?;
        let mut grubenv = Block::default();
        BootState::with_good(Slot::A).write(&mut grubenv);
        grubenv.set_displayed_version(Slot::A, &self.image.version);
        fs::write(esp.join(esp::GRUBENV), grubenv.to_bytes()?)?;
        Ok(())
    }

    /// Writes the documents, assigns the URLs and the build number, and signs the manifest.
    fn manifest(self, installed: Release, disk: Artifact) -> Result<Packaged> {
        let now = Timestamp::now();
        let mut release = Release { toolchain: self.image.toolchain.clone(), ..installed };
        release.artifacts.push(disk);
        let sources = Sources {
            build: self.build,
            pieces: &self.pieces,
            kernel: &self.path(Role::Kernel),
            initrd: &self.path(Role::Initrd),
            raw: &self.path(Role::Disk).with_extension(""),
            version: &self.image.version,
            epoch: self.image.tree.epoch,
        };
        let add = |log: &mut LogFile| documents::add(&mut release, &sources, log);
        self.log.timed("documents", Origin::Built, add)?;
        deltas::add(self.build, &mut release, self.log)?;
        layout::assign_urls(&mut release);
        let mut template = self.claims(&release);
        template.iat = Some(0);
        template.exp = self.build.variant.pattern.expires_in;
        let build = next_build(self.build.newest, now);
        let issued = issue(release, build, &template, self.build.signing, now)?;
        let trusted = self.build.signing.ring()?;
        Packaged::write(&self.build.directories.artifacts, &issued.text, &trusted)
    }

    /// Returns the claims that depend only on the release.
    fn claims(&self, release: &Release) -> Claims {
        let pattern = &self.build.variant.pattern;
        let packages = release.packages.iter().map(|package| format!("{package}\n")).collect();
        let run = Pattern { run: pattern.run.clone(), ..Pattern::default() };
        let mut claims = Claims {
            iss: pattern.issuer.clone(),
            sub: pattern.subject.clone(),
            aud: pattern.audience.clone(),
            etcha_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            etcha_build_manifest: Some(packages),
            etcha_pattern: Some(PatternFiles::from(&run)),
            etchaos_release: Some(release.clone()),
            ..Claims::default()
        };
        let vars = &mut claims.etcha_run_vars;
        vars.insert("etchaosArch".into(), json!(release.arch));
        vars.insert("etchaosVariant".into(), json!(release.variant));
        vars.insert("etchaosBuild".into(), json!(release.build));
        claims
    }

    fn path(&self, role: Role) -> PathBuf {
        self.build.directories.artifacts.join(self.build.target.artifact_name(role))
    }

    fn artifact(&self, role: Role) -> Result<Artifact> {
        let (size, sha256) = digest::of_file(&self.path(role))?;
        let name = self.build.target.artifact_name(role);
        Ok(Artifact { role, url: name.clone(), name, size, sha256, deltas: Vec::new() })
    }
}
