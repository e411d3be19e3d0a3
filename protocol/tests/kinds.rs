//! Keys of every kind sign and verify. The keys were made with OpenSSL and are used only in this test.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use protocol::keys::KeyKind;
use protocol::token::{TokenError, sign, verify};
use protocol::{Claims, KeyRing, PrivateKey, PublicKey};

const RSA_PRIVATE: &str = "\
     rsa2048private:MIIEvAIBADANBgkqhkiG9w0BAQEFAASCBKYwggSiAgEAAoIBAQCLoC3re0rSN6k49cjMQWpMcBZ\
     PSNOzH/XZ5cxSPwfvNORMpOKSvmZrIn0a0A5QzBxNcBvD9Be98dGmyIZNaXO48GGmR/PeI8GEvvLzA8h5r/lkUitDj\
     2onXg8QX/20TvPu5vDsDZa56ns5gTGDbOq6vRl9sm2IzD1IUpm+GS1e+ktYsJW80dWXl5VdM5wA78RRdpc4Mkwi0lo\
     8wdQEvCtfk4hLfDOu6XtlF3JUOXItUlalSVag6cLM5CZ2YSLS1am9wHs+kN5/bTS53ZVJXZHPUcNX4QavDU38fA5Sw\
     RVBhMxfKQveV/kQorH8kP/P6LG48LN7vjB7gYD7+nP4dN+hAgMBAAECggEAJqvpPADscrfe4ztT75qond4nl7MEi2a\
     tOboncpopkOu11bKPXHRmuoKVYuFALcmyhxInZokLMF0zI34DkJpF5nGRojPoi9ycYy9d68fe9TEzokEN4YrtrFSlW\
     HQ1uQRrFH6bOM30sq6KjZ1GQO/gPXNVhZZvNwXWbVsPYPLpOZYxlm5ksTVeztBgdH2EEmnbKdEaB783JFVroYJAyGu\
     65zk+6coK/yI//6p4i4P79HDEfsWjllDUrkRFC3lUWPTG3l+VRJgreU5SsFxcunntQO4ijshJIQqlMkZSePpo6X4Oh\
     cFy+fFlKrNeRLU65Mfz+kWhv/KEJhfAMB15fnTifwKBgQDCXDQ+4Ktr6yEdutUWq5xZjsZch7R7em651otWKmy7rc/\
     ZBgX8TM9muRl72K4aWy1j3QzL9esZ2n9PfoVkleOmhHb0XMpa8vT8OVsk7CZJx6q+6b3ZNmzxiYzZW02DeqSFagCGy\
     TkxGpMoBqv/CjvIf9QQXFRJNYooNEDDpOO2rwKBgQC36Ct7ajMl5Yl/CI6B1i01ox0qv14BkzumkEHQCBGoiD+jd1i\
     2/UW44yiLoKLaoc71yu93yoDQdqoZAvPbCI5cD0mhc1FMbriadJPFWN6v10H8pz6o2eiaYO5WBy+B5c43qHFOCbn15\
     uuKRQzxV79rEi10kN2dRxTwZuU17+RirwKBgAEjiSrVJiv7tLX34ke/uarMq1zfbq9KiFuOZkKa/QgcfJtI7cAMsyp\
     m6z9Ohbah0iJDqU+IoVgFb7mHhECSoELZg9jqskTWJ5lSvLX6rD7CbL2xoOsk5n6Dz892OX4LuesOM/KWOz+OaE5Tu\
     65C4RbLqPJvmA7VwXl61OZQkQUBAoGAMW+eqKlOoIRIZraVID/DnWSAhao1ifTbFxY2KsbQgF5HxRhi56XDpUSi9I2\
     02VKfwKDRqIDuCZusc9bAWIO/SO3vHBBUrVgiFZr60hTmn5wcp98JT/hrt3wQ9V0vHxr4SSvlcVXaAEkXze5r4UB2O\
     0ECqQ/8Erg13725JbubyA8CgYAQsT3gwafop2w6qE2KPseLn2rNk4xbG7sCTpibubb97dfOhwdRAG6wHdFKlEzQvYS\
     DXZJMua0bM/ev5yVdP3CU5VJddx/GJWVxVcCH7KJtv3JOsdxReD5DJssjvvA2Yq1O8macbkCcVc/5Xe4SfwfC0Bku9\
     ZISSMZbQOM2V8KpDg==:test";
const RSA_PUBLIC: &str = "\
     rsa2048public:MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAi6At63tK0jepOPXIzEFqTHAWT0jTsx/1\
     2eXMUj8H7zTkTKTikr5mayJ9GtAOUMwcTXAbw/QXvfHRpsiGTWlzuPBhpkfz3iPBhL7y8wPIea/5ZFIrQ49qJ14PEF\
     /9tE7z7ubw7A2Wuep7OYExg2zqur0ZfbJtiMw9SFKZvhktXvpLWLCVvNHVl5eVXTOcAO/EUXaXODJMItJaPMHUBLwr\
     X5OIS3wzrul7ZRdyVDlyLVJWpUlWoOnCzOQmdmEi0tWpvcB7PpDef200ud2VSV2Rz1HDV+EGrw1N/HwOUsEVQYTMXy\
     kL3lf5EKKx/JD/z+ixuPCze74we4GA+/pz+HTfoQIDAQAB:test";
const EC_PRIVATE: &str = "\
     ecp256private:MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgoobWJiAD/HXcf+MCRhIGWhsGdFd9\
     Jc0Mb74QWOxch7ShRANCAAQHUU5o/whoUWccm+LF8/UynvKBjvEoa/4n+gwz7qKx/EB1BHnh0Rzsh7y78/XtjyV8jN\
     ySf7oM59jeunwVIrWW:test";
const EC_PUBLIC: &str = "\
     ecp256public:MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEB1FOaP8IaFFnHJvixfP1Mp7ygY7xKGv+J/oMM+6is\
     fxAdQR54dEc7Ie8u/P17Y8lfIzckn+6DOfY3rp8FSK1lg==:test";

/// Returns the bytes in the text of a key.
fn der(text: &str) -> Vec<u8> {
    STANDARD.decode(text.split(':').nth(1).unwrap()).unwrap()
}

fn claims() -> Claims {
    Claims { sub: Some("a test".into()), ..Claims::default() }
}

#[test]
fn signs_and_verifies_with_keys_of_openssl() {
    for (private, public, kind, alg) in [
        (RSA_PRIVATE, RSA_PUBLIC, KeyKind::Rsa2048, "RS256"),
        (EC_PRIVATE, EC_PUBLIC, KeyKind::Ecp256, "ES256"),
    ] {
        let key: PrivateKey = private.parse().unwrap();
        let public: PublicKey = public.parse().unwrap();
        assert_eq!(key.public(), &public, "{alg}: the public key is the one that OpenSSL derived");
        assert_eq!(key.kind(), kind);
        let token = sign(&key, &claims()).unwrap();
        assert_eq!(*verify(&token, &public.into()).unwrap(), claims(), "{alg}");
        let again = sign(&key, &claims()).unwrap();
        assert_eq!(token == again, kind.is_deterministic(), "{alg}");
    }
}

#[test]
fn rejects_a_key_with_the_type_of_another_kind() {
    for text in [RSA_PUBLIC, EC_PUBLIC] {
        for kind in ["rsa2048public", "ecp256public", "ed25519public"] {
            let (name, rest) = text.split_once(':').unwrap();
            let other = format!("{kind}:{rest}").parse::<PublicKey>();
            assert_eq!(other.is_ok(), kind == name, "{name} as {kind}");
        }
    }
}

/// Etcha's client does this. The key, not the header, decides that the signature is one of RS256.
#[test]
fn accepts_a_token_of_an_rsa_key_that_says_es256() {
    let rsa: PrivateKey = RSA_PRIVATE.parse().unwrap();
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let message = |header: &str| format!("{}.{}", part(header), part(r#"{"sub":"a test"}"#));
    let token = |header: &str| {
        let pair = RsaKeyPair::from_pkcs8(&der(RSA_PRIVATE)).unwrap();
        let mut signature = vec![0; pair.public_modulus_len()];
        let (random, message) = (SystemRandom::new(), message(header));
        pair.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let ring: KeyRing = rsa.public().clone().into();
    for header in [r#"{"alg":"ES256","kid":"test","typ":"JWT"}"#, r#"{"alg":"ES256"}"#] {
        assert_eq!(*verify(&token(header), &ring).unwrap(), claims());
    }
    for alg in ["PS256", "RS384", "HS256", "EdDSA", "none"] {
        let error = verify(&token(&format!(r#"{{"alg":"{alg}","kid":"test"}}"#)), &ring);
        assert!(matches!(error, Err(TokenError::Algorithm { .. })), "{alg}");
    }
    // A signature of RSA is none of ECDSA, whatever the header says, and the reverse.
    let ec: PrivateKey = EC_PRIVATE.parse().unwrap();
    let ec_ring: KeyRing = ec.public().clone().into();
    let by_rsa = token(r#"{"alg":"ES256","kid":"test"}"#);
    assert!(matches!(verify(&by_rsa, &ec_ring), Err(TokenError::Signature { .. })));
    let by_ec = sign(&ec, &claims()).unwrap();
    assert!(matches!(verify(&by_ec, &ring), Err(TokenError::Signature { .. })));
}

#[test]
fn rejects_a_token_whose_key_has_another_kind() {
    let rsa: PrivateKey = RSA_PRIVATE.parse().unwrap();
    let token = sign(&rsa, &claims()).unwrap();
    let ring: KeyRing = EC_PUBLIC.parse::<PublicKey>().unwrap().into();
    assert!(matches!(verify(&token, &ring), Err(TokenError::Algorithm { .. })));
}
