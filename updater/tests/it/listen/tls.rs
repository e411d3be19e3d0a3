//! The certificate of the server.

use std::process::Command;
use std::time::{Duration, Instant};

use protocol::PrivateKey;
use protocol::token::sign;
use serde_json::json;

use super::{configure, fine, fingerprint, listen, listen_with, request, start, started};
use crate::tls_client::connect;
use crate::world::World;

#[test]
fn keeps_the_certificate_that_it_makes() {
    let key = PrivateKey::generate();
    let listener = listen(&key);
    let fingerprint = listener.fingerprint.clone().unwrap();
    // The client of these pushes accepts only this certificate.
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let stream = connect(&listener.address, &fingerprint, &[version]);
        let token = sign(&key, &fine()).unwrap();
        let (status, body) = request(stream, "POST /etcha/v1/push/ci", token.as_bytes());
        assert!(body.contains("results"), "{status} {body}");
    }
    let status = listener.status();
    assert_eq!(status["certificate"], json!(fingerprint));
    assert_eq!(status["address"], json!(listener.address));
    assert!(status["publicKey"].as_str().unwrap().starts_with("sha256//"), "{status}");
    let table = listener.world.run(&["status"]).ended(0).stdout;
    assert!(table.contains(&fingerprint), "{table}");

    // A reboot clears /run.
    std::fs::remove_dir_all(listener.world.path("host/run")).unwrap();
    std::fs::create_dir(listener.world.path("host/run")).unwrap();
    let listener = listener.restarted();
    assert_eq!(listener.fingerprint.as_ref(), Some(&fingerprint));

    // A file that a power cut left damaged is replaced.
    let pem = std::fs::read(listener.world.esp("etchaos/tls.pem")).unwrap();
    std::fs::write(listener.world.esp("etchaos/tls.pem"), &pem[..512]).unwrap();
    let listener = listener.restarted();
    let replaced = listener.fingerprint.clone();
    assert_ne!(replaced.as_ref(), Some(&fingerprint));
    assert_eq!(listener.restarted().fingerprint, replaced);
}

/// A host that was booted from the network has no ESP.
#[test]
fn keeps_the_certificate_until_the_reboot_without_an_esp() {
    let key = PrivateKey::generate();
    let world = World::new();
    world.write("host/proc/uptime", "86400.00 1.00\n");
    world.write("host/proc/cmdline", "quiet\n");
    configure(&world, &key, json!(true));
    let config = std::fs::read(world.esp("etchaos/config.json")).unwrap();
    world.write("host/usr/lib/etchaos/updater.json", config);
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_updater"));
        command.args(["listen", "--host-root"]).arg(world.path("host"));
        fingerprint(&started(command).1).unwrap()
    };
    let first = start();
    assert_eq!(start(), first);
    std::fs::remove_dir_all(world.path("host/run")).unwrap();
    assert_ne!(start(), first);
}

#[test]
fn stores_the_certificate_when_the_esp_is_free() {
    let key = PrivateKey::generate();
    let world = World::new();
    world.write("host/proc/uptime", "86400.00 1.00\n");
    configure(&world, &key, json!(true));
    // As an update does.
    let lock = std::fs::File::open(world.esp("")).unwrap();
    lock.lock().unwrap();
    let listener = start(world);
    assert_eq!(listener.push("", &sign(&key, &fine()).unwrap()).0, 200);
    let is_stored = |world: &World| {
        let pem = std::fs::read_to_string(world.esp("etchaos/tls.pem"));
        pem.is_ok_and(|pem| pem.ends_with("-----END PRIVATE KEY-----\n"))
    };
    assert!(!is_stored(&listener.world));
    lock.unlock().unwrap();
    let since = Instant::now();
    while !is_stored(&listener.world) {
        assert!(since.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(50));
    }
    let fingerprint = listener.fingerprint.clone();
    std::fs::remove_dir_all(listener.world.path("host/run")).unwrap();
    assert_eq!(listener.restarted().fingerprint, fingerprint);
}

#[test]
fn uses_the_certificate_of_the_operator_or_none() {
    let key = PrivateKey::generate();
    let own = rcgen::generate_simple_self_signed(["host.example".to_owned()]).unwrap();
    let fingerprint = protocol::digest::of_bytes(own.cert.der());
    let (certificate, private) = (own.cert.pem(), own.signing_key.serialize_pem());
    let listener = listen_with(&key, json!({"certificate": certificate, "key": private}));
    assert_eq!(listener.fingerprint.as_ref(), Some(&fingerprint));
    assert_eq!(listener.push("", &sign(&key, &fine()).unwrap()).0, 200);
    let config = listener.world.run(&["config"]).ended(0).stdout;
    let secret = private.lines().nth(1).unwrap();
    assert!(config.contains("(PEM)") && !config.contains(secret), "{config}");
    assert!(!listener.world.esp("etchaos/tls.pem").exists());

    configure(&listener.world, &key, json!({"certificate": "/tls/crt.pem", "key": "/tls/key.pem"}));
    listener.world.write("host/tls/crt.pem", &certificate);
    listener.world.write("host/tls/key.pem", &private);
    let listener = listener.restarted();
    assert_eq!(listener.fingerprint, Some(fingerprint));
    let world = listener.world;
    std::fs::remove_file(world.path("host/tls/key.pem")).unwrap();
    world.run(&["listen"]).failed(&["cannot read /tls/key.pem"]);

    configure(&world, &key, json!(false));
    let listener = start(world);
    assert_eq!(listener.fingerprint, None);
    assert_eq!(listener.push("", &sign(&key, &fine()).unwrap()).0, 200);
    assert_eq!(listener.status()["certificate"], json!(null));
}
