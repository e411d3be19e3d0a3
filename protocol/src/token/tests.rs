//! Signing and verifying tokens.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn claims() -> Claims {
    Claims { iss: Some("etchaos".into()), ..Claims::default() }
}

fn forge(header: serde_json::Value, claims: &str, signature: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{signature}", part(&header.to_string()), part(claims))
}

#[test]
fn verifies_a_signed_token() {
    let key = PrivateKey::generate();
    let token = sign(&key, &claims()).unwrap();
    let verified = verify(&format!("{token}\n"), &key.public().clone().into()).unwrap();
    assert_eq!(*verified, claims());
    assert_eq!(verified.key_id(), key.id());
    assert_eq!(token, sign(&key, &claims()).unwrap(), "EdDSA is deterministic");
}

#[test]
fn signature_from_outside_gives_the_same_token() {
    let key = PrivateKey::generate();
    let token = sign(&key, &claims()).unwrap();
    let input = SigningInput::new(key.public(), &claims()).unwrap();
    let signature = URL_SAFE_NO_PAD.decode(key.sign(input.as_bytes()).unwrap()).unwrap();
    assert_eq!(input.clone().attach(&signature).unwrap(), token);
    let other = PrivateKey::generate();
    let foreign = URL_SAFE_NO_PAD.decode(other.sign(input.as_bytes()).unwrap()).unwrap();
    for wrong in [foreign.as_slice(), &signature[1..], b""] {
        let error = input.clone().attach(wrong).unwrap_err();
        assert!(matches!(error, TokenError::Signature { .. }), "{error}");
    }
}

#[test]
fn decodes_tokens_that_cannot_be_verified() {
    let token = forge(json!({"alg": "ES256"}), r#"{"etchaPattern": {}}"#, "x");
    let decoded = decode_unverified(&format!("{token}\n")).unwrap();
    assert_eq!(decoded.header["alg"], "ES256");
    assert!(decoded.claims.contains_key("etchaPattern"));
    for malformed in ["", "a.b", "a.b.c.d", &forge(json!([]), "{}", "x"), "e30.W10.x"] {
        assert!(decode_unverified(malformed).is_err(), "{malformed}");
    }
}

#[test]
fn rejects_tokens_of_untrusted_keys() {
    let (key, other) = (PrivateKey::generate(), PrivateKey::generate());
    let ring: KeyRing = key.public().clone().into();
    let by_other = sign(&other, &claims()).unwrap();
    assert!(matches!(verify(&by_other, &ring), Err(TokenError::UnknownKey { .. })));

    // The untrusted key takes the id of the trusted one.
    let text = other.reveal().replace(other.id(), key.id());
    let impostor = sign(&text.parse().unwrap(), &claims()).unwrap();
    assert!(matches!(verify(&impostor, &ring), Err(TokenError::Signature { .. })));
}

fn signed(key: &PrivateKey, claims: &serde_json::Value) -> String {
    let header = json!({"alg": key.kind().algorithm(), "kid": key.id()});
    let unsigned = forge(header, &claims.to_string(), "");
    let message = unsigned.trim_end_matches('.');
    let signature = key.sign(message.as_bytes()).unwrap();
    format!("{message}.{signature}")
}

#[test]
fn reports_another_schema_before_other_errors() {
    let key = PrivateKey::generate();
    let ring: KeyRing = key.public().clone().into();
    let error = |release: serde_json::Value| {
        verify(&signed(&key, &json!({"etchaosRelease": release})), &ring).unwrap_err()
    };
    let other_schema = error(json!({"schema": 2, "images": []}));
    assert_eq!(
        other_schema.to_string(),
        "the release has schema 2, but this program supports only schema 1; update the program"
    );
    assert!(other_schema.has_valid_signature());
    for (release, expected) in [
        (json!({"schema": 1, "images": []}), "missing field"),
        (json!({"images": []}), "missing field `schema`"),
        (json!({"schema": "1"}), "invalid type"),
    ] {
        let error = error(release);
        assert!(error.has_valid_signature() && error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn reports_unusable_claims_only_if_the_signature_is_valid() {
    let (key, other) = (PrivateKey::generate(), PrivateKey::generate());
    let ring: KeyRing = key.public().clone().into();
    for claims in [json!({"exp": "soon"}), json!(5), json!("x"), json!({"aud": 5})] {
        let token = signed(&key, &claims);
        let error = verify(&token, &ring).unwrap_err();
        assert!(matches!(error, TokenError::Claims(_)) && error.has_valid_signature(), "{claims}");
        let impostor = other.reveal().replace(other.id(), key.id());
        let error = verify(&signed(&impostor.parse().unwrap(), &claims), &ring).unwrap_err();
        assert!(matches!(error, TokenError::Signature { .. }), "{claims}: {error}");
        assert!(!error.has_valid_signature());
    }
}

#[test]
fn rejects_tokens_truncated_at_any_length() {
    let key = PrivateKey::generate();
    let ring: KeyRing = key.public().clone().into();
    let token = sign(&key, &claims()).unwrap();
    for end in 0..token.len() {
        assert!(verify(&token[..end], &ring).is_err(), "{end}");
    }
    assert!(matches!(verify(&"a".repeat(TOKEN_MAX + 1), &ring), Err(TokenError::TooLong(_))));
}

proptest! {
    #[test]
    fn rejects_random_text_and_changed_characters(at in 0usize..200, with in "[A-Za-z0-9_.-]", text in ".{0,200}") {
        let key = PrivateKey::generate();
        let ring: KeyRing = key.public().clone().into();
        prop_assert!(verify(&text, &ring).is_err());
        let token = sign(&key, &claims()).unwrap();
        let at = at % token.len();
        let flipped = format!("{}{with}{}", &token[..at], &token[at + 1..]);
        if flipped != token {
            prop_assert!(verify(&flipped, &ring).is_err());
        }
    }
}

/// Signs a header and claims that [`sign`] does not write.
fn signed_with_header(
    key: &PrivateKey,
    header: &serde_json::Value,
    claims: &serde_json::Value,
) -> String {
    let unsigned = forge(header.clone(), &claims.to_string(), "");
    let message = unsigned.trim_end_matches('.');
    format!("{message}.{}", key.sign(message.as_bytes()).unwrap())
}

fn unnamed(key: &PrivateKey) -> PrivateKey {
    key.reveal().rsplit_once(':').unwrap().0.parse().unwrap()
}

#[test]
fn tries_the_trusted_keys_if_the_token_names_none() {
    let (key, other) = (PrivateKey::generate(), PrivateKey::generate());
    let mut ring: KeyRing = other.public().clone().into();
    let tokens = |key: &PrivateKey| {
        let with = |header: serde_json::Value| signed_with_header(key, &header, &json!({}));
        [
            sign(&unnamed(key), &claims()).unwrap(),
            with(json!({"alg": "EdDSA"})),
            with(json!({"alg": "EdDSA", "kid": ""})),
        ]
    };
    for token in tokens(&key) {
        let error = verify(&token, &ring).unwrap_err();
        assert!(matches!(error, TokenError::NoKeyId { .. }), "{error}");
        assert!(!error.has_valid_signature());
    }
    ring.add(key.public().clone()).unwrap();
    for token in tokens(&key) {
        assert_eq!(verify(&token, &ring).unwrap().key_id(), key.id());
    }
    // The number of keys that are tried is limited.
    let mut many = KeyRing::default();
    for _ in 0..TRIED_MAX {
        many.add(PrivateKey::generate().public().clone()).unwrap();
    }
    many.add(key.public().clone()).unwrap();
    assert!(verify(&tokens(&key)[0], &many).is_err());
    assert!(verify(&sign(&key, &claims()).unwrap(), &many).is_ok());
}

#[test]
fn a_key_without_an_id_verifies_tokens_with_any() {
    let key = PrivateKey::generate();
    let token = sign(&key, &claims()).unwrap();
    let mut ring: KeyRing = unnamed(&key).public().clone().into();
    let renamed = signed_with_header(&key, &json!({"alg": "EdDSA", "kid": "x"}), &json!({}));
    assert!(verify(&token, &ring).is_ok() && verify(&renamed, &ring).is_ok());
    let foreign = PrivateKey::generate();
    let error = verify(&sign(&foreign, &claims()).unwrap(), &ring).unwrap_err();
    assert!(matches!(error, TokenError::UnknownKey { .. }), "{error}");
    // A token that names another trusted key is verified with that key only.
    ring.add(foreign.public().clone()).unwrap();
    let header = json!({"alg": "EdDSA", "kid": foreign.id()});
    let error = verify(&signed_with_header(&key, &header, &json!({})), &ring).unwrap_err();
    assert!(matches!(error, TokenError::Signature { .. }), "{error}");
}

#[test]
fn the_digest_of_a_token_does_not_depend_on_its_signature() {
    let key = PrivateKey::generate();
    let ring: KeyRing = key.public().clone().into();
    let token = sign(&key, &claims()).unwrap();
    let digest = |token: &str| verify(token, &ring).unwrap().digest().to_owned();
    let (message, _) = token.rsplit_once('.').unwrap();
    assert_eq!(digest(&token), crate::digest::of_bytes(message.as_bytes()));
    assert_eq!(digest(&format!("{token}\r\n")), digest(&token));
    let other = sign(&key, &Claims { jti: Some("1".into()), ..claims() }).unwrap();
    assert_ne!(digest(&other), digest(&token));
}
