//! `builder inspect` shows any token, and nothing in a token reaches the terminal as a control character.

use std::fs;
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::world::{World, target};

/// Returns a token without a valid signature.
fn token(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2lnbmF0dXJl\n", encode(header), encode(claims))
}

#[test]
fn shows_a_manifest_and_checks_its_signature() {
    let world = World::new();
    world.build("out", "a");
    world.publish("out", "").ok();
    let file = format!("cdn/{}", target().manifest_name());
    let text = world.run(&format!("inspect {file}")).ok();
    for part in
        ["not checked", "alg: \"EdDSA\"", "iss: \"etchaos\"", "version: \"13.a\"", "409600 bytes"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = world.run(&format!("inspect {file} --trusted-key @key.pub")).ok();
    assert!(text.contains("signature: valid, by the key"), "{text}");
    world.keygen("other");
    let run = world.run(&format!("inspect {file} --trusted-key @other.pub --json"));
    let run = run.failed(&["the signature is not valid", "not trusted"]);
    let shown: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(shown["verified"], false);
    assert_eq!(shown["claims"]["etchaosRelease"]["variant"], "deb");
}

/// Etcha writes such tokens: Jsonnet in the Pattern, and no key id.
#[test]
fn shows_tokens_of_etcha_and_of_unknown_targets() {
    let world = World::new();
    let claims = json!({
        "etchaBuildManifest": "bash 5.2 amd64\nadduser 3 all\n",
        "etchaPattern": {
            "entrypoint": "/main.jsonnet",
            "files": {"/main.jsonnet": "{\n  run: [],\n}\n", "/lib/x.libsonnet": "{}"},
        },
        "etchaRunVars": {"a": [1, {"b": null}]},
        "etchaVersion": "2024.10.1",
        "exp": 1_700_000_000,
        "etchaosRelease": {"variant": "nosuch", "arch": "mips", "artifacts": 5, "packages": {}},
    });
    for header in [
        json!({"alg": "EdDSA", "typ": "JWT"}),
        json!({"alg": "ES256", "kid": "an RSA key"}),
        json!({"alg": "none", "crit": ["x"], "x5c": []}),
        json!({}),
    ] {
        fs::write(world.path("token"), token(&header, &claims)).unwrap();
        let text = world.run("inspect token").ok();
        for part in ["main.jsonnet", "15 bytes", "2 lines", "2023-11-14", "\"nosuch\"", "2024.10.1"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let run = world.run("inspect token --trusted-key @key.pub");
        assert!(run.failed(&["the signature is not valid"]).stdout.contains("NOT VALID"));
    }
}

#[test]
fn shows_no_control_characters() {
    let world = World::new();
    let evil = "a\u{1b}[2J\r\n\u{7}\u{7f}\u{9b}31m\u{202e}b\u{200b}";
    let claims = json!({
        evil: evil,
        "iat": evil,
        "etchaBuildManifest": {evil: evil},
        "etchaPattern": {"entrypoint": evil, "files": {evil: evil, "x": {evil: 1}}},
        "etchaosRelease": {
            evil: evil,
            "epoch": [evil],
            "packages": evil,
            "artifacts": [{"url": evil, "size": evil}, evil],
        },
    });
    let header = json!({evil: evil, "alg": evil, "kid": evil, "typ": evil});
    fs::write(world.path("token"), token(&header, &claims)).unwrap();
    for arguments in
        ["inspect token", "inspect token --trusted-key @key.pub", "inspect token --json"]
    {
        let run = world.run(arguments);
        let hidden =
            |c: &char| (c.is_control() && *c != '\n') || matches!(c, '\u{200b}'..='\u{202e}');
        for text in [&run.stdout, &run.stderr] {
            let found: Vec<char> = text.chars().filter(hidden).collect();
            assert!(found.is_empty(), "{arguments}: {found:?} in {text:?}");
        }
        assert!(!run.stdout.contains("31m\u{202e}") && run.stdout.contains("31m"), "{arguments}");
    }
}

#[test]
fn rejects_what_is_no_token() {
    let world = World::new();
    let cases: [(&[u8], &str); 5] = [
        (b"", "not a JWT"),
        (b"a.b", "not a JWT"),
        (b"\xff\xfe", "UTF-8"),
        (b"bm8.bm8.bm8", "reading token"),
        (&[b'x'; 2 << 20], "more than 1048576"),
    ];
    for (bytes, expected) in cases {
        fs::write(world.path("token"), bytes).unwrap();
        world.run("inspect token").failed(&["token", expected]);
    }
    world.run("inspect nowhere").failed(&["reading nowhere", "No such file"]);
    world.run("inspect .").failed(&["Is a directory"]);
    let mut command = world.command("inspect -");
    command.stdin(Stdio::null());
    crate::world::Run::of(command, "inspect -").failed(&["not a JWT"]);
}
