//! The text forms of keys.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

use super::*;

#[test]
fn round_trips_a_key_through_its_text() {
    let key = PrivateKey::generate();
    let again: PrivateKey = key.reveal().parse().unwrap();
    assert_eq!(again.public(), key.public());
    let public: PublicKey = key.public().to_string().parse().unwrap();
    assert_eq!(&public, key.public());
}

#[test]
fn does_not_show_the_secret_in_debug_or_errors() {
    let key = PrivateKey::generate();
    let secret = key.reveal().split(':').nth(1).unwrap().to_owned();
    assert!(!format!("{key:?}").contains(&secret));
    let error = key.reveal().parse::<PublicKey>().unwrap_err().to_string();
    assert!(error.contains("ed25519private"), "{error}");
    assert!(!error.contains(&secret), "{error}");
}

#[test]
fn describes_invalid_texts_without_showing_them() {
    let found = |text: &str| {
        let public = text.parse::<PublicKey>().unwrap_err().to_string();
        let private = text.parse::<PrivateKey>().unwrap_err().to_string();
        for error in [&public, &private] {
            assert!(!error.contains("SECRET"), "{error}");
        }
        public.rsplit_once("found ").unwrap().1.to_owned()
    };
    assert_eq!(found(""), "nothing");
    assert_eq!(found(" \n"), "nothing");
    for path in ["/etc/keys/SECRET", "./SECRET", "~/SECRET", "../a:SECRET:b"] {
        assert_eq!(found(path), "a text that looks like a file path");
    }
    assert_eq!(found("SECRET"), "a text without a colon");
    assert_eq!(found("SECRET:SECRET"), "an unknown type");
    assert_eq!(found("SECRET:SECRET:SECRET:SECRET"), "a different number of parts");
    assert_eq!(found("SECRET:SECRET:SECRET"), "an unknown type");
}

#[test]
fn does_not_show_a_secret_in_place_of_the_id() {
    let secret = "MC4CAQAwBQYDK2VwBCIEIA".repeat(3)[..64].to_owned();
    for middle in ["0a1b2c3d", "key-1"] {
        let text = format!("ed25519private:{middle}:{secret}");
        let error = text.parse::<PrivateKey>().unwrap_err().to_string();
        assert!(error.contains("damaged") && !error.contains("MC4C"), "{error}");
    }
}

#[test]
fn rejects_damaged_keys() {
    let good = PrivateKey::generate().public().to_string();
    let (head, id) = good.rsplit_once(':').unwrap();
    for bad in [
        String::new(),
        "ed25519public".to_owned(),
        format!("{head}AAAA:{id}"),
        format!("{}:{id}", &head[..head.len() - 8]),
        format!("{good}:more"),
        good.replace("ed25519", "rsa2048"),
        format!("{head}:two\nlines"),
        format!("{head}:{}", "x".repeat(65)),
    ] {
        assert!(bad.parse::<PublicKey>().is_err(), "{bad}");
    }
}

#[test]
fn ring_rejects_two_keys_with_the_same_id() {
    let (a, b) = (PrivateKey::generate(), PrivateKey::generate());
    let renamed = b.public().to_string().replace(b.id(), a.id());
    let text = format!("# trusted\n\n{}\n{}\n", a.public(), renamed);
    assert_eq!(KeyRing::parse(&text).unwrap_err(), KeyError::DuplicateId(a.id().to_owned()));
}

/// Runs a program that makes keys. Returns `None`, loudly, if it is not installed.
fn run(directory: &std::path::Path, command: &str) -> Option<String> {
    let mut words = command.split(' ').map(|word| if word == "''" { "" } else { word });
    let program = words.next().unwrap();
    let output = std::process::Command::new(program).args(words).current_dir(directory).output();
    let Ok(output) = output else {
        assert!(std::env::var("CI").is_err(), "{program} is needed for this test");
        eprintln!("SKIPPED: {program} is not installed");
        return None;
    };
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn reads_keys_without_an_id_and_with_spaces() {
    let key = PrivateKey::generate();
    let unnamed = |text: String| text.rsplit_once(':').unwrap().0.to_owned();
    let (private, public) = (unnamed(key.reveal()), unnamed(key.public().to_string()));
    for end in ["", ":", ": "] {
        let read: PublicKey = format!("{public}{end}").parse().unwrap();
        assert!(!read.is_named() && read.id() == key.id(), "{read}");
        assert_eq!(read.to_string(), public);
        let read: PrivateKey = format!("{private}{end}").parse().unwrap();
        assert!(!read.public().is_named());
        assert_eq!(read.reveal(), private);
    }
    let spaces: PublicKey = format!("{public}:my key (2)").parse().unwrap();
    assert_eq!((spaces.id(), spaces.is_named()), ("my key (2)", true));
    assert_eq!(spaces.to_string().parse::<PublicKey>().unwrap(), spaces);
    let mut ring = KeyRing::parse(&format!("{public}\n")).unwrap();
    ring.add(PrivateKey::generate().public().clone()).unwrap();
    assert_eq!(ring.ids().count(), 2);
}

#[test]
fn reads_pem_of_openssl() {
    let directory = tempfile::tempdir().unwrap();
    for (kind, algorithm) in [
        (KeyKind::Ed25519, "-algorithm ed25519"),
        (KeyKind::Ecp256, "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"),
        (KeyKind::Rsa2048, "-algorithm RSA -pkeyopt rsa_keygen_bits:2048"),
    ] {
        let run = |command: &str| run(directory.path(), command);
        let Some(_) = run(&format!("openssl genpkey -quiet {algorithm} -out key")) else { return };
        let private = std::fs::read_to_string(directory.path().join("key")).unwrap();
        let private: PrivateKey = private.parse().unwrap();
        let public = run("openssl pkey -in key -pubout").unwrap();
        let ring = KeyRing::parse(&format!("# a comment\n\n{public}\n# another\n")).unwrap();
        assert_eq!(ring.iter().collect::<Vec<_>>(), [private.public()]);
        assert_eq!((private.kind(), private.public().is_named()), (kind, false));
        assert_eq!(public.replace('\n', "\r\n").parse::<PublicKey>().unwrap(), *private.public());

        run("openssl pkey -in key -aes256 -passout pass:SECRET -out encrypted").unwrap();
        let encrypted = std::fs::read_to_string(directory.path().join("encrypted")).unwrap();
        let error = encrypted.parse::<PrivateKey>().unwrap_err().to_string();
        assert!(error.contains("encrypted with a password"), "{error}");
    }
    for (command, expected) in [
        ("openssl genpkey -quiet -algorithm ed448", "neither Ed25519"),
        (
            "openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-384",
            "neither Ed25519",
        ),
        ("openssl ecparam -name prime256v1 -genkey -noout", "an old form of PEM"),
        ("openssl genrsa -traditional 2048", "an old form of PEM"),
        ("openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:1024", "is damaged"),
    ] {
        let text = run(directory.path(), command).unwrap();
        let error = text.parse::<PrivateKey>().unwrap_err().to_string();
        assert!(error.contains(expected), "{command}: {error}");
        let secret = text.lines().nth_back(1).unwrap();
        assert!(!error.contains(secret), "{error}");
    }
}

#[test]
fn reads_keys_of_openssh() {
    let directory = tempfile::tempdir().unwrap();
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    for (kind, options) in [
        (KeyKind::Ed25519, "-t ed25519"),
        (KeyKind::Ecp256, "-t ecdsa -b 256"),
        (KeyKind::Rsa2048, "-t rsa -b 2048"),
    ] {
        let name = options.replace(' ', "");
        let run = |command: &str| run(directory.path(), command);
        let Some(_) = run(&format!("ssh-keygen -q {options} -N '' -C me@host -f {name}")) else {
            return;
        };
        let public: PublicKey = read(&format!("{name}.pub")).parse().unwrap();
        assert_eq!((public.kind(), public.is_named()), (kind, false));
        let private = read(&name).parse::<PrivateKey>();
        if kind == KeyKind::Ed25519 {
            assert_eq!(private.unwrap().public(), &public);
        } else {
            let error = private.unwrap_err().to_string();
            assert!(error.contains("-m PKCS8"), "{error}");
            // The way out that the error names.
            run(&format!("ssh-keygen -q -p -N '' -m PKCS8 -f {name}")).unwrap();
            assert_eq!(read(&name).parse::<PrivateKey>().unwrap().public(), &public);
        }
        run(&format!("ssh-keygen -q {options} -N SECRET -f {name}-encrypted")).unwrap();
        let error = read(&format!("{name}-encrypted")).parse::<PrivateKey>().unwrap_err();
        assert!(error.to_string().contains("encrypted with a password"), "{error}");
    }
    for (text, expected) in [
        ("ssh-ed25519", "is damaged"),
        ("ssh-ed25519 AAAA me", "is damaged"),
        ("ssh-dss AAAA", "neither ssh-ed25519"),
        ("sk-ssh-ed25519@openssh.com AAAA", "neither ssh-ed25519"),
        ("argon2id:SECRET:x", "encrypted with a password"),
    ] {
        let error = text.parse::<PublicKey>().unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("SECRET"), "{text}: {error}");
    }
}

#[test]
fn rejects_damaged_pem_and_openssh_keys() {
    let key = PrivateKey::generate();
    let der = key.reveal().split(':').nth(1).unwrap().to_owned();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n");
    assert_eq!(pem.parse::<PrivateKey>().unwrap().id(), key.id());
    for bad in [
        pem.replace("END PRIVATE", "END PUBLIC"),
        pem.replace(&der, &der[..der.len() - 8]),
        pem.replace(&der, ""),
        pem.replace(&der, "!"),
        format!("{pem}{pem}"),
        format!("{pem}more"),
        pem.lines().take(2).collect(),
    ] {
        let error = bad.parse::<PrivateKey>().unwrap_err().to_string();
        assert!(!error.contains(&der[..32]), "{error}");
    }
    let error = pem.parse::<PublicKey>().unwrap_err().to_string();
    assert!(error.contains("found a private key in PEM"), "{error}");
}

proptest! {
    #[test]
    fn does_not_panic_on_any_fields(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let blob = STANDARD.encode([&[0, 0, 0, 11], &b"ssh-ed25519"[..], &bytes].concat());
        let _ = format!("ssh-ed25519 {blob}").parse::<PublicKey>();
        let private = STANDARD.encode([&b"openssh-key-v1\0"[..], &bytes].concat());
        let label = "OPENSSH PRIVATE KEY";
        let pem = format!("-----BEGIN {label}-----\n{private}\n-----END {label}-----");
        prop_assert!(pem.parse::<PrivateKey>().is_err());
    }
}
