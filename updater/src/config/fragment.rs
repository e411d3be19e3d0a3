//! The configuration of one source.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::data::DataFragment;
use super::listen_tls::TlsFragment;
use super::members;
use super::quantity::Quantity;
use super::reboot_policy::RebootFragment;
use super::redact::describe_error;
use super::text::{decode_base64, to_utf8};
use crate::host_settings::InterfaceFragment;

/// The configuration of one source, as written in JSON. Every member is optional; an unknown member is
/// an error. `CONTRIBUTING.md` lists the steps to add a member.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub struct Fragment {
    /// The mirrors of the CDN in the order in which they are tried: `https://` or `http://` URLs, or
    /// absolute directories. Manifests are signed, so `http` protects against forgery as well as `https`
    /// does; it only allows others to observe and delay downloads.
    pub(super) cdn: Option<StringList>,
    /// The variant to follow; by default the running one.
    pub(super) variant: Option<String>,
    /// Keys to trust in addition to those of the image.
    pub(super) keys: Option<StringList>,
    /// Origins, `https://host[:port]`, to which redirects and artifact URLs may lead in addition to the
    /// origin of the CDN.
    pub(super) allowed_origins: Option<Vec<String>>,
    /// The proxy: `http://[user:password@]host:port`.
    pub(super) proxy: Option<String>,
    /// Hosts to connect to without the proxy.
    pub(super) no_proxy: Option<Vec<String>>,
    /// PEM files with certificate authorities to trust in addition to the public ones.
    pub(super) ca: Option<Vec<String>>,
    /// The maximum download rate, in bytes per second.
    pub(super) rate_limit: Option<Quantity>,
    /// The conditions for confirming a new release.
    pub(super) health: Option<HealthFragment>,
    /// When to reboot into a new release.
    pub(super) reboot: Option<RebootFragment>,
    /// A file for the textfile collector of node-exporter.
    pub(super) metrics: Option<String>,
    /// The server for pushed Patterns.
    pub(super) listen: Option<ListenFragment>,
    /// What is kept over reboots.
    pub(super) data: Option<DataFragment>,
    /// The host name.
    pub(super) hostname: Option<String>,
    /// The network interfaces, by names that the configuration gives them.
    pub(super) interfaces: Option<BTreeMap<String, InterfaceFragment>>,
    /// The time servers.
    pub(super) ntp: Option<Vec<String>>,
    /// The sources of Patterns and Commands, by name.
    pub(super) sources: Option<BTreeMap<String, SourceFragment>>,
}

/// The conditions for confirming a new release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(crate) struct HealthFragment {
    /// Units that must be active.
    pub(super) units: Option<Vec<String>>,
    /// Commands for `/bin/sh -c` that must exit with 0.
    pub(super) checks: Option<Vec<String>>,
    /// The time after boot within which the conditions must be met.
    pub(super) deadline: Option<Quantity>,
}

/// A list of strings that JSON may also write as a single string.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct StringList(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for StringList {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct StringOrList;
        impl<'de> Visitor<'de> for StringOrList {
            type Value = StringList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, string: &str) -> Result<StringList, E> {
                Ok(StringList(vec![string.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<StringList, A::Error> {
                let mut strings = Vec::new();
                while let Some(string) = list.next_element()? {
                    strings.push(string);
                }
                Ok(StringList(strings))
            }
        }
        from.deserialize_any(StringOrList)
    }
}

/// The server for pushed Patterns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(crate) struct ListenFragment {
    /// The address to listen on: `address:port`.
    pub(super) address: Option<String>,
    /// Whether to use TLS, and with which certificate.
    pub(super) tls: Option<TlsFragment>,
    /// The sources that may push, by the name in the URL.
    pub(super) sources: Option<BTreeMap<String, PushSourceFragment>>,
}

/// A source that may push Patterns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(crate) struct PushSourceFragment {
    /// The keys that may sign the pushes of this source.
    pub(super) keys: StringList,
    /// Whether this source may also open a shell.
    #[serde(default)]
    pub(super) shell: bool,
}

/// A source of Patterns and Commands. One that may also push has the same name in `listen.sources`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "an object")]
pub(crate) struct SourceFragment {
    /// The keys that may sign the Patterns that this host pulls.
    #[serde(default)]
    pub(super) keys: StringList,
    /// The URL of the token with the Pattern, or of its copies in the order in which they are tried.
    #[serde(default)]
    pub(super) pull: StringList,
    /// Commands that run before the Pattern.
    #[serde(default)]
    pub(super) commands: Vec<Value>,
    /// The time from one run to the next.
    pub(super) interval: Option<Quantity>,
    /// Variables of the Pattern.
    #[serde(default)]
    pub(super) vars: Map<String, Value>,
    /// Whether the host is unhealthy if a Command of this source fails.
    #[serde(default)]
    pub(super) unhealthy: bool,
}

impl Fragment {
    /// Parses JSON, in UTF-8 or UTF-16. The error message names keys and contains no values.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let json = to_utf8(json)?;
        protocol::json::from_slice(&json).map_err(|error| {
            members::explain(&json).unwrap_or_else(|| describe_error(&json, &error))
        })
    }

    /// Returns the JSON in a text that is JSON, or base64 of JSON (standard or URL-safe alphabet, with or
    /// without padding). Returns Jsonnet unchanged, because [`Self::from_json`] explains it.
    pub fn json_of(text: &str) -> Result<Vec<u8>, String> {
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.starts_with('{') || !members::names(text.as_bytes()).is_empty() {
            return Ok(text.as_bytes().to_vec());
        }
        decode_base64(text.as_bytes()).ok_or_else(|| "expected JSON, or base64 of JSON".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;

    #[test]
    fn parses_json_and_base64() {
        let json = r#"{"cdn":"https://x.example/?>","reboot":"never"}"#;
        let fragment = Fragment::from_json(json.as_bytes()).unwrap();
        assert_eq!(fragment.reboot, Some(RebootFragment::Never));
        for text in [json.to_owned(), STANDARD.encode(json), URL_SAFE.encode(json)] {
            assert_eq!(Fragment::json_of(&text).as_deref(), Ok(json.as_bytes()), "{text}");
        }
    }

    #[test]
    fn names_unknown_keys() {
        for (json, key) in [
            (r#"{"cnd": "x"}"#, "cnd"),
            (r#"{"listen": {"adress": "x"}}"#, "adress"),
            (r#"{"listen": {"sources": {"ci": {"key": []}}}}"#, "key"),
            (r#"{"sources": {"ci": {"url": "x"}}}"#, "url"),
        ] {
            let error = Fragment::from_json(json.as_bytes()).unwrap_err();
            assert!(error.contains(&format!("`{key}`")), "{error}");
        }
    }

    #[test]
    fn rejects_duplicate_keys() {
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
        fn does_not_panic_on_any_text(text in "\\PC{0,64}") {
            let _ = Fragment::json_of(&text).and_then(|json| Fragment::from_json(&json));
        }
    }
}
