//! Tests of differences between manifests and lists of files.

use protocol::release::SCHEMA;
use protocol::{Artifact, Package, Release, digest};

use super::command::Format;
use super::load::Loaded;
use super::*;
use crate::contents::{Entry, Kind};
use crate::figures::Figures;
use crate::figures::tests::example;

/// Returns a release with these packages.
pub(super) fn release(packages: &str) -> Release {
    let artifact = |role: Role| Artifact {
        role,
        name: role.extension().to_owned(),
        size: 1000,
        sha256: "ab".repeat(32),
        url: role.extension().to_owned(),
        deltas: Vec::new(),
    };
    Release {
        schema: SCHEMA,
        variant: "deb".parse().unwrap(),
        arch: protocol::Arch::Amd64,
        version: "13.1".into(),
        build: 7,
        epoch: 1_763_600_000,
        kernel: "6.12.57".into(),
        recipe: "cd".repeat(32),
        artifacts: Role::BOOT.map(artifact).to_vec(),
        packages: Package::parse_list(packages).unwrap(),
        bootloader: Vec::new(),
        documents: Vec::new(),
        secure_boot: true,
        toolchain: BTreeMap::new(),
    }
}

fn file(path: &str, text: &str) -> Entry {
    Entry {
        place: Place::System,
        path: path.to_owned(),
        kind: Kind::File,
        access: None,
        size: text.len() as u64,
        sha256: Some(digest::of_bytes(text.as_bytes())),
        target: None,
        xattrs: BTreeMap::new(),
        text: Some(text.to_owned()),
    }
}

fn link(path: &str, target: &str) -> Entry {
    let target = Some(target.to_owned());
    Entry { kind: Kind::Link, size: 0, sha256: None, text: None, target, ..file(path, "") }
}

fn loaded(release: Release, entries: Vec<Entry>) -> Loaded {
    Loaded { release, contents: Some(Contents::new(entries).unwrap()), figures: None }
}

const UNITS: &str = "/usr/lib/systemd/system";

/// Returns two releases with a difference of every kind.
fn pair() -> (Loaded, Loaded) {
    let key = |name: &str| format!("ed25519public:{name}:{name}");
    let old = vec![
        file("/etc/hosts", "127.0.0.1 localhost\n"),
        file("/etc/old", "x\n"),
        file("/usr/lib/etchaos/keys", &format!("# ours\n{}\n{}\n", key("a"), key("b"))),
        file(&format!("{UNITS}/a.service"), "[Service]\n"),
        file(&format!("{UNITS}/b.service"), "[Service]\n"),
        file(&format!("{UNITS}/c.service"), "[Service]\n"),
        file(&format!("{UNITS}/gone.service"), "[Service]\n"),
        link("/etc/systemd/system/multi-user.target.wants/a.service", "/usr/a"),
    ];
    let mut new = vec![
        file("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
        file("/usr/lib/etchaos/keys", &format!("{}\n{}\n", key("b"), key("c"))),
        file(&format!("{UNITS}/a.service"), "[Service]\n"),
        file(&format!("{UNITS}/b.service"), "[Service]\n"),
        file(&format!("{UNITS}/c.service"), "[Service]\n"),
        file(&format!("{UNITS}/came.timer"), "[Timer]\n"),
        link("/etc/systemd/system/b.service", "/dev/null"),
        link("/etc/systemd/system/timers.target.requires/c.service", "/usr/c"),
    ];
    let slot = Entry { place: Place::Esp, text: None, ..file("/etchaos/a/release.jwt", "new") };
    let hosts = &mut new[0];
    hosts.access = Some(crate::contents::Access { mode: 0o600, uid: 0, gid: 0 });
    new.push(slot);
    let mut changed = release("bash 5.3 amd64\nlibc6 2.42 amd64 glibc");
    changed.kernel = "6.12.60".into();
    changed.toolchain.insert("rustc".into(), "1.95.0 (2026)".into());
    changed.artifacts[1].size = 1500;
    changed.bootloader = Package::parse_list("grub 2.12 amd64").unwrap();
    changed.version = "13.2".into();
    (
        loaded(release("bash 5.3 amd64\nlibc6 2.41 amd64 glibc\nvim 9 amd64"), old),
        loaded(changed, new),
    )
}

#[test]
fn json_has_every_kind_of_difference() {
    let (old, new) = pair();
    let json = Diff::between(&old, &new).render(Format::Json).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let at =
        |pointer: &str| json.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {json:#}"));
    assert_eq!(at("/old/version"), "13.1");
    assert_eq!(at("/kernel/to"), "6.12.60");
    assert_eq!(at("/toolchain/0/to"), "1.95.0 (2026)");
    assert_eq!((at("/sizes/1/from"), at("/sizes/1/to")), (&1000.into(), &1500.into()));
    assert_eq!(at("/packages/changed/0/source"), "glibc");
    assert_eq!(at("/packages/removed/0/name"), "vim");
    assert_eq!(at("/bootloader/added/0/name"), "grub");
    assert_eq!(at("/image/keys/added/0"), "ed25519public:c:c");
    assert_eq!(at("/image/keys/removed/0"), "ed25519public:a:a");
    assert_eq!(at("/image/units/added/0/name"), "came.timer");
    assert_eq!(at("/image/units/removed/0/name"), "gone.service");
    let units: Vec<_> = at("/image/units/changed")
        .as_array()
        .unwrap()
        .iter()
        .map(|unit| {
            (
                unit["name"].as_str().unwrap(),
                unit["state"]["from"].as_str().unwrap(),
                unit["state"]["to"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        units,
        [
            ("a.service", "enabled", "disabled"),
            ("b.service", "disabled", "masked"),
            ("c.service", "disabled", "enabled")
        ]
    );
    assert_eq!(at("/image/settings/0/path"), "/etc/hosts");
    assert!(at("/image/settings/0/diff").as_str().unwrap().contains("\n+::1 localhost\n"));
    assert_eq!(at("/image/settings/1/presence"), "removed");
    assert_eq!(at("/image/files/changed/0/mode/to"), "0600");
    assert_eq!(at("/image/files/changed/0/size/to"), 34);
    assert!(!json.to_string().contains("release.jwt"), "copies of artifacts are no differences");
}

#[test]
fn text_and_markdown_show_every_section() {
    let (old, new) = pair();
    let diff = Diff::between(&old, &new);
    let (text, markdown) =
        (diff.render(Format::Text).unwrap(), diff.render(Format::Markdown).unwrap());
    for title in [
        "Sizes",
        "Kernel, recipe and toolchain",
        "Packages",
        "Boot loader packages",
        "Trusted keys",
        "Units",
        "Settings",
        "Files",
    ] {
        assert!(text.contains(&format!("\n{title} (")), "no {title} in {text}");
        assert!(markdown.contains(&format!("\n## {title}\n")), "no {title} in {markdown}");
    }
    assert!(text.contains("  ~  libc6    2.41  2.42  glibc\n"), "{text}");
    assert!(text.contains("  initrd  1,000  1,500  +500        × 1.50\n"), "{text}");
    assert!(text.contains("    +::1 localhost\n"), "{text}");
    assert!(text.contains("content, 20 → 34 bytes; mode none → 0600"), "{text}");
    assert!(markdown.contains("| `~` | `libc6` | `2.41` | `2.42` | `glibc` |\n"), "{markdown}");
    assert!(markdown.contains("```diff\n@@ -1 +1,2 @@\n 127.0.0.1"), "{markdown}");
}

#[test]
fn compares_figures_if_both_releases_have_them() {
    let (mut old, _) = pair();
    let (mut new, _) = pair();
    let figures = |claim| Figures::from_json(&claim).unwrap();
    old.figures = figures(example(5.0));
    assert!(Diff::between(&old, &new).figures.is_none(), "only one release has figures");
    let mut claim = example(6.0);
    new.figures = figures(claim.clone());
    let diff = Diff::between(&old, &new);
    assert!(diff.is_empty(), "figures are no differences");
    let text = diff.render(Format::Text).unwrap();
    assert!(text.contains("only if both were measured on the same machine"), "{text}");
    let row = text.lines().find(|line| line.contains("boot uefi: kernel")).unwrap();
    let cells: Vec<&str> = row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(cells, ["boot uefi: kernel", "5.0 s", "6.0 s", "× 1.20"]);
    assert!(text.contains("× 1.00\n"), "{text}");

    claim["machine"]["model"] = "Evil\u{1b}[31m|CPU".into();
    new.figures = figures(claim);
    let diff = Diff::between(&old, &new);
    for format in [Format::Text, Format::Markdown, Format::Json] {
        let shown = diff.render(format).unwrap();
        assert!(!shown.contains('\u{1b}') && shown.contains("Evil"), "{shown:?}");
    }
    let markdown = diff.render(Format::Markdown).unwrap();
    assert!(markdown.contains("different machines and do not compare"), "{markdown}");
}

#[test]
fn equal_releases_have_no_differences() {
    let (old, _) = pair();
    let diff = Diff::between(&old, &old);
    assert!(diff.is_empty());
    assert!(diff.render(Format::Text).unwrap().ends_with("\nno differences\n"));
    assert!(diff.render(Format::Markdown).unwrap().contains("no differences"));
}

#[test]
fn says_which_release_has_no_list_of_files() {
    let (mut old, mut new) = pair();
    old.contents = None;
    let diff = Diff::between(&old, &new);
    assert!(diff.image.is_none() && diff.unlisted == ["old"] && !diff.packages.is_empty());
    let text = diff.render(Format::Text).unwrap();
    assert!(
        text.contains("Only the manifests were compared, because the old release has no"),
        "{text}"
    );
    new.contents = None;
    let text = Diff::between(&old, &new).render(Format::Markdown).unwrap();
    assert!(text.contains("because both releases have no"), "{text}");
}

#[test]
fn text_and_markdown_are_bounded_and_json_is_complete() {
    let lines = |count: usize| (0..count).map(|n| format!("{n}\n")).collect::<String>();
    let mut entries: Vec<Entry> =
        (0..300).map(|n| file(&format!("/etc/{n:04}"), &lines(2))).collect();
    entries.push(file("/etc/0000long", &(lines(500) + &"x".repeat(9000))));
    let (old, new) = (loaded(release(""), Vec::new()), loaded(release(""), entries));
    let diff = Diff::between(&old, &new);
    for format in [Format::Text, Format::Markdown] {
        let shown = diff.render(format).unwrap();
        assert!(shown.len() < 40_000, "{} bytes", shown.len());
        for left in ["… and 101 more\n", "… and 251 more\n", "… and 443 more lines\n"] {
            assert!(shown.contains(left), "no {left:?} in {shown}");
        }
    }
    assert!(diff.render(Format::Markdown).unwrap().contains("<summary>301 differences</summary>"));
    let json = diff.render(Format::Json).unwrap();
    assert!(json.contains("/etc/0299") && json.contains(&"x".repeat(9000)));
}

#[test]
fn hostile_names_and_texts_show_as_they_are() {
    let evil = "/etc/\u{1b}[31m|`<script>\u{202e}\n# heading";
    let text = "\u{1b}]0;title\u{7}\r\n```\n</details><img src=x>\n";
    let new = loaded(release(""), vec![file(evil, text)]);
    let diff = Diff::between(&loaded(release(""), Vec::new()), &new);
    for format in [Format::Text, Format::Markdown, Format::Json] {
        let shown = diff.render(format).unwrap();
        assert!(!shown.contains(['\u{1b}', '\u{7}', '\r', '\u{202e}']), "{shown:?}");
        assert!(!shown.contains("\n# heading"), "{shown}");
    }
    let markdown = diff.render(Format::Markdown).unwrap();
    assert!(markdown.contains("&#96;&#60;script&#62;"), "{markdown}");
    // The text is in a block whose fence is longer than the one in it.
    assert!(markdown.contains("````diff\n") && markdown.contains("\n+```\n"), "{markdown}");
}

#[test]
fn settings_that_would_take_long_to_compare_are_not_compared() {
    let lines =
        |odd: usize| (0..12_000).map(|n| format!("{}\n", (2 * n + odd) % 997)).collect::<String>();
    let with = |text: &str| loaded(release(""), vec![file("/etc/long", text)]);
    let diff = Diff::between(&with(&lines(0)), &with(&lines(1)));
    let image = diff.image.unwrap();
    assert!(image.settings[0].diff.contains("too many lines"), "{}", image.settings[0].diff);
    assert_eq!(image.files.changed.len(), 1);
}
