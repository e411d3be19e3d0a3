//! The validated configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;

use protocol::pattern::PatternError;
use protocol::proxy::ProxyUrl;
use protocol::release::is_file_name;
use protocol::url::Origin;
use protocol::{KeyRing, Variant};
use serde_json::Value;

use super::data::Data;
use super::error::ConfigError;
use super::fragment::SourceFragment;
use super::health_policy::HealthPolicy;
use super::listen_tls::Tls;
use super::merged::{Merged, Sourced};
use super::network::Network;
use super::no_proxy::Bypass;
use super::pattern_source::{PatternSource, pattern_of};
use super::reboot_policy::{Reboot, RebootFragment, Window};
use super::redact::shorten;
use super::source::Source;
use crate::host_settings::{self, HostSettings};

/// The minimum of `rateLimit`, in bytes per second. A slower download takes days, and appears to hang.
const RATE_MIN: u64 = 1024;
/// The maximum length of a unit name (systemd.unit(5)).
const UNIT_MAX: usize = 255;
/// The maximum length of a check in bytes. Longer commands belong in a script.
const CHECK_MAX: usize = 4096;
/// The maximum number of `sources`. A host keeps up to 10 MiB for each.
const SOURCES_MAX: usize = 64;
/// The maximum depth of a variable of a Pattern, which is part of a deeper object where it is kept.
const VARS_DEPTH_MAX: usize = 16;

/// The validated configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The mirrors of the CDN in the order in which they are tried: http(s) URLs or absolute directories,
    /// without a trailing slash. Empty if no CDN is configured.
    pub cdn: Vec<String>,
    /// The variant to follow.
    pub variant: Option<Variant>,
    /// The keys whose manifests are trusted.
    pub keys: KeyRing,
    /// Origins, `https://host[:port]`, to which redirects and artifact URLs may lead in addition to the
    /// origin of the CDN.
    pub allowed_origins: Vec<String>,
    /// Settings for connections to the CDN.
    pub network: Network,
    /// The conditions for confirming a new release.
    pub health: HealthPolicy,
    /// When to reboot into a new release.
    pub reboot: Reboot,
    /// A file for the textfile collector of node-exporter.
    pub metrics: Option<PathBuf>,
    /// The server for pushed Patterns; `None` if no source may push.
    pub listen: Option<Listen>,
    /// What is kept over reboots; `None` if nothing is.
    pub data: Option<Data>,
    /// The host name, the network interfaces and the time servers.
    pub host: HostSettings,
    /// The sources of Patterns and Commands by name, including those that only push.
    pub sources: BTreeMap<String, PatternSource>,
}

/// The settings of the server for pushed Patterns.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The address to listen on.
    pub address: SocketAddr,
    /// Whether to use TLS, and with which certificate.
    pub tls: Tls,
    /// The keys of the sources that may push, by the name in the URL.
    pub sources: BTreeMap<String, KeyRing>,
    /// The sources that may also open a shell.
    pub shells: BTreeSet<String>,
}

impl TryFrom<&Merged> for Settings {
    type Error = ConfigError;

    fn try_from(merged: &Merged) -> Result<Self, ConfigError> {
        let sources = pattern_sources(merged)?;
        let strict = sources.iter().filter(|(_, source)| source.unhealthy);
        let strict = strict.map(|(name, _)| name.clone()).collect();
        Ok(Self {
            cdn: cdn(merged)?,
            variant: merged.variant.as_ref().map(variant).transpose()?,
            keys: key_ring("keys", merged.keys.iter().map(|key| (&key.value, &key.source)))?,
            allowed_origins: allowed_origins(merged)?,
            network: network(merged)?,
            health: HealthPolicy { sources: strict, ..health(merged)? },
            reboot: reboot(merged)?,
            metrics: metrics(merged)?,
            listen: listen(merged)?,
            data: data(merged)?,
            host: host(merged)?,
            sources,
        })
    }
}

fn cdn(merged: &Merged) -> Result<Vec<String>, ConfigError> {
    let Some(cdn) = &merged.cdn else { return Ok(Vec::new()) };
    // The message omits the value, which may be invalid because it contains a password.
    let reason = "expected https://host[:port]/path or http://host[:port]/path, the port from 1 to 65535, without credentials, query or fragment; or an absolute directory; or a list of these";
    validate_each(&cdn.value.0, |text| {
        base_url(text).ok_or_else(|| invalid("cdn", &cdn.source, reason))
    })
}

/// Returns an http(s) URL or an absolute directory without its trailing slash. A URL gets its origin in the
/// shortest form, so that every request and message shows the server alike.
fn base_url(text: &str) -> Option<String> {
    let trimmed = text.trim_end_matches('/');
    if let Some((origin, path)) = Origin::split(trimmed) {
        return (!path.contains(['?', '#'])).then(|| format!("{origin}{path}"));
    }
    let path = trimmed.strip_prefix("file://").unwrap_or(trimmed);
    path.starts_with('/').then(|| path.to_owned())
}

fn variant(variant: &Sourced<String>) -> Result<Variant, ConfigError> {
    // The message omits this value too: it may be a misplaced secret.
    let reason = "expected 1 to 16 lower-case letters and digits, such as \"deb\"";
    variant.value.parse().map_err(|_| invalid("variant", &variant.source, reason))
}

fn allowed_origins(merged: &Merged) -> Result<Vec<String>, ConfigError> {
    let Some(origins) = &merged.allowed_origins else { return Ok(Vec::new()) };
    let reason = "expected https://host[:port], the port from 1 to 65535, with nothing after it";
    // Without this rule, an https CDN could redirect its hosts to plain http.
    let http = "expected https://host[:port]: http is not accepted here; serve these files by https, or set \"cdn\" to the http address that serves them";
    validate_each(&origins.value, |text| match Origin::split(text) {
        Some((origin, "")) if origin.is_https() => Ok(origin.to_string()),
        Some((_, "")) => Err(invalid("allowedOrigins", &origins.source, http)),
        _ => Err(invalid("allowedOrigins", &origins.source, reason)),
    })
}

fn network(merged: &Merged) -> Result<Network, ConfigError> {
    let mut network = Network::default();
    if let Some(Sourced { value: proxy, source }) = &merged.proxy {
        let reason = "expected http://[user:password@]host:port, the port from 1 to 65535, with /, @, : and # in user and password percent-encoded";
        network.proxy = Some(proxy_url(proxy).ok_or_else(|| invalid("proxy", source, reason))?);
    }
    if let Some(Sourced { value: hosts, source }) = &merged.no_proxy {
        let reason = "expected a list of host names (in ASCII, such as xn--bcher-kva.example), .suffixes, *.suffixes, addresses, networks such as 10.0.0.0/8, or *; each may have a port, such as example.com:8443";
        let entry = |text: &str| Bypass::parse(text).map(|_| text.to_owned());
        network.no_proxy = validate_each(hosts, |text| {
            entry(text).ok_or_else(|| invalid("noProxy", source, reason))
        })?;
    }
    if let Some(Sourced { value: files, source }) = &merged.ca {
        let reason = "expected a list of absolute paths of PEM files";
        network.authorities = validate_each(files, |text| {
            absolute_path(text).ok_or_else(|| invalid("ca", source, reason))
        })?;
    }
    if let Some(Sourced { value: rate, source }) = &merged.rate_limit {
        let reason = "expected bytes per second, at least 1K: a number, or one with K, M or G, such as \"2M\"";
        let limit = rate.bytes().filter(|limit| limit.get() >= RATE_MIN);
        network.rate_limit = Some(limit.ok_or_else(|| invalid("rateLimit", source, reason))?);
    }
    Ok(network)
}

/// Returns a proxy without a trailing slash. Unlike in the environment, whose values are shared with other
/// programs, scheme and port are required and special characters must be encoded.
fn proxy_url(text: &str) -> Option<String> {
    let trimmed = text.strip_suffix('/').unwrap_or(text);
    let proxy = ProxyUrl::parse(trimmed).ok()?;
    let is_valid = trimmed.starts_with("http://")
        && !trimmed.ends_with('/')
        && proxy.port().is_some()
        && proxy.is_portable();
    is_valid.then(|| trimmed.to_owned())
}

fn absolute_path(path: &str) -> Option<PathBuf> {
    let is_valid = path.starts_with('/') && !path.contains('\0') && !path.ends_with('/');
    is_valid.then(|| PathBuf::from(path))
}

fn health(merged: &Merged) -> Result<HealthPolicy, ConfigError> {
    let mut health = HealthPolicy::default();
    if let Some(Sourced { value: units, source }) = &merged.health_units {
        let reason = "expected a list of units with their type, such as \"docker.service\"";
        let unit = |name: &str| is_unit(name).then(|| name.to_owned());
        health.units = validate_each(units, |text| {
            unit(text).ok_or_else(|| invalid("health.units", source, reason))
        })?;
    }
    if let Some(Sourced { value: checks, source }) = &merged.health_checks {
        let reason = "expected a list of shell commands of at most 4096 bytes";
        let is_valid = |check: &str| {
            !check.trim().is_empty() && check.len() <= CHECK_MAX && !check.contains('\0')
        };
        let check = |check: &str| is_valid(check).then(|| check.to_owned());
        health.checks = validate_each(checks, |text| {
            check(text).ok_or_else(|| invalid("health.checks", source, reason))
        })?;
    }
    if let Some(Sourced { value: deadline, source }) = &merged.health_deadline {
        let reason = "expected a duration from 1min to 24h, such as \"15min\", or seconds";
        let duration =
            deadline.duration().filter(|duration| HealthPolicy::DEADLINES.contains(duration));
        health.deadline = duration.ok_or_else(|| invalid("health.deadline", source, reason))?;
    }
    Ok(health)
}

/// Returns whether the text is the name of a unit that can be active (systemd.unit(5)).
fn is_unit(name: &str) -> bool {
    const TYPES: [&str; 11] = [
        "service",
        "socket",
        "target",
        "mount",
        "automount",
        "timer",
        "path",
        "slice",
        "scope",
        "swap",
        "device",
    ];
    let plain = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    let Some((stem, kind)) = name.rsplit_once('.') else { return false };
    !stem.is_empty()
        && TYPES.contains(&kind)
        && name.len() <= UNIT_MAX
        // systemctl would parse a name that begins with a dash as an option. A template unit cannot be
        // active; its instances can.
        && !name.starts_with(['-', '@'])
        && !stem.ends_with('@')
        && name.bytes().all(plain)
}

fn reboot(merged: &Merged) -> Result<Reboot, ConfigError> {
    let Some(Sourced { value: reboot, source }) = &merged.reboot else {
        return Ok(Reboot::default());
    };
    Ok(match reboot {
        RebootFragment::Now => Reboot::Now,
        RebootFragment::Idle => Reboot::Idle,
        RebootFragment::Never => Reboot::Never,
        RebootFragment::Window(window) => {
            Reboot::Window(Window::new(window).map_err(|reason| invalid("reboot", source, reason))?)
        }
    })
}

fn metrics(merged: &Merged) -> Result<Option<PathBuf>, ConfigError> {
    let Some(Sourced { value: path, source }) = &merged.metrics else { return Ok(None) };
    let reason = "expected the absolute path of a file that ends with .prom, in the directory of node-exporter's textfile collector";
    // `is_file_name` also rejects hidden files, which the collector ignores.
    let is_valid = |path: &&PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.ends_with(".prom") && is_file_name(name)
    };
    let path = absolute_path(path).filter(|path| is_valid(&path));
    path.map(Some).ok_or_else(|| invalid("metrics", source, reason))
}

fn validate_each<T>(
    list: &[String],
    validate: impl Fn(&str) -> Result<T, ConfigError>,
) -> Result<Vec<T>, ConfigError> {
    list.iter().map(|text| validate(text)).collect()
}

fn listen(merged: &Merged) -> Result<Option<Listen>, ConfigError> {
    let (mut sources, mut shells) = (BTreeMap::new(), BTreeSet::new());
    for (name, source) in &merged.push_sources {
        let key = format!("listen.sources.{}", shorten(name));
        if !is_file_name(name) {
            let reason = "a source's name is part of a URL: expected letters, digits and ._~+-";
            return Err(invalid("listen.sources", &source.source, reason));
        }
        let keys = key_ring(&key, source.value.keys.0.iter().map(|key| (key, &source.source)))?;
        if !keys.is_empty() {
            sources.insert(name.clone(), keys);
            if source.value.shell {
                shells.insert(name.clone());
            }
        }
    }
    let Some(address) = &merged.listen_address else { return Ok(None) };
    // The address is checked even if no source needs it yet: it would be this source that is broken, and
    // not a later one that adds the first source.
    let parsed = address.value.parse().map_err(|_| {
        invalid("listen.address", &address.source, "expected address:port, such as 0.0.0.0:4000")
    })?;
    let tls = tls(merged)?;
    Ok((!sources.is_empty()).then_some(Listen { address: parsed, tls, sources, shells }))
}

/// Returns whether to use TLS, which is the default.
fn tls(merged: &Merged) -> Result<Tls, ConfigError> {
    let Some(Sourced { value: tls, source }) = &merged.listen_tls else {
        return Ok(Tls::SelfSigned);
    };
    let reason = "expected the absolute path of a PEM file, or PEM: a certificate (-----BEGIN CERTIFICATE-----), and a private key without a password (-----BEGIN PRIVATE KEY-----)";
    tls.settings().map_err(|member| invalid(&format!("listen.tls.{member}"), source, reason))
}

fn data(merged: &Merged) -> Result<Option<Data>, ConfigError> {
    let Some(Sourced { value: data, source }) = &merged.data else { return Ok(None) };
    let data = Data::new(data).map_err(|(key, reason)| invalid(key, source, reason))?;
    Ok(Some(data))
}

fn host(merged: &Merged) -> Result<HostSettings, ConfigError> {
    let mut host = HostSettings::default();
    if let Some(Sourced { value: name, source }) = &merged.hostname {
        let reason = "expected a host name of at most 64 letters, digits, dashes and dots, such as \"web1\" or \"web1.example.org\", and not \"localhost\"";
        let name =
            host_settings::host_name(name).ok_or_else(|| invalid("hostname", source, reason))?;
        host.hostname = Some(name);
    }
    if let Some(Sourced { value: interfaces, source }) = &merged.interfaces {
        let of = |(member, reason): (String, String)| {
            invalid(&format!("interfaces{member}"), source, reason)
        };
        host.interfaces = host_settings::interfaces(interfaces).map_err(of)?;
    }
    if let Some(Sourced { value: servers, source }) = &merged.ntp {
        let of = |reason| invalid("ntp", source, reason);
        host.ntp = host_settings::time_servers(servers).map_err(of)?;
    }
    Ok(host)
}

/// Returns the sources of `sources` and `listen.sources` by name.
fn pattern_sources(merged: &Merged) -> Result<BTreeMap<String, PatternSource>, ConfigError> {
    let mut sources = BTreeMap::new();
    for (name, found) in &merged.sources {
        if sources.len() == SOURCES_MAX {
            let reason = format!("expected at most {SOURCES_MAX} sources");
            return Err(invalid("sources", &found.source, reason));
        }
        sources.insert(name.clone(), pattern_source(name, found)?);
    }
    for (name, Sourced { value, source }) in &merged.push_sources {
        let key = format!("listen.sources.{}", shorten(name));
        let keys = key_ring(&key, value.keys.0.iter().map(|key| (key, source)))?;
        if !keys.is_empty() {
            sources.entry(name.clone()).or_insert_with(PatternSource::default).push_keys = keys;
        }
    }
    Ok(sources)
}

fn pattern_source(
    name: &str,
    Sourced { value, source }: &Sourced<SourceFragment>,
) -> Result<PatternSource, ConfigError> {
    if !is_file_name(name) {
        let reason = "a source's name is part of a URL: expected letters, digits and ._~+-";
        return Err(invalid("sources", source, reason));
    }
    let key = |member: &str| format!("sources.{}.{member}", shorten(name));
    let keys = key_ring(&key("keys"), value.keys.0.iter().map(|key| (key, source)))?;
    let pull = validate_each(&value.pull.0, |text| {
        let reason = "expected https://host[:port]/path or http://host[:port]/path, the port from 1 to 65535, without credentials, query or fragment; or the absolute path of a file; or a list of these";
        base_url(text).ok_or_else(|| invalid(&key("pull"), source, reason))
    })?;
    if !pull.is_empty() && keys.is_empty() {
        let reason = "expected the keys that sign the Pattern of \"pull\"";
        return Err(invalid(&key("keys"), source, reason));
    }
    // The message omits the values of Commands, which may be secrets.
    if let Err(error) = pattern_of(&value.commands) {
        let reason = without_values(&error);
        return Err(invalid(&key("commands"), source, reason));
    }
    if value.vars.values().any(|value| !is_shallow(value, VARS_DEPTH_MAX)) {
        let reason = format!("expected values of at most {VARS_DEPTH_MAX} levels");
        return Err(invalid(&key("vars"), source, reason));
    }
    let interval = match &value.interval {
        None => PatternSource::INTERVAL,
        Some(interval) => {
            let reason = "expected a duration from 1min to 7d, such as \"1h\", or seconds";
            let found = interval.duration().filter(|time| PatternSource::INTERVALS.contains(time));
            found.ok_or_else(|| invalid(&key("interval"), source, reason))?
        }
    };
    Ok(PatternSource {
        push_keys: KeyRing::default(),
        keys,
        pull,
        commands: value.commands.clone(),
        interval,
        vars: value.vars.clone(),
        unhealthy: value.unhealthy,
    })
}

/// Describes an error in Commands by its place only.
fn without_values(error: &PatternError) -> String {
    match error {
        PatternError::Invalid { path, .. } => {
            let place = path.replacen("run", "commands", 1);
            format!("{} is not valid", shorten(&place))
        }
        other => other.to_string(),
    }
}

fn is_shallow(value: &Value, levels: usize) -> bool {
    let is_shallow = |value| levels > 0 && is_shallow(value, levels - 1);
    match value {
        Value::Array(list) => list.iter().all(is_shallow),
        Value::Object(map) => map.values().all(is_shallow),
        _ => true,
    }
}

fn key_ring<'a>(
    setting: &str,
    keys: impl Iterator<Item = (&'a String, &'a Source)>,
) -> Result<KeyRing, ConfigError> {
    let mut ring = KeyRing::default();
    for (key, source) in keys {
        let key = key.parse().map_err(|error| invalid(setting, source, error))?;
        ring.add(key).map_err(|error| invalid(setting, source, error))?;
    }
    Ok(ring)
}

fn invalid(key: &str, source: &Source, reason: impl std::fmt::Display) -> ConfigError {
    ConfigError::Value { key: key.to_owned(), from: source.clone(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests;
