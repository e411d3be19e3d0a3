//! Configuration that makes sense.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use protocol::release::is_file_name;
use protocol::url::origin;
use protocol::{KeyRing, Variant};

use super::complaint::shown;
use super::{
    ConfigError, Health, Merged, Network, Reboot, RebootFragment, Source, Sourced, Window,
};

/// A download that is slower takes days, and is stalled to all who watch it.
const RATE_MIN: u64 = 1024;
/// Longest name of a unit (systemd.unit(5)).
const UNIT_MAX: usize = 255;
/// Longest check. What is longer belongs into a file.
const CHECK_MAX: usize = 4096;

/// Configuration that makes sense.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where releases are, mirrors in the order in which they are asked: http(s) URLs, or absolute
    /// directories; without a slash at the end. None: it is not configured.
    pub cdn: Vec<String>,
    /// The variant to follow.
    pub variant: Option<Variant>,
    /// Whose manifests are trusted.
    pub keys: KeyRing,
    /// Where a manifest may point besides the CDN.
    pub allowed_origins: Vec<String>,
    /// How the CDN is reached.
    pub network: Network,
    /// What has to hold before a new release is confirmed.
    pub health: Health,
    /// When to reboot.
    pub reboot: Reboot,
    /// A file for node-exporter's textfile collector.
    pub metrics: Option<PathBuf>,
    /// Answering pushed Patterns; `None` if nobody may push.
    pub listen: Option<Listen>,
}

/// Answering pushed Patterns.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Where.
    pub address: SocketAddr,
    /// The keys of those who may push, by the name in the URL.
    pub sources: BTreeMap<String, KeyRing>,
}

impl TryFrom<&Merged> for Settings {
    type Error = ConfigError;

    fn try_from(merged: &Merged) -> Result<Self, ConfigError> {
        Ok(Self {
            cdn: cdn(merged)?,
            variant: merged.variant.as_ref().map(variant).transpose()?,
            keys: ring("keys", merged.keys.iter().map(|key| (&key.value, &key.from)))?,
            allowed_origins: allowed_origins(merged)?,
            network: network(merged)?,
            health: health(merged)?,
            reboot: reboot(merged)?,
            metrics: metrics(merged)?,
            listen: listen(merged)?,
        })
    }
}

fn cdn(merged: &Merged) -> Result<Vec<String>, ConfigError> {
    let Some(cdn) = &merged.cdn else { return Ok(Vec::new()) };
    // The value is not shown: it may hold a password, and that may be why we are here.
    let why = "expected https://host/path or http://host/path, or with a port from 1 to 65535 after the host, without credentials, query or fragment; or an absolute directory; or a list of these";
    each(&cdn.value.0, |one| base(one).ok_or_else(|| value("cdn", &cdn.from, why)))
}

/// An http(s) URL or an absolute directory, without a slash at the end.
fn base(text: &str) -> Option<String> {
    let bare = text.trim_end_matches('/');
    let path = bare.strip_prefix("file://").unwrap_or(bare);
    let is_url = origin(bare).is_some() && !bare.contains(['?', '#']);
    match is_url {
        true => Some(bare.to_owned()),
        false if path.starts_with('/') => Some(path.to_owned()),
        false => None,
    }
}

fn variant(variant: &Sourced<String>) -> Result<Variant, ConfigError> {
    // Neither this value is shown: nobody knows what stands there by mistake.
    let why = "expected 1 to 16 lower-case letters and digits, such as \"deb\"";
    variant.value.parse().map_err(|_| value("variant", &variant.from, why))
}

fn allowed_origins(merged: &Merged) -> Result<Vec<String>, ConfigError> {
    let Some(origins) = &merged.allowed_origins else { return Ok(Vec::new()) };
    for one in &origins.value {
        if origin(one) != Some(one) {
            let why =
                "expected https://host[:port], the port from 1 to 65535, with nothing after it";
            return Err(value("allowedOrigins", &origins.from, why));
        }
    }
    Ok(origins.value.clone())
}

fn network(merged: &Merged) -> Result<Network, ConfigError> {
    let mut network = Network::default();
    if let Some(Sourced { value: proxy, from }) = &merged.proxy {
        let why = "expected http://[user:password@]host:port, the port from 1 to 65535, with /, @, : and # in user and password percent-encoded";
        network.proxy = Some(proxy_url(proxy).ok_or_else(|| value("proxy", from, why))?);
    }
    if let Some(Sourced { value: hosts, from }) = &merged.no_proxy {
        let why = "expected a list of host names, .suffixes, or *";
        let host = |host: &str| is_host_pattern(host).then(|| host.to_owned());
        network.no_proxy = each(hosts, |one| host(one).ok_or_else(|| value("noProxy", from, why)))?;
    }
    if let Some(Sourced { value: files, from }) = &merged.ca {
        let why = "expected a list of absolute paths of PEM files";
        network.authorities =
            each(files, |one| absolute(one).ok_or_else(|| value("ca", from, why)))?;
    }
    if let Some(Sourced { value: rate, from }) = &merged.rate_limit {
        let why = "expected bytes per second, at least 1K: a number, or one with K, M or G, such as \"2M\"";
        let limit = rate.bytes().filter(|limit| limit.get() >= RATE_MIN);
        network.rate_limit = Some(limit.ok_or_else(|| value("rateLimit", from, why))?);
    }
    Ok(network)
}

fn proxy_url(url: &str) -> Option<String> {
    let bare = url.strip_suffix('/').unwrap_or(url);
    let rest = bare.strip_prefix("http://")?;
    let (credentials, host) = rest.rsplit_once('@').unwrap_or(("", rest));
    let is_plain = |b: u8| b.is_ascii_graphic() && !b"/@#?\\\"<>^`{|}".contains(&b);
    let place = format!("http://{host}");
    let has_port = host.rsplit(']').next().is_some_and(|after| after.contains(':'));
    let is_good = credentials.bytes().all(is_plain)
        && credentials.matches(':').count() <= 1
        && origin(&place) == Some(&place)
        && has_port
        && !host.starts_with(':');
    is_good.then(|| bare.to_owned())
}

fn is_host_pattern(host: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
    host == "*" || (!host.is_empty() && host.len() <= 253 && host.bytes().all(plain))
}

fn absolute(path: &str) -> Option<PathBuf> {
    let is_good = path.starts_with('/') && !path.contains('\0') && !path.ends_with('/');
    is_good.then(|| PathBuf::from(path))
}

fn health(merged: &Merged) -> Result<Health, ConfigError> {
    let mut health = Health::default();
    if let Some(Sourced { value: units, from }) = &merged.health_units {
        let why = "expected a list of units with their type, such as \"docker.service\"";
        let unit = |name: &str| is_unit(name).then(|| name.to_owned());
        health.units =
            each(units, |one| unit(one).ok_or_else(|| value("health.units", from, why)))?;
    }
    if let Some(Sourced { value: checks, from }) = &merged.health_checks {
        let why = "expected a list of shell commands of at most 4096 bytes";
        let is_good = |check: &str| {
            !check.trim().is_empty() && check.len() <= CHECK_MAX && !check.contains('\0')
        };
        let check = |check: &str| is_good(check).then(|| check.to_owned());
        health.checks =
            each(checks, |one| check(one).ok_or_else(|| value("health.checks", from, why)))?;
    }
    if let Some(Sourced { value: deadline, from }) = &merged.health_deadline {
        let why = "expected a span of 1min to 24h, such as \"15min\", or seconds";
        let span = deadline.span().filter(|span| Health::DEADLINES.contains(span));
        health.deadline = span.ok_or_else(|| value("health.deadline", from, why))?;
    }
    Ok(health)
}

/// The name of a unit that can be active, by systemd.unit(5).
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
        // An argument that begins with a dash would be an option of systemctl. A template is not active,
        // its instances are.
        && !name.starts_with(['-', '@'])
        && !stem.ends_with('@')
        && name.bytes().all(plain)
}

fn reboot(merged: &Merged) -> Result<Reboot, ConfigError> {
    let Some(Sourced { value: reboot, from }) = &merged.reboot else {
        return Ok(Reboot::default());
    };
    Ok(match reboot {
        RebootFragment::Now => Reboot::Now,
        RebootFragment::Idle => Reboot::Idle,
        RebootFragment::Never => Reboot::Never,
        RebootFragment::Window(window) => {
            Reboot::Window(Window::new(window).map_err(|why| value("reboot", from, why))?)
        }
    })
}

fn metrics(merged: &Merged) -> Result<Option<PathBuf>, ConfigError> {
    let Some(Sourced { value: path, from }) = &merged.metrics else { return Ok(None) };
    let why = "expected the absolute path of a file that ends with .prom, in the directory of node-exporter's textfile collector";
    // The name's first letter: the collector's pattern leaves out hidden files.
    let is_good = |path: &&PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.ends_with(".prom") && is_file_name(name)
    };
    let path = absolute(path).filter(|path| is_good(&path));
    path.map(Some).ok_or_else(|| value("metrics", from, why))
}

fn each<T>(
    list: &[String],
    one: impl Fn(&str) -> Result<T, ConfigError>,
) -> Result<Vec<T>, ConfigError> {
    list.iter().map(|text| one(text)).collect()
}

fn listen(merged: &Merged) -> Result<Option<Listen>, ConfigError> {
    let mut sources = BTreeMap::new();
    for (name, source) in &merged.sources {
        let key = format!("listen.sources.{}", shown(name));
        if !is_file_name(name) {
            let why = "a source's name is part of a URL: expected letters, digits and ._~+-";
            return Err(value("listen.sources", &source.from, why));
        }
        let keys = ring(&key, source.value.keys.iter().map(|key| (key, &source.from)))?;
        if !keys.is_empty() {
            sources.insert(name.clone(), keys);
        }
    }
    let Some(address) = merged.address.as_ref().filter(|_| !sources.is_empty()) else {
        return Ok(None);
    };
    let parsed = address.value.parse().map_err(|_| {
        value("listen.address", &address.from, "expected address:port, such as 0.0.0.0:4000")
    })?;
    Ok(Some(Listen { address: parsed, sources }))
}

fn ring<'a>(
    name: &str,
    keys: impl Iterator<Item = (&'a String, &'a Source)>,
) -> Result<KeyRing, ConfigError> {
    let mut ring = KeyRing::default();
    for (key, from) in keys {
        let key = key.parse().map_err(|error| value(name, from, error))?;
        ring.add(key).map_err(|error| value(name, from, error))?;
    }
    Ok(ring)
}

fn value(key: &str, from: &Source, why: impl std::fmt::Display) -> ConfigError {
    ConfigError::Value { key: key.to_owned(), from: from.clone(), why: why.to_string() }
}

#[cfg(test)]
mod tests;
