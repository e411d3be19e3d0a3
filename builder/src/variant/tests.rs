//! Variants and drop-ins from directories, as the builder loads them.

use super::*;

use std::fs;
use std::path::Path;

/// A directory of a publisher, beside the variants of this repository.
struct Own(tempfile::TempDir);

impl Own {
    fn new(files: &[(&str, &str)]) -> Self {
        let own = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            let path = own.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        own
    }

    fn load(&self, name: &str) -> Result<VariantFile> {
        let variants = Variants::new(built_in(), Some(self.0.path())).unwrap();
        VariantFile::load(&variants, &name.parse().unwrap(), Arch::Amd64)
    }

    /// Checks that loading fails with an error that has all of these texts.
    fn fails(&self, name: &str, texts: &[&str]) {
        let error = format!("{:#}", self.load(name).unwrap_err());
        for text in texts {
            assert!(error.contains(text), "expected {text:?} in: {error}");
        }
    }
}

fn built_in() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("variants")
}

/// Returns the script of a Command.
fn script<'a>(variant: &'a VariantFile, part: &str, id: &str) -> &'a str {
    let mut commands = variant.part(part).iter().filter_map(|entry| match entry {
        Entry::Command(command) if command.id == id => command.change.as_deref(),
        _ => None,
    });
    commands.next().unwrap()
}

const TOOLS: &str = r"{
  packages: ['tcpdump', 'kmod'],
  units: { enable: ['tool.service', 'fstrim.timer'], disable: ['docker.service'] },
  files: [
    { path: '/usr/lib/systemd/system/tool.service', content: '[Service]\n' },
    { path: '/etc/tool/data', source: 'data', mode: '600' },
  ],
  kernelArguments: ['mitigations=auto,nosmt', 'quiet'],
  binaries: [{
    name: 'tool', url: 'https://host.example/tool', sha256: std.repeat('ab', 32), path: '/usr/bin/tool',
  }],
}";

#[test]
fn a_drop_in_adds_to_a_variant() {
    let plain = Own::new(&[]).load("deb").unwrap();
    let own = Own::new(&[
        ("deb.d/tools.jsonnet", TOOLS),
        ("deb.d/data", "data"),
        ("deb.d/zz.jsonnet", "{ units: { mask: ['tool.service'] } }"),
    ]);
    let variant = own.load("deb").unwrap();
    assert_ne!(variant.rendered, plain.rendered, "the recipe does not cover the drop-in");
    assert!(!variant.rendered.contains(own.0.path().to_str().unwrap()));
    assert_eq!(variant.sources.len(), 3);

    let content = &variant.content;
    assert_eq!(content.packages.len(), plain.content.packages.len() + 1, "kmod is there already");
    assert!(script(&variant, "bootstrap", "bootstrap").contains("tcpdump"));
    // What the later source says about a unit counts.
    let Units { enable, disable, mask } = &content.units;
    let has = |list: &[String], unit: &str| list.iter().any(|other| other == unit);
    assert!(!has(enable, "tool.service") && has(mask, "tool.service"));
    assert!(has(enable, "fstrim.timer") && !has(disable, "fstrim.timer"));
    assert!(!has(enable, "docker.service") && has(disable, "docker.service"));
    assert!(has(enable, "etchaos-confirm.service") && has(disable, "dpkg-db-backup.timer"));

    let paths: Vec<&str> = content.paths().collect();
    assert_eq!(paths, ["/usr/lib/systemd/system/tool.service", "/etc/tool/data", "/usr/bin/tool"]);
    assert_eq!(content.files[1].mode, 0o600);
    assert!(matches!(&content.files[1].bytes,
        Bytes::Digest { source: Some(source), .. } if source.ends_with("deb.d/data")));
    let grub = script(&variant, "package", "boot configuration");
    let arguments = "panic=10 mitigations=auto,nosmt quiet";
    assert!(grub.contains(&format!("{arguments}\"\n")), "{grub}");
    assert!(grub.contains(&format!("{arguments} $arguments;")), "{grub}");

    fs::write(own.0.path().join("deb.d/data"), "other").unwrap();
    let changed = own.load("deb").unwrap();
    assert_ne!(changed.rendered, variant.rendered, "the recipe does not cover the source");
}

#[test]
fn a_variant_or_a_drop_in_can_have_a_disk_image_for_large_sectors() {
    let own = Own::new(&[
        (
            "mine.jsonnet",
            "(import 'lib/etchaos.libsonnet').extend(import 'debmetal.jsonnet', { name: 'mine' })",
        ),
        ("deb12.d/a.jsonnet", "{ disk4k: true }"),
        ("deb12.d/b.jsonnet", "{ disk4k: false }"),
    ]);
    let expected =
        [("deb", false), ("ubu", false), ("debmetal", true), ("mine", true), ("deb12", true)];
    for (name, expected) in expected {
        let variant = own.load(name).unwrap();
        assert_eq!(variant.content.disk4k, expected, "{name}");
        let sizes = if expected { "\"512 4096\"" } else { "\"512\"" };
        let esp = script(&variant, "esp", "esp");
        assert!(esp.contains(&format!("SECTOR_SIZES={sizes}\n")), "{name}: {esp}");
    }
}

#[test]
fn a_variant_of_ones_own_extends_another() {
    let own = Own::new(&[
        (
            "mine.jsonnet",
            r"local etchaos = import 'lib/etchaos.libsonnet';
            etchaos.extend(import 'deb.jsonnet', {
              name: 'mine',
              installed: etchaos.without(super.installed, ['docker-cli']) + ['tcpdump'],
              units+: { disable+: ['docker.service'] },
              files: [{ path: '/etc/motd', content: importstr 'motd' }],
              kernelArguments: ['quiet'],
            })",
        ),
        ("motd", "hello\n"),
        (
            "more.jsonnet",
            r"local etchaos = import 'lib/etchaos.libsonnet';
            etchaos.extend(import 'mine.jsonnet', { name: 'more', installed+: ['nano'] })",
        ),
        ("more.d/a.jsonnet", "{ packages: ['htop'] }"),
        ("deb.d/a.jsonnet", "{ packages: ['only-for-deb'] }"),
    ]);
    let packages = |name: &str| own.load(name).unwrap().content.packages;
    let has = |name: &str, package: &str| packages(name).iter().any(|other| other == package);
    assert!(has("mine", "tcpdump") && !has("mine", "docker-cli") && !has("mine", "nano"));
    assert!(has("more", "tcpdump") && has("more", "nano") && has("more", "htop"));
    assert!(!has("mine", "only-for-deb") && has("deb", "only-for-deb"));
    let mine = own.load("mine").unwrap();
    assert_eq!(mine.content.files[0].bytes, Bytes::Text("hello\n".into()));
    assert!(!mine.content.units.enable.iter().any(|unit| unit == "docker.service"));
    assert!(script(&mine, "package", "boot configuration").contains("panic=10 quiet"));
}

#[test]
fn mistakes_in_drop_ins_are_errors() {
    for (text, expected) in [
        ("{ packges: [] }", "unknown field \"packges\" in "),
        ("{ packges: [] }", "deb.d/x.jsonnet:1 (did you mean \"packages\"?)"),
        ("{\n  units: {\n    enable: ['a b'],\n  },\n}", "deb.d/x.jsonnet:3 is \"a b\""),
        ("[]", "expected an object"),
        ("{ packages: }", "rendering"),
        ("{ packages: error 'no' }", "rendering"),
        ("local f(x) = f(x) + 1; f(1)", "rendering"),
        ("{ files: [{ path: '/etc/x', source: '../../etc/passwd' }] }", "files[0].source"),
        ("function(x) x", "rendering"),
        ("{ disk4k: 'yes' }", "disk4k of "),
        ("{ disk4k: 'yes' }", "deb.d/x.jsonnet:1 is \"yes\", expected true or false"),
    ] {
        Own::new(&[("deb.d/x.jsonnet", text)]).fails("deb", &[expected, "deb.d/x.jsonnet"]);
    }
    let file = "{ files: [{ path: '/etc/a', content: '' }] }";
    let own = Own::new(&[("deb.d/a.jsonnet", file), ("deb.d/b.jsonnet", file)]);
    own.fails("deb", &["deb.d/a.jsonnet and ", "deb.d/b.jsonnet both have the path /etc/a"]);
    let own = Own::new(&[("dbe.d/a.jsonnet", "{}")]);
    own.fails("deb", &["dbe.d has drop-ins of the unknown variant", "did you mean \"deb\"?"]);
}

#[test]
fn mistakes_in_variants_of_ones_own_are_errors() {
    let extend = |changes: &str| {
        let text = format!(
            "(import 'lib/etchaos.libsonnet').extend(import 'deb.jsonnet', {{ name: 'mine', {changes} }})"
        );
        Own::new(&[("mine.jsonnet", &text), ("mine.d/a.jsonnet", "{ packages: ['a'] }")])
    };
    extend("").load("mine").unwrap();
    extend("instaled+: ['a']").fails("mine", &["rendering", "mine.jsonnet"]);
    extend("disk4k: 'yes'").fails("mine", &["rendering", "mine.jsonnet"]);
    extend("installed+: ['a b']").fails("mine", &["packages[", "the name of a package"]);
    let other = "(import 'lib/etchaos.libsonnet').extend(import 'deb.jsonnet', { name: 'other' })";
    Own::new(&[("mine.jsonnet", other)]).fails("mine", &["\"other\"", "\"mine\""]);
    let sources = "files: [{ path: '/etc/a', source: 'a' }]";
    extend(sources).fails("mine", &["unknown field \"source\" in files[0]", "mine.jsonnet"]);
    let digest = "files: [{ path: '/etc/a', sha256: 'ab' }]";
    extend(digest).fails("mine", &["without its content", "importstr"]);
    // A variant that is not made by variant() would ignore the drop-in.
    let text = "(import 'deb.jsonnet') { variant: 'mine', packages: [] }";
    let own = Own::new(&[("mine.jsonnet", text), ("mine.d/a.jsonnet", "{ packages: ['a'] }")]);
    own.fails("mine", &["ignores the drop-in", "mine.d/a.jsonnet"]);
    let text = "(import 'deb.jsonnet') { variant: 'mine', disk4k: false }";
    let own = Own::new(&[("mine.jsonnet", text), ("mine.d/a.jsonnet", "{ disk4k: true }")]);
    own.fails("mine", &["ignores the drop-in", "mine.d/a.jsonnet"]);
    Own::new(&[]).fails("dep", &["unknown variant \"dep\" (did you mean \"deb\"?)", "deb"]);
}
