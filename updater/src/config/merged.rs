//! All sources merged, with who said what.

use std::collections::BTreeMap;

use protocol::PublicKey;
use serde_json::{Value, json};

use super::{Fragment, Reboot, Source, SourceFragment};

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Its origin.
    pub from: Source,
}

/// All sources merged: a later one wins; keys add up; pushing sources are merged by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// See [`Fragment::cdn`]; this and the others.
    pub cdn: Option<Sourced<String>>,
    /// The variant.
    pub variant: Option<Sourced<String>>,
    /// The keys, each with its own origin.
    pub keys: Vec<Sourced<String>>,
    /// The allowed origins.
    pub allowed_origins: Option<Sourced<Vec<String>>>,
    /// When to reboot.
    pub reboot: Option<Sourced<Reboot>>,
    /// The address to listen on.
    pub address: Option<Sourced<String>>,
    /// Who may push.
    pub sources: BTreeMap<String, Sourced<SourceFragment>>,
}

impl Merged {
    /// Puts what a source says over what is there.
    pub fn add(&mut self, from: &Source, fragment: Fragment) {
        let Fragment { cdn, variant, keys, allowed_origins, reboot, listen } = fragment;
        over(&mut self.cdn, cdn, from);
        over(&mut self.variant, variant, from);
        over(&mut self.allowed_origins, allowed_origins, from);
        over(&mut self.reboot, reboot, from);
        for value in keys.into_iter().flatten() {
            self.keys.push(Sourced { value, from: from.clone() });
        }
        let listen = listen.unwrap_or_default();
        over(&mut self.address, listen.address, from);
        for (name, value) in listen.sources.into_iter().flatten() {
            self.sources.insert(name, Sourced { value, from: from.clone() });
        }
    }

    /// Every value and its source, by its key. Keys are shown by their id.
    pub fn to_json(&self) -> Value {
        let sources: BTreeMap<&String, Value> = self
            .sources
            .iter()
            .map(|(name, source)| {
                let ids: Vec<String> = source.value.keys.iter().map(|key| key_id(key)).collect();
                (name, json!({"value": ids, "source": source.from.to_string()}))
            })
            .collect();
        let keys: Vec<Value> = self
            .keys
            .iter()
            .map(|key| json!({"value": key_id(&key.value), "source": key.from.to_string()}))
            .collect();
        json!({
            "cdn": shown(self.cdn.as_ref()),
            "variant": shown(self.variant.as_ref()),
            "keys": keys,
            "allowedOrigins": shown(self.allowed_origins.as_ref()),
            "reboot": shown(self.reboot.as_ref()),
            "listen": {"address": shown(self.address.as_ref()), "sources": sources},
        })
    }

    /// Lines of key, value and source.
    pub fn rows(&self) -> Vec<[String; 3]> {
        let mut rows = Vec::new();
        let mut row = |key: String, value: String, from: String| rows.push([key, value, from]);
        let unset = || ("(not set)".to_owned(), String::new());
        let text = |value: &Option<Sourced<String>>| {
            value.as_ref().map_or_else(unset, |v| (v.value.clone(), v.from.to_string()))
        };
        for (key, value) in
            [("cdn", &self.cdn), ("variant", &self.variant), ("listen.address", &self.address)]
        {
            let (value, from) = text(value);
            row(key.into(), value, from);
        }
        if let Some(reboot) = &self.reboot {
            row("reboot".into(), reboot.value.to_string(), reboot.from.to_string());
        }
        if let Some(origins) = &self.allowed_origins {
            row("allowedOrigins".into(), origins.value.join(", "), origins.from.to_string());
        }
        for key in &self.keys {
            row("keys".into(), key_id(&key.value), key.from.to_string());
        }
        for (name, source) in &self.sources {
            let ids: Vec<String> = source.value.keys.iter().map(|key| key_id(key)).collect();
            row(format!("listen.sources.{name}"), ids.join(", "), source.from.to_string());
        }
        rows
    }
}

fn over<T>(slot: &mut Option<Sourced<T>>, value: Option<T>, from: &Source) {
    if let Some(value) = value {
        *slot = Some(Sourced { value, from: from.clone() });
    }
}

fn shown<T: serde::Serialize>(value: Option<&Sourced<T>>) -> Value {
    value.map_or(Value::Null, |v| json!({"value": v.value, "source": v.from.to_string()}))
}

fn key_id(text: &str) -> String {
    text.parse().map_or_else(|_| "(not a key)".to_owned(), |key: PublicKey| key.id().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_sources_win_and_keys_add_up() {
        let fragment = |json: &str| Fragment::from_json(json.as_bytes()).unwrap();
        let mut merged = Merged::default();
        merged.add(&Source::Image, fragment(r#"{"cdn": "https://a", "keys": ["1"]}"#));
        merged.add(&Source::Cmdline, fragment(r#"{"cdn": "https://b"}"#));
        merged.add(
            &Source::Cidata,
            fragment(r#"{"keys": ["2"], "listen": {"sources": {"ci": {"keys": []}}}}"#),
        );
        let cdn = merged.cdn.clone().unwrap();
        assert_eq!((cdn.value.as_str(), cdn.from), ("https://b", Source::Cmdline));
        assert_eq!(merged.keys.len(), 2);
        assert_eq!(merged.to_json()["listen"]["sources"]["ci"]["source"], "cidata user-data");
        assert_eq!(merged.to_json()["cdn"]["value"], "https://b");
    }
}
