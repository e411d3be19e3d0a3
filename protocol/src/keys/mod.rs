//! Keys in the text form of Etcha: `ed25519public:BASE64-DER:KEYID`.
//!
//! The DER is PKIX `SubjectPublicKeyInfo` (RFC 5280) for public keys and PKCS#8 (RFC 5208) for
//! private ones, in standard base64. The key determines the algorithm of a signature; the token does
//! not. Insecure keys are rejected: Ed25519 points of small order or in a non-canonical encoding, and
//! RSA keys with fewer than 2048 bits or with an exponent other than 65537.

mod der;
mod kind;
mod private;
mod public;
mod ring;
mod text;

pub use kind::KeyKind;
pub use private::PrivateKey;
pub use public::PublicKey;
pub use ring::KeyRing;
pub use text::KeyError;

#[cfg(test)]
mod tests {
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
        assert_eq!(found("SECRET:SECRET"), "a different number of parts");
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
            format!("{head}:two words"),
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
}
