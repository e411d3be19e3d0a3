//! Checks the artifacts of a build with independent programs.
//!
//! Set `ETCHAOS_ARTIFACTS` to the directory of a build, such as `out/deb_amd64`. Without it, the tests
//! are skipped; with `CI=true`, they fail.

mod judge;

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use judge::{judge, skip};
use serde_json::Value;
use tempfile::TempDir;

/// The offset of the ESP, in the form of mtools.
const ESP: &str = "@@2M";
const ESP_OFFSET: u64 = 2 << 20;
/// The maximum size of the initrd of `deb_amd64`, which hosts keep in memory. Kernel modules are compressed by the
/// SquashFS alone, which takes 2.2% more and makes deltas small (docs/delta.md).
const INITRD_MAX: u64 = 123_200_000;

struct Artifacts {
    directory: PathBuf,
    /// The target, such as `deb_amd64`.
    target: String,
    temporary: TempDir,
}

impl Artifacts {
    fn find() -> Option<Self> {
        let Some(directory) = std::env::var_os("ETCHAOS_ARTIFACTS") else {
            skip("ETCHAOS_ARTIFACTS does not name the directory of a build");
            return None;
        };
        let directory = PathBuf::from(directory);
        let mut names = directory.read_dir().unwrap().map(|entry| entry.unwrap().file_name());
        let target = names.find_map(|name| {
            Some(name.to_str()?.strip_prefix("etchaos_")?.strip_suffix(".jwt")?.to_owned())
        });
        let target = target.expect("the directory has a manifest");
        Some(Self { directory, target, temporary: tempfile::tempdir().unwrap() })
    }

    fn path(&self, extension: &str) -> String {
        let name = format!("etchaos_{}.{extension}", self.target);
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    /// Copies a file from the ESP of the disk image.
    fn copy_from_esp(&self, path: &str) -> Option<PathBuf> {
        let to = self.temporary.path().join(path.replace('/', "_"));
        let image = format!("{}{ESP}", self.path("raw"));
        judge("mcopy", &["-n", "-i", &image, &format!("::{path}"), to.to_str().unwrap()])?;
        Some(to)
    }

    /// Checks the ESP of a disk image, and returns the report of the check.
    fn check_esp(&self, raw: &str) -> Option<String> {
        let esp = self.temporary.path().join("esp.img");
        let esp = esp.to_str().unwrap();
        let skip = format!("skip={ESP_OFFSET}");
        let count = format!("count={}", fs::metadata(raw).unwrap().len() - ESP_OFFSET - (1 << 20));
        let (from, to) = (format!("if={raw}"), format!("of={esp}"));
        let flags = "iflag=skip_bytes,count_bytes";
        judge("dd", &[&from, &to, flags, &skip, &count, "conv=sparse", "bs=1M", "status=none"]);
        judge("fsck.vfat", &["-n", "-v", esp])
    }

    /// Unpacks the initrd, and returns the directory.
    fn unpack_initrd(&self) -> Option<PathBuf> {
        let directory = self.temporary.path().join("initrd");
        fs::create_dir(&directory).unwrap();
        let script = "cd \"$1\" && cpio -i --quiet --make-directories <\"$2\"";
        let place = directory.to_str().unwrap();
        judge("sh", &["-euc", script, "sh", place, &self.path("initrd")])?;
        Some(directory)
    }

    /// Returns the claims of the manifest without verifying its signature.
    fn claims(&self) -> Value {
        let token = fs::read_to_string(self.path("jwt")).unwrap();
        let claims = token.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
    }
}

#[test]
fn disk_has_valid_gpt_and_esp() {
    let Some(artifacts) = Artifacts::find() else { return };
    let raw = artifacts.path("raw");
    let Some(verdict) = judge("sgdisk", &["--verify", &raw]) else { return };
    assert!(verdict.contains("No problems found"), "{verdict}");
    artifacts.check_esp(&raw);
}

#[test]
fn disk_for_sectors_of_4096_bytes_is_valid_and_has_the_same_files() {
    let Some(artifacts) = Artifacts::find() else { return };
    let documents = artifacts.claims()["etchaosRelease"]["documents"].clone();
    let has = |kind: &str| documents.as_array().unwrap().iter().any(|d| d["kind"] == kind);
    assert_eq!(has("disk4k"), has("bmap4k"));
    if !has("disk4k") {
        assert_ne!(artifacts.target, "debmetal_amd64", "this target has such a disk image");
        return;
    }
    let raw = artifacts.path("4k.raw");
    let script = "printf 'v\\nq\\n' | LC_ALL=C fdisk --sector-size 4096 \"$1\"";
    let Some(verdict) = judge("sh", &["-c", script, "sh", &raw]) else { return };
    assert!(verdict.contains("No errors detected"), "{verdict}");
    let Some(report) = artifacts.check_esp(&raw) else { return };
    assert!(report.contains("4096 bytes per logical sector"), "{report}");

    let copy = |extension: &str| {
        let to = artifacts.temporary.path().join(extension);
        fs::create_dir(&to).unwrap();
        let image = format!("{}{ESP}", artifacts.path(extension));
        let to = to.to_str().unwrap().to_owned();
        judge("mcopy", &["-s", "-m", "-n", "-i", &image, "::/", &to]).map(|_| to)
    };
    let (Some(one), Some(other)) = (copy("raw"), copy("4k.raw")) else { return };
    judge("diff", &["--recursive", "--brief", &one, &other]);
}

#[test]
fn boot_files_are_signed_by_microsoft_and_debian() {
    let Some(artifacts) = Artifacts::find() else { return };
    let (shim, grub) = match artifacts.target.ends_with("_arm64") {
        true => ("EFI/BOOT/BOOTAA64.EFI", "EFI/BOOT/grubaa64.efi"),
        false => ("EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/grubx64.efi"),
    };
    for (file, signer) in [
        (shim, "Microsoft"),
        (grub, "Debian Secure Boot"),
        ("etchaos/a/vmlinuz", "Debian Secure Boot"),
    ] {
        let Some(path) = artifacts.copy_from_esp(file) else { return };
        let Some(list) = judge("sbverify", &["--list", path.to_str().unwrap()]) else { return };
        assert!(list.contains(signer), "{file}:\n{list}");
    }
}

#[test]
fn artifacts_match_sizes_and_digests_of_manifest() {
    let Some(artifacts) = Artifacts::find() else { return };
    let claims = artifacts.claims();
    let list = claims["etchaosRelease"]["artifacts"].as_array().unwrap().clone();
    assert_eq!(list.len(), 3);
    for artifact in list {
        let path = artifacts.directory.join(artifact["name"].as_str().unwrap());
        assert_eq!(artifact["size"], path.metadata().unwrap().len());
        let Some(sum) = judge("sha256sum", &[path.to_str().unwrap()]) else { return };
        assert!(sum.starts_with(artifact["sha256"].as_str().unwrap()), "{sum}");
    }
    for extension in ["vmlinuz", "initrd"] {
        let Some(on_disk) = artifacts.copy_from_esp(&format!("etchaos/a/{extension}")) else {
            return;
        };
        judge("cmp", &[on_disk.to_str().unwrap(), &artifacts.path(extension)]);
    }
}

#[test]
fn openssl_verifies_both_manifests() {
    let Some(artifacts) = Artifacts::find() else { return };
    let published = PathBuf::from(artifacts.path("jwt"));
    let Some(installed) = artifacts.copy_from_esp("etchaos/a/release.jwt") else { return };
    let key = artifacts.directory.join("../keys/signing.pub");
    let key = fs::read_to_string(key).expect("the artifacts were signed with a development key");
    let der = artifacts.temporary.path().join("key.der");
    fs::write(&der, STANDARD.decode(key.split(':').nth(1).unwrap()).unwrap()).unwrap();
    for token in [published, installed] {
        let token = fs::read_to_string(token).unwrap();
        let (message, signature) = token.trim().rsplit_once('.').unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = artifacts.temporary.path().join(name);
            fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let message = write("message", message.as_bytes());
        let signature = write("signature", &URL_SAFE_NO_PAD.decode(signature).unwrap());
        let der = der.to_str().unwrap();
        let verify = ["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", der];
        let rest = ["-rawin", "-in", &message, "-sigfile", &signature];
        judge("openssl", &[&verify[..], &rest[..]].concat());
    }
}

#[test]
fn initrd_contains_squashfs_and_no_secrets() {
    let Some(artifacts) = Artifacts::find() else { return };
    let Some(directory) = artifacts.unpack_initrd() else { return };
    let usr = directory.join("usr.squashfs");
    let Some(list) = judge("unsquashfs", &["-l", "-d", "", usr.to_str().unwrap()]) else { return };
    for file in
        ["/bin/etchaos-updater", "/bin/etchaos-render", "/sbin/dockerd", "/lib/systemd/systemd"]
    {
        assert!(list.lines().any(|line| line == file), "{file} is not in /usr");
    }
    let sysroot = directory.join("sysroot");
    let shadow = fs::read_to_string(sysroot.join("etc/shadow")).unwrap();
    for line in shadow.lines() {
        let password = line.split(':').nth(1).unwrap();
        assert!(password.starts_with(['*', '!']), "an account has a password: {line}");
    }
    let machine_id = fs::read_to_string(sysroot.join("etc/machine-id")).unwrap();
    assert_eq!(machine_id.trim(), "");
    assert!(!Path::new(&sysroot).join("etc/ssh").exists());
}

#[test]
fn initrd_of_debian_stays_small() {
    let Some(artifacts) = Artifacts::find() else { return };
    if artifacts.target == "deb_amd64" {
        let size = fs::metadata(artifacts.path("initrd")).unwrap().len();
        assert!(size <= INITRD_MAX, "the initrd has {size} bytes, expected at most {INITRD_MAX}");
    }
}

#[test]
fn programs_of_the_image_have_their_libraries() {
    let Some(artifacts) = Artifacts::find() else { return };
    let place = artifacts.unpack_initrd();
    let Some(place) = place else { return };
    // The names that programs and libraries need, without those that exist.
    let script = r#"cd "$1" && unsquashfs -q -n -d usr usr.squashfs >/dev/null
        find usr -name '*.so*' -printf '%f\n' | sort -u >have
        find usr -type f '(' -perm /111 -o -name '*.so*' ')' -exec readelf -d {} + 2>/dev/null |
          sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u >need
        [ -s need ] || exit 1
        comm -13 have need"#;
    let place = place.to_str().unwrap();
    let Some(missing) = judge("sh", &["-uc", script, "sh", place]) else { return };
    assert_eq!(missing.trim(), "", "programs need libraries that are not in /usr");
}

#[test]
fn archive_for_network_boot_has_the_target_in_its_paths() {
    let Some(artifacts) = Artifacts::find() else { return };
    let Some(list) = judge("tar", &["-tf", &artifacts.path("netboot.tar")]) else { return };
    let target = &artifacts.target;
    let release = &artifacts.claims()["etchaosRelease"];
    let version = release["version"].as_str().unwrap();
    let cpu = if target.ends_with("_arm64") { "arm64" } else { "x86_64" };
    for file in [
        format!("etchaos/{target}/{version}/vmlinuz"),
        format!("etchaos/{target}/{version}/initrd"),
        format!("etchaos/boot-{cpu}.cfg"),
    ] {
        assert!(list.lines().any(|line| line == file), "no {file} in:\n{list}");
    }
}

#[test]
fn record_of_the_test_has_figures_of_each_boot() {
    let Some(artifacts) = Artifacts::find() else { return };
    let Ok(record) = fs::read_to_string(artifacts.directory.join("tested.json")) else {
        return skip("the release was not tested");
    };
    let record: Value = serde_json::from_str(&record).unwrap();
    let figures = &record["figures"];
    let names = |list: &str, name: &str| -> Vec<String> {
        let list = figures[list].as_array().unwrap_or_else(|| panic!("no {list} in {record}"));
        list.iter().map(|entry| entry[name].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("stages", "name"), ["init", "bootstrap", "refine", "package", "test"]);
    let has_bios = !artifacts.target.ends_with("_arm64");
    let boots = if has_bios { &["uefi", "bios"][..] } else { &["uefi"] };
    assert_eq!(names("boots", "boot"), boots);
    for boot in figures["boots"].as_array().unwrap() {
        for figure in ["kernelSeconds", "userspaceSeconds", "memoryUsedMiB"] {
            assert!(boot[figure].as_f64().unwrap() > 0.0, "{figure} in {boot}");
        }
    }
    assert!(figures["boots"][0]["firmwareSeconds"].as_f64().unwrap() > 0.0, "{figures}");
}
