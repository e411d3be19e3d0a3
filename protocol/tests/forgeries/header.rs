//! Malformed and unacceptable headers, signed by a trusted key.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, Ed25519KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use protocol::token::TokenError;
use protocol::{KeyRing, PrivateKey};

use crate::{
    CLAIMS, assert_accepted, assert_rejected, assert_signature_rejected, der, header, key_text,
    message, trusted, with_signature,
};

struct Signer {
    pair: Ed25519KeyPair,
    key: PrivateKey,
    ring: KeyRing,
}

impl Signer {
    fn new() -> Self {
        let (key, ring) = trusted("ed25519", der(&PrivateKey::generate().reveal()), "k1");
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der(&key.reveal())).unwrap();
        Self { pair, key, ring }
    }

    fn token(&self, header: impl AsRef<[u8]>) -> String {
        let message = message(header, CLAIMS);
        with_signature(&message, self.pair.sign(message.as_bytes()))
    }
}

/// Returns a valid header with additional members.
fn with(members: &str) -> String {
    format!(r#"{{"alg":"EdDSA","kid":"k1",{members}}}"#)
}

#[test]
fn accepts_valid_headers() {
    let signer = Signer::new();
    for good in [
        header("EdDSA", "k1"),
        r#"{"kid":"k1","alg":"EdDSA"}"#.to_owned(),
        " {\"alg\" : \"EdDSA\",\n\"kid\":\"k1\"}\n".to_owned(),
        // RFC 7515 section 4: unknown members are ignored unless crit names them.
        with(r#""cty":"x","zip":"DEF","x":{"y":[1,null]}"#),
        with(r#""CRIT":["exp"],"Jwk":{}"#),
    ] {
        assert_accepted(&signer.token(good), &signer.ring);
    }
}

#[test]
fn rejects_unsafe_and_duplicate_members() {
    let signer = Signer::new();
    let jwk = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    for members in [
        // Section 4.1.11 and RFC 7797, also with values that are not lists of names.
        r#""crit":["exp"],"exp":1"#,
        r#""crit":["b64"],"b64":false"#,
        r#""crit":["b64"],"b64":true"#,
        r#""crit":["alg"]"#,
        r#""crit":[]"#,
        r#""crit":null"#,
        r#""crit":"exp""#,
        r#""crit":{}"#,
        r#""b64":true"#,
        r#""b64":false"#,
        r#""b64":null"#,
        r#""\u0063rit":["exp"]"#,
        // Sections 4.1.2 to 4.1.8: other ways to name a key, or a key inside the token.
        r#""jku":"https://x.example/keys""#,
        &format!(r#""jwk":{jwk}"#),
        r#""jwk":null"#,
        r#""x5u":"https://x.example/cert""#,
        r#""x5c":["MIIB"]"#,
        r#""x5t":"AAAA""#,
        r#""x5t#S256":"AAAA""#,
        // Section 4.1.9.
        r#""typ":"jwt""#,
        r#""typ":"JWE""#,
        r#""typ":"JOSE+JSON""#,
        r#""typ":"application/jwt""#,
        r#""typ":"at+jwt""#,
        r#""typ":"""#,
        r#""typ":null"#,
        r#""typ":["JWT"]"#,
        // Duplicate names: escaped, nested, known and unknown.
        r#""alg":"EdDSA""#,
        r#""alg":"none""#,
        r#""kid":"k1""#,
        r#""kid":"k2""#,
        r#""\u006bid":"k1""#,
        r#""al\u0067":"none""#,
        r#""typ":"JWT","typ":"JWT""#,
        r#""x":1,"x":1"#,
        r#""x":{"y":1,"y":1}"#,
        r#""x":[[{"\u0079":1,"y":1}]]"#,
    ] {
        let error = assert_rejected(members, &signer.token(with(members)), &signer.ring);
        assert!(matches!(error, TokenError::Header(_)), "{members}: {error}");
    }
}

#[test]
fn rejects_malformed_headers() {
    let signer = Signer::new();
    let good = header("EdDSA", "k1");
    let deep = with(&format!(r#""x":{}{}"#, "[".repeat(100), "]".repeat(100)));
    let long = with(&format!(r#""x":"{}""#, "x".repeat(1024)));
    let huge_number = with(r#""x":1e400"#);
    let texts = [
        "null",
        "5",
        "\"x\"",
        "[]",
        "{}",
        "",
        " ",
        "{",
        "}",
        "[\"EdDSA\",\"k1\"]",
        r#"{"kid":"k1"}"#,
        r#"{"alg":null,"kid":"k1"}"#,
        r#"{"alg":["EdDSA"],"kid":"k1"}"#,
        r#"{"alg":"EdDSA","kid":null}"#,
        r#"{"alg":"EdDSA","kid":1}"#,
        r#"{"alg":"EdDSA","kid":["k1"]}"#,
        r#"{"alg":"EdDSA","kid":{"k1":1}}"#,
        r#"{'alg':'EdDSA','kid':'k1'}"#,
        r#"{"alg":"EdDSA","kid":"k1",}"#,
        r#"{"alg":"EdDSA","kid":"k1"/**/}"#,
        r#"{"alg":"EdDSA","kid":"k1","x":"\ud800"}"#,
        r#"{"alg":"EdDSA","kid":"k1","x":NaN}"#,
        r#"{"alg":"EdDSA","kid":"k1","x":01}"#,
        &deep,
        &long,
        &huge_number,
        &format!("{good}x"),
        &format!("{good}{good}"),
        &format!("{good}\0"),
        &format!("\u{feff}{good}"),
    ];
    for text in texts {
        assert_rejected(text, &signer.token(text), &signer.ring);
    }
    let not_utf8 = b"{\"alg\":\"EdDSA\",\"kid\":\"k1\",\"x\":\"\xff\"}";
    assert_rejected("not UTF-8", &signer.token(not_utf8), &signer.ring);
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_rejected("UTF-16", &signer.token(utf16), &signer.ring);
}

#[test]
fn rejects_any_algorithm_but_that_of_the_key() {
    let signer = Signer::new();
    for alg in [
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        " ",
        "eddsa",
        "EDDSA",
        "EdDSA ",
        " EdDSA",
        "EdDSA\0",
        "Ed25519",
        "Ed448",
        "HS256",
        "HS384",
        "HS512",
        "ES256",
        "ES384",
        "ES512",
        "ES256K",
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "PS384",
        "PS512",
        "RSA1_5",
        "dir",
        "A128KW",
        "ECDH-ES",
        "ML-DSA-44",
    ] {
        let text = header(alg, "k1").replace('\0', "\\u0000");
        let error = assert_rejected(alg, &signer.token(&text), &signer.ring);
        assert!(matches!(error, TokenError::Algorithm { .. }), "{alg}: {error}");
        // An unsigned token, as with "none".
        assert_rejected(alg, &with_signature(&message(&text, CLAIMS), []), &signer.ring);
    }
}

/// An attacker who knows the public key uses it as the secret of an HMAC.
#[test]
fn rejects_an_hmac_with_the_public_key_as_secret() {
    let signer = Signer::new();
    let public = signer.key.public().to_string();
    let der = der(&public);
    let lines = STANDARD.encode(&der);
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----");
    let secrets: [(&str, &[u8]); 8] = [
        ("the key string", public.as_bytes()),
        ("its base64", lines.as_bytes()),
        ("its DER", &der),
        ("its point", &der[12..]),
        ("its PEM", pem.as_bytes()),
        ("its PEM with a line end", &[pem.as_bytes(), b"\n"].concat()),
        ("its id", b"k1"),
        ("nothing", b""),
    ];
    for (kind, secret) in secrets {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let tagged = |alg: &str| {
            let message = message(header(alg, "k1"), CLAIMS);
            let tag = hmac::sign(&key, message.as_bytes());
            with_signature(&message, tag)
        };
        let error = assert_rejected(kind, &tagged("HS256"), &signer.ring);
        assert!(matches!(error, TokenError::Algorithm { .. }), "{kind}: {error}");
        assert_signature_rejected(kind, &tagged("EdDSA"), &signer.ring);
    }
}

#[test]
fn rejects_wrong_key_ids() {
    let (one, mut both) = (Signer::new(), KeyRing::default());
    let other = PrivateKey::generate();
    both.add(one.key.public().clone()).unwrap();
    both.add(other.public().clone()).unwrap();
    assert_accepted(&one.token(header("EdDSA", "k1")), &both);
    // Signed by one trusted key, with the id of the other.
    assert_signature_rejected(
        "the id of another key",
        &one.token(header("EdDSA", other.id())),
        &both,
    );
    // The same key under another id: a token verifies only with the id in its header.
    let renamed = one.key.public().to_string().replace(":k1", ":k2");
    let renamed: KeyRing = renamed.parse::<protocol::PublicKey>().unwrap().into();
    let unknown = |kid: &str, ring: &KeyRing| {
        let error = assert_rejected(kid, &one.token(header("EdDSA", kid)), ring);
        assert!(matches!(error, TokenError::UnknownKey { .. }), "{kid}: {error}");
    };
    unknown("k1", &renamed);
    for kid in [" ", "K1", "k1 ", " k1", "k", "k11", "k1\\u0000", "\\nk1", "*", "../k1", "k1' OR 1"]
    {
        unknown(kid, &both);
    }
    unknown(one.key.public().to_string().split(':').nth(1).unwrap(), &both);
    unknown("k1", &KeyRing::default());
}

#[test]
fn rejects_a_key_of_another_kind_with_the_same_id() {
    let one = Signer::new();
    let (ec, ec_ring) =
        trusted("ecp256", crate::p256::pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING), "k1");
    for alg in ["EdDSA", "ES256"] {
        assert_rejected(alg, &one.token(header(alg, "k1")), &ec_ring);
        let signed = protocol::token::sign(&ec, &protocol::Claims::default()).unwrap();
        assert_rejected(alg, &signed, &one.ring);
    }
    // A ring cannot contain both keys, and a key cannot have the type of another kind.
    let mut ring = one.ring.clone();
    assert!(ring.add(ec.public().clone()).is_err());
    let wrong = key_text("ed25519public", der(&ec.public().to_string()), "k1");
    assert!(wrong.parse::<protocol::PublicKey>().is_err());
}
