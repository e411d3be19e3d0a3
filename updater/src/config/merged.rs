//! All sources merged, with the source of each value.

use std::collections::BTreeMap;

use protocol::PublicKey;
use serde_json::{Value, json};

use super::broken::{Broken, Ignored};
use super::data::DataFragment;
use super::fragment::{
    Fragment, HealthFragment, ListenFragment, PushSourceFragment, SourceFragment, StringList,
};
use super::listen_tls::TlsFragment;
use super::network::{Environment, Variable, redact_proxy};
use super::quantity::Quantity;
use super::reboot_policy::RebootFragment;
use super::source::Source;
use crate::host_settings::InterfaceFragment;

/// A value and its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sourced<T> {
    /// The value.
    pub(super) value: T,
    /// Where the value came from.
    pub(super) source: Source,
}

/// All sources merged. A value of a later source, lists included, replaces that of an earlier one; keys
/// are added together, and sources of Patterns are merged by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// See [`Fragment::cdn`]; the other members correspond to those of [`Fragment`] too.
    pub(super) cdn: Option<Sourced<StringList>>,
    pub(super) variant: Option<Sourced<String>>,
    /// The keys, each with its own source.
    pub(super) keys: Vec<Sourced<String>>,
    pub(super) allowed_origins: Option<Sourced<Vec<String>>>,
    pub(super) proxy: Option<Sourced<String>>,
    pub(super) no_proxy: Option<Sourced<Vec<String>>>,
    pub(super) ca: Option<Sourced<Vec<String>>>,
    pub(super) rate_limit: Option<Sourced<Quantity>>,
    pub(super) health_units: Option<Sourced<Vec<String>>>,
    pub(super) health_checks: Option<Sourced<Vec<String>>>,
    pub(super) health_deadline: Option<Sourced<Quantity>>,
    pub(super) reboot: Option<Sourced<RebootFragment>>,
    pub(super) metrics: Option<Sourced<String>>,
    pub(super) listen_address: Option<Sourced<String>>,
    pub(super) listen_tls: Option<Sourced<TlsFragment>>,
    pub(super) push_sources: BTreeMap<String, Sourced<PushSourceFragment>>,
    pub(super) data: Option<Sourced<DataFragment>>,
    pub(super) hostname: Option<Sourced<String>>,
    pub(super) interfaces: Option<Sourced<BTreeMap<String, InterfaceFragment>>>,
    pub(super) ntp: Option<Sourced<Vec<String>>>,
    pub(super) sources: BTreeMap<String, Sourced<SourceFragment>>,
    /// The proxy variables of the environment.
    pub(super) environment: Environment,
    /// The sources that are broken.
    pub(super) broken: Vec<Broken>,
    /// The broken source that sets `cdn` to a value that is not known, if no later source sets it.
    pub(super) unknown_cdn: Option<Source>,
    /// The same for `data`.
    pub(super) unknown_data: Option<Source>,
    /// The sources that are meant for other programs.
    pub(super) ignored: Vec<Ignored>,
}

impl Merged {
    /// Merges the values of a source over the values that earlier sources set.
    pub fn add(&mut self, source: &Source, fragment: Fragment) {
        // Destructured, so that the compiler rejects a new key that is not merged.
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
            data,
            hostname,
            interfaces,
            ntp,
            sources: pattern_sources,
        } = fragment;
        if cdn.is_some() {
            self.unknown_cdn = None;
        }
        if data.is_some() {
            self.unknown_data = None;
        }
        replace(&mut self.cdn, cdn, source);
        replace(&mut self.variant, variant, source);
        for value in keys.unwrap_or_default().0 {
            self.keys.push(Sourced { value, source: source.clone() });
        }
        replace(&mut self.allowed_origins, allowed_origins, source);
        replace(&mut self.proxy, proxy, source);
        replace(&mut self.no_proxy, no_proxy, source);
        replace(&mut self.ca, ca, source);
        replace(&mut self.rate_limit, rate_limit, source);
        let HealthFragment { units, checks, deadline } = health.unwrap_or_default();
        replace(&mut self.health_units, units, source);
        replace(&mut self.health_checks, checks, source);
        replace(&mut self.health_deadline, deadline, source);
        replace(&mut self.reboot, reboot, source);
        replace(&mut self.metrics, metrics, source);
        let ListenFragment { address, tls, sources } = listen.unwrap_or_default();
        replace(&mut self.listen_address, address, source);
        replace(&mut self.listen_tls, tls, source);
        for (name, value) in sources.into_iter().flatten() {
            self.push_sources.insert(name, Sourced { value, source: source.clone() });
        }
        replace(&mut self.data, data, source);
        replace(&mut self.hostname, hostname, source);
        replace(&mut self.interfaces, interfaces, source);
        replace(&mut self.ntp, ntp, source);
        for (name, value) in pattern_sources.into_iter().flatten() {
            self.sources.insert(name, Sourced { value, source: source.clone() });
        }
    }

    /// Adds a broken source, which is later than those that were added before.
    pub(super) fn add_broken(&mut self, broken: Broken) {
        if broken.unknown.contains(&"cdn") {
            self.unknown_cdn = Some(broken.error.origin().clone());
        }
        if broken.unknown.contains(&"data") {
            self.unknown_data = Some(broken.error.origin().clone());
        }
        self.broken.push(broken);
    }

    /// Returns the broken source because of which the CDN is not known.
    pub(crate) fn source_of_unknown_cdn(&self) -> Option<&Source> {
        self.unknown_cdn.as_ref()
    }

    /// Returns the broken source because of which it is not known what is kept over reboots.
    pub(crate) fn source_of_unknown_data(&self) -> Option<&Source> {
        self.unknown_data.as_ref()
    }

    /// Returns the first broken source that has keys which are not known.
    pub(crate) fn source_of_unknown_keys(&self) -> Option<&Source> {
        let found = self.broken.iter().find(|broken| broken.unknown.contains(&"keys"));
        found.map(|broken| broken.error.origin())
    }

    /// Returns the errors of the broken sources, one line each.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.broken.iter().map(|broken| broken.error.to_string()).collect()
    }

    /// Returns whether every broken source stays broken until somebody corrects it.
    pub(crate) fn is_permanently_broken(&self) -> bool {
        self.broken.iter().all(|broken| broken.error.is_permanent())
    }

    /// Returns the broken sources whose health checks are not known.
    pub(crate) fn sources_with_unknown_health(&self) -> Vec<String> {
        let unknown = self.broken.iter().filter(|broken| broken.unknown.contains(&"health"));
        unknown.map(|broken| broken.error.origin().to_string()).collect()
    }

    /// Returns why the host must not be rebooted into a new release because of a broken source, or
    /// `None` if it may be.
    pub(crate) fn reason_not_to_reboot(&self) -> Option<String> {
        self.broken.iter().find_map(Broken::reason_not_to_reboot)
    }

    /// Returns every value and its source, by key, and the sources that are broken and ignored. Shows keys
    /// by their ID, and the proxy without credentials.
    pub fn to_json(&self) -> Value {
        let broken: Vec<Value> = self.broken.iter().map(Broken::to_json).collect();
        let ignored: Vec<Value> = self.ignored.iter().map(Ignored::to_json).collect();
        let lists = [("broken", broken.into()), ("ignored", ignored.into())];
        let members = self.members().into_iter().chain(lists);
        members.map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// Returns rows of key, value and source: one row for each value of a list, and one for each key that
    /// is not set. Rows of "(broken)" or "(ignored)", source and reason follow for such sources.
    pub fn rows(&self) -> Vec<[String; 3]> {
        let mut rows = Vec::new();
        for (key, value) in self.members() {
            add_rows(&mut rows, key, &value);
        }
        // The reasons are long, so they are in the last column.
        let row = |kind: &str, source: &Source, reason: String| {
            [format!("({kind})"), source.to_string(), reason]
        };
        let broken = self.broken.iter().map(|broken| &broken.error);
        rows.extend(broken.map(|error| row("broken", error.origin(), error.to_string())));
        let ignored = self.ignored.iter();
        rows.extend(ignored.map(|found| row("ignored", &found.source, found.reason.clone())));
        rows
    }

    /// Returns the members of [`Merged::to_json`], in the order of `docs/operators.md`.
    fn members(&self) -> Vec<(&'static str, Value)> {
        let sources: BTreeMap<&String, Value> = self
            .push_sources
            .iter()
            .map(|(name, source)| {
                let ids: Vec<String> = source.value.keys.0.iter().map(|key| key_id(key)).collect();
                let mut shown = json!({"value": ids, "source": source.source.to_string()});
                if source.value.shell {
                    shown["shell"] = json!(true);
                }
                (name, shown)
            })
            .collect();
        let pattern_sources: BTreeMap<&String, Value> = self
            .sources
            .iter()
            .map(|(name, source)| {
                let value = source_json(&source.value);
                (name, json!({"value": value, "source": source.source.to_string()}))
            })
            .collect();
        let keys: Vec<Value> = self
            .keys
            .iter()
            .map(|key| json!({"value": key_id(&key.value), "source": key.source.to_string()}))
            .collect();
        let health = json!({
            "units": with_source(self.health_units.as_ref()),
            "checks": with_source(self.health_checks.as_ref()),
            "deadline": with_source(self.health_deadline.as_ref()),
        });
        let listen = json!({
            "address": with_source(self.listen_address.as_ref()),
            "tls": with_source(self.listen_tls.as_ref()),
            "sources": sources,
        });
        vec![
            ("cdn", with_source(self.cdn.as_ref())),
            ("variant", with_source(self.variant.as_ref())),
            ("keys", Value::Array(keys)),
            ("allowedOrigins", with_source(self.allowed_origins.as_ref())),
            ("proxy", self.proxy_json()),
            ("noProxy", self.no_proxy_json()),
            ("ca", with_source(self.ca.as_ref())),
            ("rateLimit", with_source(self.rate_limit.as_ref())),
            ("health", health),
            ("reboot", with_source(self.reboot.as_ref())),
            ("metrics", with_source(self.metrics.as_ref())),
            ("listen", listen),
            ("data", with_source(self.data.as_ref())),
            ("hostname", with_source(self.hostname.as_ref())),
            ("interfaces", with_source(self.interfaces.as_ref())),
            ("ntp", with_source(self.ntp.as_ref())),
            ("sources", json!(pattern_sources)),
        ]
    }

    /// Returns the configured proxy, or else every proxy variable of the environment that applies.
    fn proxy_json(&self) -> Value {
        let Some(Sourced { value, source }) = &self.proxy else {
            let entry = |variable| with_variable(variable, json!(redact_proxy(&variable.value)));
            return list(self.environment.proxies().map(entry).collect());
        };
        json!({"value": redact_proxy(value), "source": source.to_string()})
    }

    /// Returns the configured hosts, and those of the environment, which apply unless a proxy is
    /// configured.
    fn no_proxy_json(&self) -> Value {
        let own = with_source(self.no_proxy.as_ref());
        let variable = self.environment.no_proxy.as_ref().filter(|_| self.proxy.is_none());
        let Some(variable) = variable else { return own };
        let hosts: Vec<&str> = self.environment.bypass().collect();
        let own = Some(own).filter(|own| !own.is_null());
        list(own.into_iter().chain([with_variable(variable, json!(hosts))]).collect())
    }
}

/// Adds the rows for what [`Merged::to_json`] returns for a key: `null`, `{value, source}`, a list of
/// these, or an object with more keys.
fn add_rows(rows: &mut Vec<[String; 3]>, key: &str, json: &Value) {
    let mut row =
        |value: String, source: &str| rows.push([key.to_owned(), value, source.to_owned()]);
    match json {
        Value::Array(list) if !list.is_empty() => {
            list.iter().for_each(|item| add_rows(rows, key, item));
        }
        Value::Object(map) => match (map.get("value"), map.get("source").and_then(Value::as_str)) {
            (Some(Value::Array(list)), Some(source)) if list.is_empty() => {
                row("(none)".into(), source);
            }
            (Some(Value::Array(list)), Some(source)) => {
                list.iter().for_each(|item| row(to_line(item), source));
            }
            (Some(value), Some(source)) => row(to_line(value), source),
            _ => map.iter().for_each(|(name, json)| add_rows(rows, &format!("{key}.{name}"), json)),
        },
        _ => row("(not set)".into(), ""),
    }
}

/// Formats a value without quotes, on one line.
fn to_line(value: &Value) -> String {
    match value {
        Value::String(text) => text.escape_debug().to_string(),
        other => other.to_string(),
    }
}

fn replace<T>(old: &mut Option<Sourced<T>>, value: Option<T>, source: &Source) {
    if let Some(value) = value {
        *old = Some(Sourced { value, source: source.clone() });
    }
}

fn with_source<T: serde::Serialize>(value: Option<&Sourced<T>>) -> Value {
    value.map_or(Value::Null, |v| json!({"value": v.value, "source": v.source.to_string()}))
}

fn with_variable(variable: &Variable, value: Value) -> Value {
    json!({"value": value, "source": Source::Variable(variable.name).to_string()})
}

/// Returns a source of Patterns with its keys by their IDs, its Commands as their number, and the names of its
/// variables, since Commands and variables may contain secrets.
fn source_json(source: &SourceFragment) -> Value {
    let SourceFragment { keys, pull, commands, interval, vars, unhealthy } = source;
    json!({
        "keys": keys.0.iter().map(|key| key_id(key)).collect::<Vec<_>>(),
        "pull": pull,
        "commands": commands.len(),
        "interval": interval,
        "vars": vars.keys().collect::<Vec<_>>(),
        "unhealthy": unhealthy,
    })
}

/// Returns the list, or `null` if it is empty.
fn list(items: Vec<Value>) -> Value {
    if items.is_empty() { Value::Null } else { Value::Array(items) }
}

fn key_id(text: &str) -> String {
    text.parse().map_or_else(|_| "(not a key)".to_owned(), |key: PublicKey| key.id().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_sources_replace_values_and_add_keys() {
        let fragment = |json: &str| Fragment::from_json(json.as_bytes()).unwrap();
        let mut merged = Merged::default();
        merged.add(&Source::Image, fragment(r#"{"cdn": "https://a", "keys": ["1"]}"#));
        merged.add(&Source::Cmdline, fragment(r#"{"cdn": "https://b"}"#));
        merged.add(
            &Source::Cidata,
            fragment(r#"{"keys": ["2"], "listen": {"sources": {"ci": {"keys": []}}}}"#),
        );
        let cdn = merged.cdn.clone().unwrap();
        assert_eq!((cdn.value.0, cdn.source), (vec!["https://b".to_owned()], Source::Cmdline));
        assert_eq!(merged.keys.len(), 2);
        assert_eq!(merged.to_json()["listen"]["sources"]["ci"]["source"], "cidata user-data");
        assert_eq!(merged.to_json()["cdn"]["value"], json!(["https://b"]));
    }

    #[test]
    fn replaces_lists_and_merges_health_by_key() {
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
    fn rows_show_every_key_and_no_password() {
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
            "hostname",
            "interfaces",
            "ntp",
        ] {
            assert_eq!(values(key), ["(not set)"], "{key}");
        }
        assert!(!format!("{rows:?}{}", merged.to_json()).contains("SECRET"));
    }
}
