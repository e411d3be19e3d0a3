//! What is a configuration, and what is not.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;

const JSON: &str = r#"{"cdn": "https://x.example"}"#;

fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Returns a MIME message with parts of these header fields and bodies.
fn mime(parts: &[(&str, &str)]) -> String {
    let parts: String =
        parts.iter().map(|(header, body)| format!("--==1==\n{header}\n\n{body}\n")).collect();
    format!(
        "Content-Type: multipart/mixed; boundary=\"==1==\"\nMIME-Version: 1.0\n\npreamble\n{parts}--==1==--\n"
    )
}

fn reason(data: &[u8]) -> String {
    match UserData::classify(data) {
        UserData::Foreign(reason) => reason,
        other => panic!("{other:?}: {:?}", String::from_utf8_lossy(data)),
    }
}

fn broken(data: &[u8]) -> String {
    match UserData::classify(data) {
        UserData::Broken { reason, .. } => reason,
        other => panic!("{other:?}: {:?}", String::from_utf8_lossy(data)),
    }
}

#[test]
fn ignores_what_is_for_other_programs() {
    let cloud = "#cloud-config\npackages: [vim]\n";
    let parts = mime(&[("Content-Type: text/cloud-config", cloud), ("X: y", JSON)]);
    for (data, part) in [
        (String::new(), "empty"),
        (" \n".into(), "empty"),
        ("#".into(), "begins with #"),
        (cloud.into(), "cloud-init"),
        ("#cloud-config\n{\"packages\": [\"vim\"]}\n".into(), "cloud-init"),
        ("#cloud-config\n{\"cdn\": \"x\", \"packages\": []}\n".into(), "cloud-init"),
        ("#cloud-config\n{\"hostname\": \"x\", \"ntp\": {}}\n".into(), "cloud-init"),
        ("{\"hostname\": \"x\", \"ntp\": {\"enabled\": true}}".into(), "none of the keys"),
        (format!("\u{feff}{cloud}"), "cloud-init"),
        (format!("{cloud}{}", "# x\n".repeat(100_000)), "cloud-init"),
        ("#!/bin/sh\necho {}\n".into(), "script"),
        ("#include\nhttps://example.com/x\n".into(), "begins with #"),
        ("## template: jinja\n#cloud-config\n".into(), "begins with #"),
        (r##"{"ignition": {"version": "3.4.0"}, "storage": {}}"##.into(), "Ignition"),
        ("{}".into(), "none of the keys"),
        ("{".into(), "none of the keys"),
        (r#"{"run": {}, "sources": {}}"#.into(), "Etcha itself, because it has `run`"),
        ("{ sources: { ci: {} }, vars: {} }".into(), "Etcha itself"),
        (r#"{"fallthrough": true}"#.into(), "Etcha itself"),
        ("local k = 'x';\n{ run: { verifyKeys: [k] } }".into(), "Etcha itself"),
        ("// host\n{ targets: {} }".into(), "Etcha itself"),
        ("std.mergePatch({ run: {} }, {})".into(), "Etcha itself"),
        ("local n = import '../lib/etcha/native.libsonnet';\n{ run: [] }".into(), "Etcha itself"),
        ("packages:\n  - vim\ncdn: x\n".into(), "neither a JSON object"),
        ("cdn: x".into(), "neither a JSON object"),
        (format!("[{JSON}]"), "neither a JSON object"),
        ("null".into(), "neither a JSON object"),
        ("<powershell>\nreboot\n</powershell>\n".into(), "neither a JSON object"),
        ("<?xml version=\"1.0\"?>\n<unattend/>\n".into(), "neither a JSON object"),
        ("<!DOCTYPE html><html><body>404</body></html>".into(), "neither a JSON object"),
        ("version: v1alpha1\nmachine:\n  type: worker\n".into(), "neither a JSON object"),
        ("[settings]\nmetrics = true\n".into(), "neither a JSON object"),
        ("#version=RHEL9\ntext\nreboot\n".into(), "begins with #"),
        ("{{ ds.meta_data }}\n{\"cdn\": \"x\"}".into(), "none of the keys"),
        ("{\"level\": 1}\n{\"cdn\": \"x\"}\n".into(), "none of the keys"),
        // Some keys of a configuration are keys of other programs too.
        (r#"{"variant": "fcos", "version": "1.5.0"}"#.into(), "Butane"),
        (r#"{"variant": "flatcar", "version": "1.0.0", "storage": {}}"#.into(), "Butane"),
        (r#"{"ignition": {"version": "3.4.0"}, "proxy": {}}"#.into(), "Ignition"),
        (r#"{"agent": {}, "logs": {}, "metrics": {}}"#.into(), "half of its keys"),
        (r#"{"hostname": "h", "keys": ["ssh-ed25519 x"]}"#.into(), "half of its keys"),
        (r#"{"name": "x", "health": {"path": "/"}}"#.into(), "half of its keys"),
        (parts.clone(), "none of its 2 parts"),
        (STANDARD.encode(cloud), "cloud-init"),
        (STANDARD.encode(&parts), "none of its 2 parts"),
        ("Content-Type: multipart/mixed\n\nx".into(), "without a boundary"),
        ("Content-Type: text/plain\n\nx".into(), "none of its 1 parts"),
        ("x".repeat(2 << 20), "larger than"),
    ] {
        let reason = reason(data.as_bytes());
        assert!(reason.contains(part) && reason.contains("#etchaos"), "{reason}: {data:.60}");
    }
    assert!(reason(&compress(cloud.as_bytes())).contains("cloud-init"));
    assert!(reason(&compress(cloud.as_bytes())[..30]).contains("gzip that is damaged"));
    assert!(reason(b"\x1f\x8b").contains("gzip that is damaged"));
    assert!(reason(b"\xff\xfe#").contains("UTF-16"));
    assert!(reason(b"\xff\xfe\0\0#").contains("UTF-32"));
    let wide: Vec<u8> = "x".repeat(1 << 20).encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(reason(&wide[..USER_DATA_MAX + 1]).contains("larger than"));
    // A megabyte of zeros takes a kilobyte.
    let bomb = compress(&vec![0; 64 << 20]);
    assert!(reason(&bomb).contains("larger than"));
    let nested = (0..10).fold(JSON.as_bytes().to_vec(), |inner, _| compress(&inner));
    assert!(reason(&nested).contains("more than once"));
}

#[test]
fn finds_configurations() {
    let headed_body = format!("#etchaos\n{JSON}");
    let typed = mime(&[
        ("Content-Type: text/x-shellscript", "#!/bin/sh"),
        ("content-type: Text/Etchaos; charset=utf-8", JSON),
    ]);
    let headed =
        mime(&[("Content-Type: text/plain", &format!("#etchaos\r\n{JSON}"))]).replace('\n', "\r\n");
    let encoded = mime(&[(
        "Content-Type: text/etchaos\nContent-Transfer-Encoding: base64",
        &STANDARD.encode(JSON),
    )]);
    let parts = |parts: &[(&str, &str)]| mime(parts).replace("==1==", "==2==");
    let inner = parts(&[("Content-Type: text/x-shellscript", "#!/bin/sh"), ("X: y", &headed_body)]);
    let nested = mime(&[("Content-Type: text/plain", "x"), inner.split_once('\n').unwrap()]);
    let zipped = mime(&[(
        "Content-Type: application/gzip\nContent-Transfer-Encoding: base64",
        &STANDARD.encode(compress(headed_body.as_bytes())),
    )]);
    let cut = typed.strip_suffix("--==1==--\n").unwrap().to_owned();
    let texts = [
        JSON.to_owned(),
        format!("\n {JSON}\n"),
        format!("#etchaos\n{JSON}"),
        format!("#etchaos \r\n\r\n{JSON}"),
        format!("\u{feff}#etchaos\n{JSON}"),
        format!("#cloud-config\n{JSON}"),
        format!("Content-Type: text/etchaos\n\n{JSON}"),
        format!("MIME-Version: 1.0\nContent-Type: text/plain\n\n#etchaos\n{JSON}"),
        nested,
        zipped,
        typed,
        headed,
        encoded,
        cut,
    ];
    for text in texts {
        let gzip = compress(text.as_bytes());
        let plain = text.trim_start_matches('\u{feff}');
        let wide: Vec<u8> =
            format!("\u{feff}{plain}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        for data in [
            text.clone().into_bytes(),
            wide,
            STANDARD.encode(&text).into_bytes(),
            STANDARD_NO_PAD.encode(&text).into_bytes(),
            URL_SAFE.encode(&text).into_bytes(),
            gzip.clone(),
            STANDARD.encode(&gzip).into_bytes(),
            STANDARD.encode(STANDARD.encode(&gzip)).into_bytes(),
        ] {
            assert_eq!(UserData::classify(&data), UserData::Config(JSON.into()), "{text}");
        }
    }
    for (data, json) in [
        ("#etchaos\n{\"cdn\":", "{\"cdn\":"),
        ("#etchaos", ""),
        ("#etchaos\n{\"run\": {}}", "{\"run\": {}}"),
        ("{\"cdn\": ", "{\"cdn\":"),
        ("{\"x\": [], \"reboot\": 1, \"cdn\": 2}", "{\"x\": [], \"reboot\": 1, \"cdn\": 2}"),
        ("{cdn: 'x'}", "{cdn: 'x'}"),
        ("local k = 'x';\n{ cdn: k }", "local k = 'x';\n{ cdn: k }"),
        (
            r#"{"no_proxy": [], "rate_limit": 1, "cdn": "x"}"#,
            r#"{"no_proxy": [], "rate_limit": 1, "cdn": "x"}"#,
        ),
        // The keys are those of a configuration, so an error in it is reported.
        ("#cloud-config\n{\"cdn\": \"x\", \"reboot\": 1}", "{\"cdn\": \"x\", \"reboot\": 1}"),
    ] {
        assert_eq!(UserData::classify(data.as_bytes()), UserData::Config(json.into()), "{data}");
    }
}

#[test]
fn reports_configurations_that_cannot_be_read() {
    let ours = ("Content-Type: text/etchaos", JSON);
    assert!(broken(mime(&[ours, ours]).as_bytes()).contains("several configurations"));
    for encoding in ["quoted-printable", "base64"] {
        let header = format!("Content-Type: text/etchaos\nContent-Transfer-Encoding: {encoding}");
        assert!(
            broken(mime(&[(&header, "=3D{")]).as_bytes())
                .contains("the part with the configuration")
        );
    }
    let large = format!("#etchaos\n{{\"cdn\": \"{}\"}}", "x".repeat(USER_DATA_MAX));
    assert!(broken(large.as_bytes()).contains("larger than the limit"));
    assert!(broken(&compress(large.as_bytes())).contains("larger than the limit"));
    let gzip = compress(format!("#etchaos\n{}", JSON.repeat(1000)).as_bytes());
    let damaged = &gzip[..gzip.len() - 4];
    assert!(broken(damaged).contains("gzip that is damaged"));
}

/// A part of a kilobyte can become a megabyte, and a message can have many of them.
#[test]
fn limits_the_parts_of_a_message_together() {
    let zipped = |text: &str| STANDARD.encode(compress(text.as_bytes()));
    let header = "Content-Type: text/etchaos\nContent-Transfer-Encoding: base64";
    let (half, whole) = (USER_DATA_MAX / 2 + 1, USER_DATA_MAX);
    let body = |size: usize| zipped(&format!("#etchaos\n{{\"health\": {}", "x".repeat(size)));
    let foreign = |size: usize| zipped(&"#".repeat(size));
    for bodies in
        [vec![body(half), body(half)], vec![body(whole); 256], vec![body(half), foreign(half)]]
    {
        let parts: Vec<(&str, &str)> = bodies.iter().map(|body| (header, body.as_str())).collect();
        match UserData::classify(mime(&parts).as_bytes()) {
            UserData::Broken { reason, text } => {
                assert!(reason.contains("larger than the limit"), "{reason}");
                assert!(text.len() <= USER_DATA_MAX + 1, "{}", text.len());
                assert!(text.starts_with(b"{\"health\": "));
            }
            other => panic!("{}", format!("{other:?}").len()),
        }
    }
    // Nothing says that the message is a configuration.
    let header = "Content-Type: text/plain\nContent-Transfer-Encoding: base64";
    let bodies = vec![foreign(half); 256];
    let parts: Vec<(&str, &str)> = bodies.iter().map(|body| (header, body.as_str())).collect();
    assert!(reason(mime(&parts).as_bytes()).contains("larger than the limit"));
    // Parts for other programs may be large, as long as the message is not too large.
    let quarter = foreign(USER_DATA_MAX / 4);
    let parts = [(header, &*quarter), (header, &*quarter), ("Content-Type: text/etchaos", JSON)];
    assert_eq!(UserData::classify(mime(&parts).as_bytes()), UserData::Config(JSON.into()));
}

/// The caller looks for `health` and `reboot` in the text.
#[test]
fn broken_configurations_have_their_decoded_text() {
    let json = r#"{"health": {"checks": ["true"]}}"#;
    let gzip = compress(format!("#etchaos\n{json}{}", " ".repeat(1000)).as_bytes());
    let ours = ("Content-Type: text/etchaos", json);
    let cloud = ("Content-Type: text/cloud-config", "#cloud-config\npower_state: {mode: reboot}");
    let large = format!("#etchaos\n{json}{}", "x".repeat(USER_DATA_MAX));
    let quoted = "Content-Type: text/plain\nContent-Transfer-Encoding: quoted-printable";
    for data in [
        gzip[..gzip.len() - 4].to_vec(),
        mime(&[cloud, ours, ours]).into_bytes(),
        large.as_bytes().to_vec(),
        compress(large.as_bytes()),
        mime(&[(quoted, &format!("#etchaos\n{json}"))]).into_bytes(),
    ] {
        let UserData::Broken { text, .. } = UserData::classify(&data) else {
            panic!("{:?}", String::from_utf8_lossy(&data[..100]))
        };
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("health") && !text.contains("reboot"), "{text}");
    }
}

#[test]
fn reasons_show_no_part_of_the_data() {
    for data in [
        "#SECRET",
        "#!/bin/SECRET\nSECRET",
        "{\"SECRET\": 1}",
        "SECRET: 1",
        "Content-Type: multipart/SECRET; boundary=SECRET\n\n--SECRET\nX: y\n\nSECRET",
    ] {
        assert!(!reason(data.as_bytes()).contains("SECRET"), "{data}");
    }
}

proptest! {
    #[test]
    fn the_header_makes_every_text_a_configuration(text in "(\\PC|\n){0,60}") {
        let data = format!("#etchaos\n{text}");
        let config = text.as_bytes().trim_ascii().to_vec();
        prop_assert_eq!(UserData::classify(data.as_bytes()), UserData::Config(config));
    }

    #[test]
    fn does_not_panic_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = UserData::classify(&bytes);
        let _ = UserData::classify(&[b"\x1f\x8b\x08", bytes.as_slice()].concat());
    }

    #[test]
    fn does_not_panic_on_any_message(body in "(--b|--b--|\n|\r|: |[a-z-]{0,4}|#etchaos|\\{\\}){0,30}") {
        let _ = UserData::classify(format!("Content-Type: multipart/x; boundary=b\n\n{body}").as_bytes());
        let _ = UserData::classify(body.as_bytes());
    }
}
