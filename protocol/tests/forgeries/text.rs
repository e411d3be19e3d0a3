//! Other encodings of a token, and other texts.

use aws_lc_rs::signature::Ed25519KeyPair;
use protocol::token::{TOKEN_MAX, TokenError, verify};
use protocol::{KeyRing, PrivateKey};
use serde_json::json;

use crate::{
    CLAIMS, assert_accepted, assert_rejected, der, header, message, trusted, with_signature,
};

fn valid_parts() -> (KeyRing, [String; 3]) {
    let (key, ring) = trusted("ed25519", der(&PrivateKey::generate().reveal()), "k1");
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der(&key.reveal())).unwrap();
    let message = message(header("EdDSA", "k1"), CLAIMS);
    let token = with_signature(&message, pair.sign(message.as_bytes()));
    assert_accepted(&token, &ring);
    let mut parts = token.split('.').map(str::to_owned);
    let parts = [parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap()];
    (ring, parts)
}

#[test]
fn rejects_other_encodings_of_a_part() {
    let (ring, parts) = valid_parts();
    let middle = |part: &str, with: &str| format!("{}{with}{}", &part[..8], &part[8..]);
    for index in 0..3 {
        let part = &parts[index];
        let mut forms: Vec<(String, String)> = Vec::new();
        for with in
            [" ", "\n", "\r\n", "\t", "\0", "=", "==", "%20", "+", "/", "*", "é", "\u{200b}"]
        {
            forms.push((format!("{with:?} inside"), middle(part, with)));
            forms.push((format!("{with:?} before"), format!("{with}{part}")));
            // A line end after the token is allowed.
            if index < 2 || !["\n", "\r\n"].contains(&with) {
                forms.push((format!("{with:?} after"), format!("{part}{with}")));
            }
        }
        forms.push(("a missing character".into(), part[..part.len() - 1].to_owned()));
        forms.push(("an extra character".into(), format!("{part}A")));
        forms.push(("twice".into(), format!("{part}{part}")));
        forms.push(("empty".into(), String::new()));
        forms.push(("in hexadecimal".into(), part.bytes().map(|b| format!("{b:02x}")).collect()));
        for (kind, form) in forms {
            let mut changed = parts.clone();
            changed[index] = form;
            assert_rejected(&format!("part {index}: {kind}"), &changed.join("."), &ring);
        }
    }
}

/// 64 bytes take 86 characters, and the last character has four unused bits.
#[test]
fn rejects_unused_bits_that_are_not_zero() {
    let (ring, [header, claims, signature]) = valid_parts();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (start, last) = signature.split_at(85);
    let mut accepted = Vec::new();
    for with in alphabet.chars() {
        if verify(&format!("{header}.{claims}.{start}{with}"), &ring).is_ok() {
            accepted.push(with.to_string());
        }
    }
    assert_eq!(accepted, [last]);
}

#[test]
fn rejects_texts_that_are_not_tokens() {
    let (ring, [header, claims, signature]) = valid_parts();
    let token = format!("{header}.{claims}.{signature}");
    let flattened = json!({"protected": header, "payload": claims, "signature": signature});
    let general = json!({
        "payload": claims,
        "signatures": [{"protected": header, "signature": signature}],
    });
    for (kind, text) in [
        ("nothing", String::new()),
        ("a dot", ".".into()),
        ("two dots", "..".into()),
        ("three dots", "...".into()),
        ("no signature", format!("{header}.{claims}.")),
        ("no signature and no second dot", format!("{header}.{claims}")),
        ("detached claims", format!("{header}..{signature}")),
        ("no header", format!(".{claims}.{signature}")),
        ("an extra dot", format!("{token}.")),
        ("a dot before", format!(".{token}")),
        ("four parts", format!("{token}.{signature}")),
        ("five parts, as in JWE", format!("{token}.AAAA.AAAA")),
        ("two tokens", format!("{token}\n{token}")),
        ("two tokens without a separator", format!("{token}{token}")),
        ("claims that are not encoded", format!("{header}.{CLAIMS}.{signature}")),
        ("claims and header swapped", format!("{claims}.{header}.{signature}")),
        ("JSON serialization", flattened.to_string()),
        ("general JSON serialization", general.to_string()),
        ("in quotes", format!("\"{token}\"")),
        ("as in an HTTP header", format!("Bearer {token}")),
        ("two line ends", format!("{token}\n\n")),
        ("a space after", format!("{token} ")),
        ("a byte order mark", format!("\u{feff}{token}")),
        ("HTML", "<!doctype html><title>502</title>".into()),
        ("only dots", ".".repeat(TOKEN_MAX)),
    ] {
        assert_rejected(kind, &text, &ring);
    }
    // Editors and web servers add a line end.
    for end in ["\n", "\r\n"] {
        assert_accepted(&format!("{token}{end}"), &ring);
    }
}

#[test]
fn limits_the_length_of_a_token() {
    let (ring, [header, _, signature]) = valid_parts();
    let frame = header.len() + signature.len() + 2;
    let token = |length: usize| format!("{header}.{}.{signature}", "A".repeat(length - frame));
    let error = assert_rejected("the maximum length", &token(TOKEN_MAX), &ring);
    assert!(matches!(error, TokenError::Signature { .. }), "{error}");
    let error = assert_rejected("above the maximum length", &token(TOKEN_MAX + 1), &ring);
    assert!(matches!(error, TokenError::TooLong(_)), "{error}");
}
