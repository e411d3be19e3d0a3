//! All sources merged, with who said what.

use std::collections::BTreeMap;

use protocol::PublicKey;
use serde_json::{Value, json};

use super::network::{shown_variable, without_credentials};
use super::{
    Environment, Fragment, HealthFragment, ListenFragment, Quantity, RebootFragment, Source,
    SourceFragment, Strings, Variable,
};

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Its origin.
    pub from: Source,
}

/// All sources merged: a later one wins, lists included; keys add up; pushing sources are merged by
/// name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// See [`Fragment::cdn`]; this and the others.
    pub cdn: Option<Sourced<Strings>>,
    /// The variant.
    pub variant: Option<Sourced<String>>,
    /// The keys, each with its own origin.
    pub keys: Vec<Sourced<String>>,
    /// The allowed origins.
    pub allowed_origins: Option<Sourced<Vec<String>>>,
    /// The proxy.
    pub proxy: Option<Sourced<String>>,
    /// Hosts without it.
    pub no_proxy: Option<Sourced<Vec<String>>>,
    /// Files of certificates.
    pub ca: Option<Sourced<Vec<String>>>,
    /// Bytes per second at most.
    pub rate_limit: Option<Sourced<Quantity>>,
    /// Units that have to be active.
    pub health_units: Option<Sourced<Vec<String>>>,
    /// Commands that have to end with 0.
    pub health_checks: Option<Sourced<Vec<String>>>,
    /// How long it may take.
    pub health_deadline: Option<Sourced<Quantity>>,
    /// When to reboot.
    pub reboot: Option<Sourced<RebootFragment>>,
    /// The textfile for node-exporter.
    pub metrics: Option<Sourced<String>>,
    /// The address to listen on.
    pub address: Option<Sourced<String>>,
    /// Who may push.
    pub sources: BTreeMap<String, Sourced<SourceFragment>>,
    /// What the environment says of proxies.
    pub environment: Environment,
}

impl Merged {
    /// Puts what a source says over what is there.
    pub fn add(&mut self, from: &Source, fragment: Fragment) {
        // Taken apart, so that a new key cannot be forgotten here.
        let Fragment {
            cdn,
            variant,
            keys,
            allowed_origins,
            proxy,
            no_proxy,
            ca,
            rate_limit,
            health,
            reboot,
            metrics,
            listen,
        } = fragment;
        over(&mut self.cdn, cdn, from);
        over(&mut self.variant, variant, from);
        for value in keys.into_iter().flatten() {
            self.keys.push(Sourced { value, from: from.clone() });
        }
        over(&mut self.allowed_origins, allowed_origins, from);
        over(&mut self.proxy, proxy, from);
        over(&mut self.no_proxy, no_proxy, from);
        over(&mut self.ca, ca, from);
        over(&mut self.rate_limit, rate_limit, from);
        let HealthFragment { units, checks, deadline } = health.unwrap_or_default();
        over(&mut self.health_units, units, from);
        over(&mut self.health_checks, checks, from);
        over(&mut self.health_deadline, deadline, from);
        over(&mut self.reboot, reboot, from);
        over(&mut self.metrics, metrics, from);
        let ListenFragment { address, sources } = listen.unwrap_or_default();
        over(&mut self.address, address, from);
        for (name, value) in sources.into_iter().flatten() {
            self.sources.insert(name, Sourced { value, from: from.clone() });
        }
    }

    /// Every value and its source, by its key. Keys are shown by their id, the proxy without
    /// credentials.
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
            "proxy": self.shown_proxy(),
            "noProxy": self.shown_no_proxy(),
            "ca": shown(self.ca.as_ref()),
            "rateLimit": shown(self.rate_limit.as_ref()),
            "health": {
                "units": shown(self.health_units.as_ref()),
                "checks": shown(self.health_checks.as_ref()),
                "deadline": shown(self.health_deadline.as_ref()),
            },
            "reboot": shown(self.reboot.as_ref()),
            "metrics": shown(self.metrics.as_ref()),
            "listen": {"address": shown(self.address.as_ref()), "sources": sources},
        })
    }

    /// Lines of key, value and source: a line for each value of a list, and one for each key that is
    /// not set.
    pub fn rows(&self) -> Vec<[String; 3]> {
        let Value::Object(config) = self.to_json() else { return Vec::new() };
        // In the order of the documentation, which is not the alphabet's.
        const ORDER: [&str; 12] = [
            "cdn",
            "variant",
            "keys",
            "allowedOrigins",
            "proxy",
            "noProxy",
            "ca",
            "rateLimit",
            "health",
            "reboot",
            "metrics",
            "listen",
        ];
        let mut rows = Vec::new();
        for key in ORDER {
            add_rows(&mut rows, key, config.get(key).unwrap_or(&Value::Null));
        }
        rows
    }

    /// Of the environment each variable that counts.
    fn shown_proxy(&self) -> Value {
        let Some(Sourced { value, from }) = &self.proxy else {
            let one = |variable| of_variable(variable, json!(shown_variable(variable)));
            return list(self.environment.proxies().map(one).collect());
        };
        json!({"value": without_credentials(value), "source": from.to_string()})
    }

    /// That of the environment is added, but to a proxy that is configured.
    fn shown_no_proxy(&self) -> Value {
        let own = shown(self.no_proxy.as_ref());
        let variable = self.environment.no_proxy.as_ref().filter(|_| self.proxy.is_none());
        let Some(variable) = variable else { return own };
        let hosts: Vec<&str> = self.environment.bypass().collect();
        let own = Some(own).filter(|own| !own.is_null());
        list(own.into_iter().chain([of_variable(variable, json!(hosts))]).collect())
    }
}

/// The lines of what [`Merged::to_json`] says for a key: `null`, `{value, source}`, a list of these, or
/// more keys.
fn add_rows(rows: &mut Vec<[String; 3]>, key: &str, shown: &Value) {
    let mut row = |value: String, from: &str| rows.push([key.to_owned(), value, from.to_owned()]);
    match shown {
        Value::Array(list) if !list.is_empty() => {
            list.iter().for_each(|one| add_rows(rows, key, one));
        }
        Value::Object(map) => match (map.get("value"), map.get("source").and_then(Value::as_str)) {
            (Some(Value::Array(list)), Some(from)) if list.is_empty() => row("(none)".into(), from),
            (Some(Value::Array(list)), Some(from)) => {
                list.iter().for_each(|one| row(plain(one), from));
            }
            (Some(value), Some(from)) => row(plain(value), from),
            _ => map.iter().for_each(|(name, one)| add_rows(rows, &format!("{key}.{name}"), one)),
        },
        _ => row("(not set)".into(), ""),
    }
}

/// A value without quotes, on one line.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.escape_debug().to_string(),
        other => other.to_string(),
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

fn of_variable(variable: &Variable, value: Value) -> Value {
    json!({"value": value, "source": Source::Variable(variable.name).to_string()})
}

/// `null` if there is nothing in it.
fn list(shown: Vec<Value>) -> Value {
    if shown.is_empty() { Value::Null } else { Value::Array(shown) }
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
        assert_eq!((cdn.value.0, cdn.from), (vec!["https://b".to_owned()], Source::Cmdline));
        assert_eq!(merged.keys.len(), 2);
        assert_eq!(merged.to_json()["listen"]["sources"]["ci"]["source"], "cidata user-data");
        assert_eq!(merged.to_json()["cdn"]["value"], json!(["https://b"]));
    }

    #[test]
    fn lists_replace_and_health_is_merged_by_key() {
        let fragment = |json: &str| Fragment::from_json(json.as_bytes()).unwrap();
        let mut merged = Merged::default();
        merged.add(
            &Source::Image,
            fragment(r#"{"cdn": ["/a", "/b"], "ca": ["/x"], "health": {"units": ["a.service"], "deadline": 90}}"#),
        );
        merged.add(
            &Source::Esp,
            fragment(r#"{"cdn": "/c", "ca": [], "health": {"units": ["b.service"]}, "reboot": {"window": "Sat 02:00", "duration": "2h"}}"#),
        );
        let json = merged.to_json();
        assert_eq!(json["cdn"], json!({"value": ["/c"], "source": "ESP etchaos/config.json"}));
        assert_eq!(json["ca"]["value"], json!([]));
        assert_eq!(json["health"]["units"]["value"], json!(["b.service"]));
        assert_eq!(
            json["health"]["deadline"],
            json!({"value": 90, "source": "/usr/lib/etchaos/updater.json"})
        );
        assert_eq!(json["reboot"]["value"]["window"], "Sat 02:00");
    }

    #[test]
    fn every_key_has_a_line_and_the_proxys_password_has_none() {
        let mut merged = Merged::default();
        let json =
            r#"{"cdn": ["/a", "/b"], "proxy": "http://me:SECRET@proxy:3128", "noProxy": []}"#;
        merged.add(&Source::Esp, Fragment::from_json(json.as_bytes()).unwrap());
        let rows = merged.rows();
        let values = |key: &str| -> Vec<&str> {
            rows.iter().filter(|row| row[0] == key).map(|row| row[1].as_str()).collect()
        };
        assert_eq!(values("cdn"), ["/a", "/b"]);
        assert_eq!(values("proxy"), ["http://proxy:3128 (with credentials)"]);
        assert_eq!(values("noProxy"), ["(none)"]);
        for key in [
            "variant",
            "keys",
            "ca",
            "health.units",
            "health.checks",
            "reboot",
            "metrics",
            "listen.address",
        ] {
            assert_eq!(values(key), ["(not set)"], "{key}");
        }
        assert!(!format!("{rows:?}{}", merged.to_json()).contains("SECRET"));
    }
}
