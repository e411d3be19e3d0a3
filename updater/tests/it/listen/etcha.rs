//! What Etcha's push client sends, and what it shows for an answer.

use std::net::TcpStream;

use protocol::token::sign;
use protocol::{Claims, PrivateKey};
use serde::Deserialize;
use serde_json::json;

use super::{example, listen, pattern, request, with_text};
use crate::world::now;

/// What the client shows. Only an error gives an exit code other than 0.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    Error(String),
    NoChanges,
    /// The ids of the Commands that were changed or removed.
    Changed(Vec<String>),
}

/// The members that the client decodes. A member that is missing has the empty value, as in Go.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    err: String,
    #[serde(rename = "exit")]
    _exit: bool,
    #[serde(rename = "changedIDs")]
    changed_ids: Vec<String>,
    #[serde(rename = "changedOutputs")]
    changed_outputs: Vec<String>,
    #[serde(rename = "removedIDs")]
    removed_ids: Vec<String>,
    #[serde(rename = "removedOutputs")]
    removed_outputs: Vec<String>,
}

/// Returns what the client shows. It knows three statuses, and decodes all other answers.
fn shown_by_client(status: u16, body: &str) -> Shown {
    match status {
        404 => return Shown::Error("no such source".into()),
        429 => return Shown::Error("rate limit".into()),
        304 => return Shown::NoChanges,
        _ => {}
    }
    let answer: Answer = match serde_json::from_str(body) {
        Ok(answer) => answer,
        Err(error) => return Shown::Error(error.to_string()),
    };
    if !answer.err.is_empty() {
        return Shown::Error(answer.err);
    }
    assert_eq!(answer.changed_ids.len(), answer.changed_outputs.len());
    assert_eq!(answer.removed_ids.len(), answer.removed_outputs.len());
    match [answer.changed_ids, answer.removed_ids].concat() {
        ids if ids.is_empty() => Shown::NoChanges,
        ids => Shown::Changed(ids),
    }
}

/// Returns the token that Etcha's client sends for `push ci COMMAND`: with Jsonnet, without `exp` and `jti`, and without
/// `kid` if an external command signs.
fn etcha_token(key: &PrivateKey, change: &str) -> String {
    let change = serde_json::to_string(change).unwrap();
    let text = format!("{{ run: [{{ always: true, change: {change}, id: 'etcha push' }}] }}");
    let Claims { iat, etcha_pattern, .. } = with_text(&text);
    let token = Claims { iat, nbf: iat, etcha_pattern, ..Claims::default() };
    sign(&key.reveal().rsplit_once(':').unwrap().0.parse().unwrap(), &token).unwrap()
}

#[test]
fn etchas_client_shows_every_failure() {
    let key = PrivateKey::generate();
    let listener = listen(&key);
    let shown = |(status, body): (u16, String)| shown_by_client(status, &body);
    let shown_of = |claims: &Claims| shown(listener.push("", &sign(&key, claims).unwrap()));
    let iat = now();
    let pushed = shown(listener.push("", &etcha_token(&key, "echo made")));
    assert_eq!(pushed, Shown::Changed(vec!["etcha push".into()]));
    let nothing = pattern(json!([{"id": "fine", "check": "true", "change": "exit 1"}]));
    assert_eq!(shown_of(&nothing), Shown::NoChanges);
    let unmet = pattern(json!([{"id": "unmet", "check": "false"}]));
    assert_eq!(shown_of(&unmet), Shown::NoChanges);
    let removing = json!([{"id": "x", "check": "false", "change": "echo 1"}]);
    assert_eq!(shown_of(&pattern(removing)), Shown::Changed(vec!["x".into()]));

    let token = sign(&key, &example()).unwrap();
    let replayed = etcha_token(&key, "echo other");
    assert!(matches!(shown(listener.push("", &replayed)), Shown::Changed(_)));
    let post = |path: &str, body: &str| shown(listener.request(path, body.as_bytes()));
    let push = "POST /etcha/v1/push/ci";
    for (case, shown) in [
        ("a failed Command", shown_of(&example())),
        (
            "a Command that failed without output",
            shown(listener.push("", &etcha_token(&key, "exit 1"))),
        ),
        ("a replay", shown(listener.push("", &replayed))),
        ("an unknown source", post("POST /etcha/v1/push/other", &token)),
        ("another path", post("POST /", &token)),
        ("another method", post("PUT /etcha/v1/push/ci", &token)),
        ("another query", post(&format!("{push}?x"), &token)),
        ("a bad filter", post(&format!("{push}?filter=("), &token)),
        ("no token", post(push, "not a token")),
        ("an empty body", post(push, "")),
        ("a large body", post(push, &"x".repeat(protocol::token::TOKEN_MAX + 2))),
        ("another key", post(push, &sign(&PrivateKey::generate(), &example()).unwrap())),
        ("an old token", shown_of(&Claims { iat: Some(iat - 900), exp: None, ..example() })),
        (
            "an expired token",
            shown_of(&Claims { iat: Some(iat - 900), exp: Some(iat - 600), ..example() }),
        ),
        ("a future token", shown_of(&Claims { iat: Some(iat + 900), exp: None, ..example() })),
        ("no iat", shown_of(&Claims { iat: None, ..example() })),
        ("another audience", shown_of(&Claims { aud: vec!["x".into()], ..example() })),
        ("no Pattern", shown_of(&Claims { etcha_pattern: None, ..example() })),
        ("a text that is no Pattern", shown_of(&with_text("{"))),
        ("an unknown event", shown_of(&with_text(r#"{"run": [{"id": "x", "onChange": ["y"]}]}"#))),
        (
            "an interpreter that does not exist",
            shown_of(&with_text(
                r#"{"exec": {"command": "/missing"}, "run": [{"id": "x", "always": true, "change": "1"}]}"#,
            )),
        ),
    ] {
        assert!(matches!(shown, Shown::Error(_)), "{case}: {shown:?}");
    }
    // Plain HTTP to a port with TLS.
    let plain = request(TcpStream::connect(&listener.address).unwrap(), push, token.as_bytes());
    assert!(matches!(shown(plain), Shown::Error(_)));
}
