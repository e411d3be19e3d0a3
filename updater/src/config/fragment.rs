//! What one source says.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::complaint::complaint;
use super::{Quantity, RebootFragment};

/// The configuration as it is written, in JSON. Everything may be left out; what is not known is an
/// error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct Fragment {
    /// Where releases are, mirrors in the order in which they are asked: `https://` or `http://` URLs, or
    /// absolute directories. Manifests are signed, so `http` is as safe against forgery as `https`; it only
    /// lets others see and delay.
    pub cdn: Option<Strings>,
    /// The variant to follow, if not the one that runs.
    pub variant: Option<String>,
    /// Keys to trust besides the image's.
    pub keys: Option<Vec<String>>,
    /// `https://host[:port]` that a manifest may name besides the CDN's.
    pub allowed_origins: Option<Vec<String>>,
    /// The proxy: `http://[user:password@]host:port`.
    pub proxy: Option<String>,
    /// Hosts that are reached without it.
    pub no_proxy: Option<Vec<String>>,
    /// Files of PEM certificates to trust besides the public ones.
    pub ca: Option<Vec<String>>,
    /// Bytes per second at most.
    pub rate_limit: Option<Quantity>,
    /// What has to hold before a new release is confirmed.
    pub health: Option<HealthFragment>,
    /// When to reboot into a new release.
    pub reboot: Option<RebootFragment>,
    /// A file for node-exporter's textfile collector.
    pub metrics: Option<String>,
    /// Answering pushed Patterns.
    pub listen: Option<ListenFragment>,
}

/// What has to hold before a new release is confirmed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct HealthFragment {
    /// Units that have to be active.
    pub units: Option<Vec<String>>,
    /// Commands for `/bin/sh -c` that have to end with 0.
    pub checks: Option<Vec<String>>,
    /// How long after the boot all of it may take.
    pub deadline: Option<Quantity>,
}

/// One text, or a list of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Strings(pub Vec<String>);

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Strings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, one: &str) -> Result<Strings, E> {
                Ok(Strings(vec![one.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Strings, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                Ok(Strings(all))
            }
        }
        from.deserialize_any(Either)
    }
}

/// Answering pushed Patterns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct ListenFragment {
    /// `address:port`
    pub address: Option<String>,
    /// Who may push, by the name in the URL.
    pub sources: Option<BTreeMap<String, SourceFragment>>,
}

/// Somebody who may push.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct SourceFragment {
    /// The keys that sign what this source pushes.
    pub keys: Vec<String>,
}

impl Fragment {
    /// Reads JSON. An error names keys and shows no values.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        protocol::json::from_slice(json).map_err(|error| complaint(json, &error))
    }

    /// Reads JSON, or base64 (either alphabet, padded or not) of it.
    pub fn from_word(word: &str) -> Result<Self, String> {
        let word = word.trim();
        if word.starts_with('{') {
            return Self::from_json(word.as_bytes());
        }
        let bare = word.trim_end_matches('=');
        let json = STANDARD_NO_PAD
            .decode(bare)
            .or_else(|_| URL_SAFE_NO_PAD.decode(bare))
            .map_err(|_| "it is neither JSON nor base64 of JSON".to_owned())?;
        Self::from_json(&json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;

    #[test]
    fn json_and_base64_are_read() {
        let json = r#"{"cdn":"https://x.example/?>","reboot":"never"}"#;
        let expected = Fragment::from_json(json.as_bytes()).unwrap();
        assert_eq!(expected.reboot, Some(RebootFragment::Never));
        for word in [json.to_owned(), STANDARD.encode(json), URL_SAFE.encode(json)] {
            assert_eq!(Fragment::from_word(&word), Ok(expected.clone()), "{word}");
        }
    }

    #[test]
    fn unknown_keys_are_named() {
        for (json, key) in [
            (r#"{"cnd": "x"}"#, "cnd"),
            (r#"{"listen": {"adress": "x"}}"#, "adress"),
            (r#"{"listen": {"sources": {"ci": {"key": []}}}}"#, "key"),
        ] {
            let error = Fragment::from_json(json.as_bytes()).unwrap_err();
            assert!(error.contains(&format!("`{key}`")), "{error}");
        }
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused() {
        for json in [
            r#"{"cdn": "a", "cdn": "b"}"#,
            r#"{"cdn": "a", "\u0063dn": "b"}"#,
            r#"{"listen": {"sources": {"ci": {"keys": []}, "ci": {"keys": ["x"]}}}}"#,
        ] {
            let error = Fragment::from_json(json.as_bytes()).unwrap_err();
            assert!(error.contains("duplicate field `c"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_word_panics(word in "\\PC{0,64}") {
            let _ = Fragment::from_word(&word);
        }
    }
}
