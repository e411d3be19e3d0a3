use super::*;

use std::fs;

use serde_json::{Value, json};

/// Reads a drop-in, or a rendered variant if there is no directory of sources.
fn read(value: &Value, sources: Option<&Path>) -> Result<Content> {
    Content::read(&Field::root("x.jsonnet", value).object(&Content::FIELDS)?, sources)
}

/// Checks that reading fails with an error that has all of these texts.
fn fails(value: &Value, texts: &[&str]) {
    let error = read(value, None).expect_err(&value.to_string()).to_string();
    for text in texts {
        assert!(error.contains(text), "{value}: expected {text:?} in: {error}");
    }
}

#[test]
fn reads_all_fields() {
    let sha256 = "ab".repeat(32);
    let value = json!({
        "packages": ["tcpdump", "libstdc++6", "NetworkManager"],
        "units": {"enable": ["tool@a:b.service"], "mask": ["dev-disk-by\\x2dlabel.mount"]},
        "files": [
            {"path": "/etc/tool/settings", "content": "a\n", "mode": "0640"},
            {"path": "/usr/lib/systemd/system/tool@.service", "content": ""},
        ],
        "kernelArguments": ["mitigations=auto,nosmt", "quiet", "console=ttyS1,115200n8"],
        "binaries": [{
            "name": "tool", "url": "https://host.example/tool", "sha256": sha256, "path": "/usr/bin/tool",
        }],
    });
    let content = read(&value, None).unwrap();
    assert_eq!(content.packages.len(), 3);
    assert_eq!(content.units.enable, ["tool@a:b.service"]);
    assert_eq!((content.files[0].mode, content.files[1].mode), (0o640, 0o644));
    assert_eq!(content.files[0].bytes, Bytes::Text("a\n".into()));
    assert_eq!(content.kernel_arguments.len(), 3);
    let paths: Vec<&str> = content.paths().collect();
    assert_eq!(paths[2], "/usr/bin/tool");
    assert!(read(&json!({}), None).unwrap().packages.is_empty());
}

#[test]
fn unknown_fields_name_the_file_the_allowed_fields_and_the_nearest_name() {
    let allowed = "allowed: packages, units, files, kernelArguments, binaries, disk4k";
    fails(
        &json!({"packges": []}),
        &["unknown field \"packges\" in x.jsonnet", "did you mean \"packages\"?", allowed],
    );
    fails(&json!({"zzz": []}), &["unknown field \"zzz\" in x.jsonnet; allowed"]);
    fails(
        &json!({"units": {"enabled": []}}),
        &["\"enabled\" in units of x.jsonnet", "did you mean \"enable\"?", "enable, disable, mask"],
    );
    fails(
        &json!({"files": [{"path": "/etc/a", "content": ""}, {"pth": "/etc/b"}]}),
        &["\"pth\" in files[1] of x.jsonnet", "did you mean \"path\"?", "path, mode, content"],
    );
}

#[test]
fn wrong_types_name_the_field_and_what_was_found() {
    fails(&json!([]), &["x.jsonnet is []", "expected an object"]);
    fails(&json!({"packages": "tcpdump"}), &["packages of x.jsonnet is \"tcpdump\"", "a list"]);
    fails(&json!({"packages": [7]}), &["packages[0] of x.jsonnet is 7", "a text"]);
    fails(&json!({"units": []}), &["units of x.jsonnet", "an object"]);
    fails(&json!({"files": [{"content": ""}]}), &["files[0] of x.jsonnet has no field \"path\""]);
    let long = "x".repeat(5000);
    assert!(read(&json!({"units": long}), None).unwrap_err().to_string().len() < 200);
    let control = json!({"packages": ["a\u{1b}[31m\n"]});
    assert!(!read(&control, None).unwrap_err().to_string().contains(['\u{1b}', '\n']));
}

#[test]
fn rejects_names_that_are_no_packages_or_units() {
    for name in ["", "-o", "a b", "a,b", "a=1", "a$(id)", "a`id`", "a\"", "a/b", "a\n", "é"] {
        fails(&json!({"packages": [name]}), &["packages[0]", "the name of a package"]);
    }
    let long = format!("{}.service", "a".repeat(300));
    for name in
        ["", "tool", "tool.exe", "-a.service", "a b.service", "a/b.service", "a;.socket", &long]
    {
        fails(&json!({"units": {"mask": [name]}}), &["units.mask[0]", "systemd unit"]);
    }
    fails(
        &json!({"units": {"enable": ["a.timer"], "mask": ["a.timer"]}}),
        &["units.mask[0]", "listed twice"],
    );
}

#[test]
fn rejects_paths_that_the_image_cannot_have() {
    let reserved = ["/usr/lib/etchaos/keys", "/usr/lib/etchaos/updater.json"];
    let outside =
        ["/tmp/a", "/root/.ssh/authorized_keys", "/var/log/a", "/boot/a", "/home/a", "usr/a"];
    let wrong =
        ["", "/", "/etc", "/etc/", "/etc//a", "/etc/../usr/a", "/etc/./a", "/etc/a/", "/etc/.a"];
    let characters = ["/etc/a b", "/etc/a\nb", "/etc/$a", "/etc/'a", "/etc/é"];
    let long = format!("/etc/{}", "a".repeat(600));
    let all = [&reserved[..], &outside, &wrong, &characters, &[&long]].concat();
    for path in all {
        fails(&json!({"files": [{"path": path, "content": ""}]}), &["files[0].path", "below /usr"]);
    }
    let twice = json!({"files": [
        {"path": "/etc/a", "content": ""}, {"path": "/etc/a", "content": "", "mode": "600"},
    ]});
    fails(&twice, &["files[1]", "/etc/a has another content already"]);
}

#[test]
fn rejects_modes_that_are_unsafe_or_no_modes() {
    let modes = [
        "4755", "2755", "1777", "666", "775", "0777", "044", "0", "", "rw", "+644", "00644", "888",
    ];
    for mode in modes {
        let value = json!({"files": [{"path": "/etc/a", "content": "", "mode": mode}]});
        fails(&value, &["files[0].mode", "octal mode"]);
    }
    fails(&json!({"files": [{"path": "/etc/a", "content": "", "mode": 644}]}), &["a text"]);
}

#[test]
fn rejects_kernel_arguments_that_grub_would_interpret_or_that_etchaos_needs() {
    let special = [
        "", "a b", "a\"", "a'", "$a", "a$b", "a;reboot", "a{b", "a}", "a|b", "a&", "a\\b", "a\nb",
        "a*", "a?", "a[0]", "a#b", "a<b", "--", "-a", "é", "a\tb", "a`b",
    ];
    for argument in special {
        fails(
            &json!({"kernelArguments": [argument]}),
            &["kernelArguments[0]", "an argument such as"],
        );
    }
    for argument in
        ["panic=0", "panic", "init=/bin/sh", "etchaos.slot=b", "etchaos.trial=3", "initrd=x"]
    {
        let value = json!({"kernelArguments": ["quiet", argument]});
        fails(&value, &["kernelArguments[1]", "EtchaOS sets this parameter itself"]);
    }
    let many: Vec<String> = (0..200).map(|number| format!("a{number}=1234")).collect();
    fails(&json!({"kernelArguments": many}), &["more than 1024 bytes"]);
}

#[test]
fn rejects_binaries_without_digest_or_http_url_or_path_below_usr() {
    let good = json!({
        "name": "tool", "url": "https://host.example/tool", "sha256": "ab".repeat(32),
        "path": "/usr/bin/tool",
    });
    read(&json!({"binaries": [good]}), None).unwrap();
    let upper = "AB".repeat(32);
    for (field, wrong) in [
        ("path", "/etc/tool"),
        ("path", "usr/bin/tool"),
        ("path", "/usr/../etc/tool"),
        ("path", "/usr/bin/"),
        ("path", "/usr//tool"),
        ("path", "/usr/lib/etchaos/keys"),
        ("sha256", &upper),
        ("sha256", "ab"),
        ("url", "file:///etc/passwd"),
        ("url", "https://user:secret@host.example/tool"),
        ("name", "a b"),
        ("name", ""),
    ] {
        let mut binary = good.clone();
        binary[field] = json!(wrong);
        fails(&json!({"binaries": [binary]}), &[&format!("binaries[0].{field}"), "expected"]);
    }
}

#[test]
fn copies_only_regular_files_of_the_directory_of_the_drop_in() {
    let directory = tempfile::tempdir().unwrap();
    let drop_ins = directory.path().join("deb.d");
    fs::create_dir_all(drop_ins.join("sub")).unwrap();
    fs::write(drop_ins.join("sub/file"), "abc").unwrap();
    fs::write(directory.path().join("secret"), "s").unwrap();
    std::os::unix::fs::symlink("../secret", drop_ins.join("link")).unwrap();
    nix::unistd::mkfifo(&drop_ins.join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let read = |source: &str| {
        let value = json!({"files": [{"path": "/etc/a", "source": source}]});
        read(&value, Some(&drop_ins))
    };
    let content = read("sub/file").unwrap();
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".to_owned();
    let source = Some(drop_ins.join("sub/file"));
    assert_eq!(content.files[0].bytes, Bytes::Digest { sha256, source });
    for source in
        ["link", "fifo", "sub", "nowhere", "../secret", "/etc/passwd", "sub/../sub/file", ""]
    {
        let error = format!("{:#}", read(source).expect_err(source));
        assert!(error.contains("files[0].source of x.jsonnet"), "{error}");
    }
    let both = json!({"files": [{"path": "/etc/a", "source": "sub/file", "content": ""}]});
    let error = super::tests::read(&both, Some(&drop_ins)).unwrap_err().to_string();
    assert!(error.contains("either \"content\" or \"source\""), "{error}");
}
