//! Forged, damaged and wrong input from servers and disks. Each case is an error that changes nothing.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use protocol::esp::Slot::{A, B};
use protocol::token::sign;
use protocol::{Claims, PrivateKey, Release, Role};
use serde_json::json;

use crate::server::{Reply, Server};
use crate::world::{World, claims, content, now, release, target};

/// Asserts that `check` and `update` fail with all of these messages, and change nothing on the ESP.
#[track_caller]
fn assert_rejected(world: &World, messages: &[&str]) {
    let before = world.tree();
    world.run(&["check"]).failed(messages);
    world.run(&["update"]).failed(messages);
    assert_eq!(world.tree(), before);
    assert!(!world.rebooted());
    let error = world.run(&["update", "--json"]).json()["error"].to_string();
    assert!(!error.is_empty());
}

/// Returns a token with this header and signature.
fn forge(header: serde_json::Value, claims: &Claims, signature: &[u8]) -> String {
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let claims = serde_json::to_vec(claims).unwrap();
    format!("{}.{}.{}", part(header.to_string().as_bytes()), part(&claims), part(signature))
}

/// Signs any claims, including those that the protocol crate refuses to sign.
fn sign_json(key: &PrivateKey, claims: &serde_json::Value) -> String {
    use base64::engine::general_purpose::STANDARD;
    use rustls::SignatureScheme;
    use rustls::crypto::aws_lc_rs::sign::any_eddsa_type;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let der = STANDARD.decode(key.reveal().split(':').nth(1).unwrap()).unwrap();
    let header = json!({"alg": "EdDSA", "kid": key.id(), "typ": "JWT"}).to_string();
    let message = format!("{}.{}", part(header.as_bytes()), part(claims.to_string().as_bytes()));
    let pair = any_eddsa_type(&PrivatePkcs8KeyDer::from(der)).unwrap();
    let signer = pair.choose_scheme(&[SignatureScheme::ED25519]).unwrap();
    format!("{message}.{}", part(&signer.sign(message.as_bytes()).unwrap()))
}

#[test]
fn rejects_manifests_not_signed_by_a_trusted_key() {
    let world = World::new();
    let claims = claims(&release(2));
    let stranger = PrivateKey::generate();
    world.publish_token(sign(&stranger, &claims).unwrap());
    assert_rejected(&world, &["cannot be trusted", stranger.id(), "trusted:", world.key.id()]);

    let impostor: PrivateKey =
        stranger.reveal().replace(stranger.id(), world.key.id()).parse().unwrap();
    world.publish_token(sign(&impostor, &claims).unwrap());
    assert_rejected(&world, &["signature does not match"]);

    for alg in ["none", "HS256"] {
        let header = json!({"alg": alg, "kid": world.key.id(), "typ": "JWT"});
        world.publish_token(forge(header, &claims, b"any signature"));
        assert_rejected(&world, &[alg, "EdDSA"]);
    }
}

#[test]
fn rejects_incomplete_manifests() {
    let world = World::new();
    let token = sign(&world.key, &claims(&release(2))).unwrap();
    world.publish_token(&token[..token.len() / 2]);
    assert_rejected(&world, &["cannot be trusted", "truncated"]);
    world.publish_token(&token[..token.len() - 4]);
    assert_rejected(&world, &["cannot be trusted"]);
    world.publish_token("<html>Please log in</html>");
    assert_rejected(&world, &["not a JWT"]);
    world.publish_token("");
    assert_rejected(&world, &["not a JWT"]);
    world.publish_token("x".repeat(2 << 20));
    assert_rejected(&world, &["more than 1048576"]);
    let path = format!("/{}", target().manifest_name());
    world.cdn.put(&path, Reply { length: Some(Some(1_000_000)), ..Reply::ok(token) });
    assert_rejected(&world, &["could not be read to its end"]);
}

#[test]
fn rejects_signed_manifests_with_wrong_claims() {
    let world = World::new();
    let publish = |claims: &Claims| world.publish_token(sign(&world.key, claims).unwrap());
    let good = claims(&release(2));

    publish(&Claims { exp: Some(now() - 600), ..good.clone() });
    assert_rejected(&world, &["expired"]);
    publish(&Claims { iat: Some(now() + 600), ..good.clone() });
    assert_rejected(&world, &["is the clock right"]);
    publish(&Claims { etchaos_release: None, ..good.clone() });
    assert_rejected(&world, &["not a manifest"]);
    publish(&claims(&Release { variant: "fed".parse().unwrap(), ..release(2) }));
    assert_rejected(&world, &["is for fed_", "expected deb_"]);
    publish(&claims(&Release { schema: 7, ..release(2) }));
    assert_rejected(&world, &["schema 7"]);
    // The manifest inside a disk image never expires, so it could be replayed for ever.
    publish(&Claims { exp: None, iat: None, ..claims(&Release { build: 0, ..release(2) }) });
    assert_rejected(&world, &["build 0", "inside a disk image"]);
    publish(&claims(&Release { build: 0, ..release(2) }));
    assert_rejected(&world, &["build 0"]);

    for url in ["../../etc/passwd", "http://evil.example/x", "file:///etc/passwd"] {
        let mut release = release(2);
        release.artifacts[0].url = url.into();
        publish(&claims(&release));
        let before = world.tree();
        world.run(&["update"]).failed(&["the artifact's URL"]);
        assert_eq!(world.tree(), before);
    }
}

#[test]
fn rejects_signed_manifests_of_unknown_schemas() {
    let world = World::new();
    for (claims, message) in [
        (
            json!({"etchaosRelease": {"schema": 9, "images": []}}),
            "schema 9, but this program supports only schema 1",
        ),
        (json!({"etchaosRelease": {"schema": 1, "images": []}}), "missing field"),
        (json!({"exp": "tomorrow"}), "invalid type"),
    ] {
        world.publish_token(sign_json(&world.key, &claims));
        assert_rejected(&world, &[message, "signed by a trusted key"]);
        let stderr = world.run(&["check"]).stderr;
        assert!(!stderr.contains("cannot be trusted"), "{stderr}");
    }
}

#[test]
fn installs_older_releases_only_with_allow_downgrade() {
    let world = World::new();
    world.fill(A, 5, 5);
    world.publish(4);
    assert_rejected(&world, &["older", "--allow-downgrade"]);
    world.run(&["update", "--allow-downgrade"]).ended(0);
    world.assert_slot(B, 4);
}

#[test]
fn rejects_artifacts_that_differ_from_the_manifest() {
    let initrd = || content(Role::Initrd, 2);
    let mut damaged = initrd();
    damaged[1000] ^= 1;
    let mut long = initrd();
    long.extend(b"more");
    let short = initrd()[..5000].to_vec();
    let size = initrd().len() as u64;
    let sha = release(2).artifacts[1].sha256.clone();
    let expected = size.to_string();
    let unannounced = |body: &[u8]| Reply { length: Some(None), ..Reply::ok(body) };
    let cases: Vec<(Reply, Vec<&str>)> = vec![
        (Reply::ok(damaged), vec!["SHA-256", &sha, "initrd"]),
        (Reply::ok(long.clone()), vec!["announces", &expected]),
        (unannounced(&long), vec!["sends more than", &expected]),
        (Reply::ok(short.clone()), vec!["announces 5000", &expected]),
        (unannounced(&short), vec!["ended after 5000", &expected]),
        (Reply { length: Some(Some(size)), ..Reply::ok(short) }, vec!["ended after 5000"]),
        (Reply::ok("<html>Sorry</html>"), vec!["announces"]),
        (Reply { status: 404, ..Reply::default() }, vec!["404", "2.initrd"]),
        (Reply { status: 500, ..Reply::default() }, vec!["500"]),
    ];
    for (reply, messages) in cases {
        let world = World::new();
        world.publish(2);
        world.cdn.put("/2.initrd", reply);
        world.run(&["update"]).failed(&messages);
        assert_eq!(world.boots(), (A, None), "{messages:?}");
        world.assert_slot(A, 1);
        assert!(!world.esp("etchaos/b/release.jwt").exists());
        assert!(!world.rebooted());
        // The next update succeeds once the CDN is repaired. A wrong file is not downloaded again as long
        // as the manifest is the same.
        world.publish(2);
        let claims = Claims { iat: Some(now() - 9), ..claims(&release(2)) };
        world.publish_token(sign(&world.key, &claims).unwrap());
        world.run(&["update"]).ended(0);
        world.assert_slot(B, 2);
    }
}

#[test]
fn missing_artifact_does_not_clear_the_spare_slot() {
    let world = World::new();
    world.fill(B, 7, 0);
    world.publish(2);
    world.cdn.remove("/2.initrd");
    let before = world.tree();
    world.run(&["update"]).failed(&["404"]);
    assert_eq!(world.tree(), before);
}

/// Some servers answer HEAD like GET with an empty body, and announce the length of that body.
#[test]
fn repeats_the_request_with_get_if_head_announces_zero_bytes() {
    let world = World::new();
    world.fill(B, 7, 0);
    world.publish(2);
    world.cdn.put("/2.initrd", Reply::ok(""));
    let before = world.tree();
    world.run(&["update"]).failed(&["announces 0 bytes for the initrd", "published completely"]);
    assert_eq!(world.tree(), before);
    for role in Role::BOOT {
        world.cdn.answer(&format!("/2.{}", role.extension()), move |r| match r.method.as_str() {
            "HEAD" => Reply::ok(""),
            _ => Reply::file(r, &content(role, 2), "\"2\""),
        });
    }
    world.run(&["update"]).ended(0);
    world.assert_slot(B, 2);
}

#[test]
fn failed_download_leaves_a_partial_slot_that_is_not_booted() {
    let world = World::new();
    world.fill(B, 2, 2);
    world.on_trial(A, B, 3);
    world.publish(3);
    let mut damaged = content(Role::Initrd, 3);
    damaged[7] ^= 1;
    world.cdn.put("/3.initrd", Reply::ok(damaged));
    world.run(&["update"]).failed(&["SHA-256"]);
    assert_eq!(world.boots(), (A, None));
    world.assert_slot(A, 1);
    let status = world.run(&["status", "--json"]).ended(0).json();
    let b = &status["slots"]["b"];
    assert_eq!((&b["state"], &b["version"]), (&"partial".into(), &"13.3".into()), "{b}");
    assert!(b["problem"].as_str().unwrap().contains("the next update resumes"), "{b}");
}

#[test]
fn rejects_unreachable_servers_and_foreign_redirects() {
    let world = World::new();
    let config =
        |cdn: &str| world.write("esp/etchaos/config.json", json!({"cdn": cdn}).to_string());
    // A port that was free a moment ago, so nothing listens on it.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    config(&format!("http://127.0.0.1:{port}"));
    assert_rejected(&world, &["cannot get http://127.0.0.1", "is the CDN up"]);
    config("https://no-such-host.invalid/x");
    assert_rejected(&world, &["cannot get https://no-such-host.invalid/x/etchaos_deb_"]);
    config("/no/such/directory");
    assert_rejected(&world, &["cannot read /no/such/directory/etchaos_deb_"]);

    let other = Server::start();
    let location = format!("Location: {}/x?token=secret", other.url);
    let path = format!("/{}", target().manifest_name());
    world.cdn.put(&path, Reply { status: 302, headers: vec![location], ..Reply::default() });
    config(&world.cdn.url);
    assert_rejected(&world, &["302", "redirects to", &other.url, "not followed"]);
    assert!(!world.run(&["update"]).stderr.contains("secret"));
    assert!(other.requests().is_empty());
    world.cdn.remove(&path);
    assert_rejected(&world, &["404", "was the file published"]);
}

#[test]
fn detects_a_full_esp_before_any_write() {
    const LARGEST: u64 = (4 << 30) - 1;
    let world = World::new();
    world.fill(B, 3, 3);
    let mut large = release(4);
    for artifact in &mut large.artifacts {
        artifact.size = LARGEST;
        world.cdn.put(
            &format!("/{}", artifact.url),
            Reply { length: Some(Some(LARGEST)), ..Reply::ok("") },
        );
    }
    world.publish_manifest(&large);
    world.write("esp/FSCK0000.REC", [0; 5000]);
    // Runs the updater on a small tmpfs in a mount namespace, which requires root or user namespaces.
    let script = r#"
        mount -t tmpfs -o size=8m tmpfs "$0/small" || exit 99
        cp -a "$0/esp/." "$0/small/"
        shift
        "$@" --dry-run; dry=$?
        echo "the dry run exits with $dry" >&2
        "$@"; code=$?
        cp -a "$0/small/." "$0/after/"
        exit $code"#;
    for directory in ["small", "after"] {
        fs::create_dir(world.path(directory)).unwrap();
    }
    let mut updater = Command::new("unshare");
    updater.args(["--map-root-user", "--mount", "sh", "-c", script]).arg(world.path("")).arg("");
    updater.arg(env!("CARGO_BIN_EXE_updater")).arg("--esp").arg(world.path("small"));
    updater.arg("--host-root").arg(world.path("host")).arg("update");
    let output = updater.output();
    let Ok(output) = output.map_err(|_| ()).and_then(|o| match o.status.code() {
        Some(99) | None => Err(()),
        _ => Ok(o),
    }) else {
        assert!(std::env::var("CI").is_err(), "unshare and a tmpfs are needed for this test");
        eprintln!("SKIPPED: no small file system can be mounted here");
        return;
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    // The dry run reports the same error as the update.
    for part in ["the release needs 85899", " are free (", "and 8192 in FSCK*.REC files"] {
        assert_eq!(stderr.matches(part).count(), 2, "{part}: {stderr}");
    }
    assert!(stderr.contains("the dry run exits with 1"), "{stderr}");
    let names = |directory: &str| {
        let tree = crate::world::tree(&world.path(directory));
        let root = world.path(directory);
        tree.into_iter()
            .map(|(path, digest)| (path.strip_prefix(&root).unwrap().to_owned(), digest))
            .filter(|(path, _)| !path.ends_with("grubenv"))
            .collect::<Vec<_>>()
    };
    assert_eq!(names("after"), names("esp"));
}

#[test]
fn does_not_request_artifacts_too_large_for_fat() {
    let world = World::new();
    for (index, name) in [(0, "kernel"), (1, "initrd")] {
        let mut large = release(2);
        large.artifacts[index].size = 4 << 30;
        world.publish_manifest(&large);
        assert_rejected(&world, &[name, "4294967296", "expected", "4294967295"]);
    }
    let manifest = format!("GET /{}", target().manifest_name());
    assert!(world.cdn.requests().iter().all(|request| *request == manifest));
    world.publish(2);
    world.run(&["update"]).ended(0);
}

#[test]
fn rejects_a_second_updater() {
    let world = World::new();
    world.publish(2);
    let other = fs::File::open(world.esp("")).unwrap();
    other.lock().unwrap();
    let before = world.tree();
    world.run(&["update"]).failed(&["another etchaos-updater is writing to"]);
    assert_eq!(world.tree(), before);
    world.run(&["check"]).ended(10);
    world.run(&["status"]).ended(0);
}

#[test]
fn does_not_lock_the_esp_while_fetching_the_manifest() {
    let world = World::new();
    let token = sign(&world.key, &claims(&release(2))).unwrap();
    let path = format!("/{}", target().manifest_name());
    let pause = Some(Duration::from_secs(1));
    world.cdn.put(&path, Reply { pause, ..Reply::ok(token) });
    let mut updater = world.command(&["update"]).stderr(Stdio::null()).spawn().unwrap();
    let since = Instant::now();
    while world.cdn.requests().is_empty() {
        assert!(since.elapsed() < Duration::from_secs(60), "the updater sends no request");
        std::thread::sleep(Duration::from_millis(20));
    }
    let lock = fs::File::open(world.esp("")).unwrap();
    let result = lock.try_lock();
    drop(lock);
    let is_running = updater.try_wait().unwrap().is_none();
    updater.kill().unwrap();
    updater.wait().unwrap();
    assert!(is_running);
    result.unwrap();
}

#[test]
fn detects_an_unconfirmed_slot_without_the_lock() {
    let world = World::new();
    world.fill(B, 2, 2);
    world.on_trial(A, B, 2);
    world.boot(B);
    world.publish(3);
    let lock = fs::File::open(world.esp("")).unwrap();
    lock.lock().unwrap();
    let before = world.tree();
    assert_eq!(world.run(&["update", "--json"]).ended(3).json()["step"], "unconfirmed");
    assert_eq!(world.tree(), before);
}

#[test]
fn completes_its_work_if_output_cannot_be_written() {
    // Standard output is a full disk, or a pipe without a reader.
    type Output = fn() -> Stdio;
    let full: Output = || fs::File::options().write(true).open("/dev/full").unwrap().into();
    let closed: Output = || std::io::pipe().unwrap().1.into();
    let run = |world: &World, arguments: &[&str], stdout: Output| {
        let output = world.command(arguments).stdout(stdout()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("panicked"), "{stderr}");
        (output.status.code(), stderr)
    };
    for (stdout, code, message) in [(full, 1, "standard output"), (closed, 0, "")] {
        let world = World::new();
        for arguments in [&["status"][..], &["config"], &["check"], &["status", "--json"]] {
            let (found, stderr) = run(&world, arguments, stdout);
            assert_eq!(found, Some(code), "{arguments:?}: {stderr}");
            assert!(stderr.contains(message), "{stderr}");
            assert_eq!(stderr.is_empty(), message.is_empty(), "{stderr}");
        }
        // The command still did its work.
        let (found, stderr) = run(&world, &["confirm"], stdout);
        assert_eq!(found, Some(0), "{stderr}");
        assert_eq!(run(&world, &["listen"], stdout).0, Some(3));
        world.publish(2);
        let (found, stderr) = run(&world, &["update"], stdout);
        assert_eq!(found, Some(0), "{stderr}");
        assert!(stderr.contains(message), "{stderr}");
        assert!(world.rebooted());
        world.assert_slot(B, 2);
        world.publish_token("no token");
        assert_eq!(run(&world, &["check", "--json"], stdout).0, Some(1));
        let mut silent = world.command(&["check", "--json"]);
        let status = silent.stdout(stdout()).stderr(stdout()).status().unwrap();
        assert_eq!(status.code(), Some(1));
    }
}
