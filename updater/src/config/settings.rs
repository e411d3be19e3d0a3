//! Configuration that makes sense.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use protocol::release::{is_file_name, origin};
use protocol::{KeyRing, Variant};

use super::complaint::shown;
use super::{ConfigError, Merged, Reboot, Source, Sourced};

/// Configuration that makes sense.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where releases are: an http(s) URL, or an absolute folder; without a slash at the end.
    pub cdn: Option<String>,
    /// The variant to follow.
    pub variant: Option<Variant>,
    /// Whose manifests are trusted.
    pub keys: KeyRing,
    /// Where a manifest may point besides the CDN.
    pub allowed_origins: Vec<String>,
    /// When to reboot.
    pub reboot: Reboot,
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
            cdn: merged.cdn.as_ref().map(cdn).transpose()?,
            variant: merged.variant.as_ref().map(variant).transpose()?,
            keys: ring("keys", merged.keys.iter().map(|key| (&key.value, &key.from)))?,
            allowed_origins: allowed_origins(merged)?,
            reboot: merged.reboot.as_ref().map_or(Reboot::Now, |reboot| reboot.value),
            listen: listen(merged)?,
        })
    }
}

fn cdn(cdn: &Sourced<String>) -> Result<String, ConfigError> {
    let bare = cdn.value.trim_end_matches('/');
    let path = bare.strip_prefix("file://").unwrap_or(bare);
    let is_url = origin(bare).is_some() && !bare.contains(['?', '#']);
    match is_url {
        true => Ok(bare.to_owned()),
        false if path.starts_with('/') => Ok(path.to_owned()),
        // The value is not shown: it may hold a password, and that may be why we are here.
        false => Err(value(
            "cdn",
            &cdn.from,
            "expected https://host/path or http://host/path without credentials, query or fragment, or an absolute folder",
        )),
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
            let why = "expected https://host[:port] with nothing after it";
            return Err(value("allowedOrigins", &origins.from, why));
        }
    }
    Ok(origins.value.clone())
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
mod tests {
    use super::super::Fragment;
    use super::*;
    use protocol::PrivateKey;

    fn settings(json: &str) -> Result<Settings, ConfigError> {
        let mut merged = Merged::default();
        merged.add(
            &Source::Default,
            Fragment::from_json(br#"{"listen": {"address": "0.0.0.0:4000"}}"#).unwrap(),
        );
        merged.add(&Source::Esp, Fragment::from_json(json.as_bytes()).unwrap());
        Settings::try_from(&merged)
    }

    #[test]
    fn a_cdn_is_a_url_or_a_folder() {
        let cdn = |text: &str| settings(&format!(r#"{{"cdn": "{text}"}}"#)).map(|s| s.cdn.unwrap());
        assert_eq!(cdn("https://x.example/os/").unwrap(), "https://x.example/os");
        assert_eq!(cdn("http://[::1]:8080").unwrap(), "http://[::1]:8080");
        assert_eq!(cdn("/srv/cdn/").unwrap(), "/srv/cdn");
        assert_eq!(cdn("file:///srv/cdn").unwrap(), "/srv/cdn");
        for bad in
            ["", "cdn", "ftp://x", "https://u:secret@x", "https://x/?token=secret", "file://x"]
        {
            let error = cdn(bad).unwrap_err().to_string();
            assert!(error.contains("\"cdn\" from ESP"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn nobody_may_push_unless_named_with_a_key() {
        assert!(settings("{}").unwrap().listen.is_none());
        let empty = r#"{"listen": {"sources": {"ci": {"keys": []}}}}"#;
        assert!(settings(empty).unwrap().listen.is_none());
        let key = PrivateKey::generate().public().to_string();
        let named = format!(r#"{{"listen": {{"sources": {{"ci": {{"keys": ["{key}"]}}}}}}}}"#);
        assert_eq!(settings(&named).unwrap().listen.unwrap().address.port(), 4000);
        let slash = named.replace("\"ci\"", "\"../ci\"");
        assert!(settings(&slash).is_err());
    }

    #[test]
    fn a_secret_key_in_the_wrong_place_is_not_shown() {
        let key = PrivateKey::generate().reveal();
        let error = settings(&format!(r#"{{"keys": ["{key}"]}}"#)).unwrap_err().to_string();
        assert!(!error.contains(key.split(':').nth(1).unwrap()), "{error}");
    }

    #[test]
    fn no_value_is_shown() {
        for json in [
            r#"{"variant": "SECRET"}"#,
            r#"{"allowedOrigins": ["SECRET"]}"#,
            r#"{"keys": ["ed25519private:SECRET"]}"#,
            r#"{"listen": {"sources": {"ci/SECRET": {"keys": []}}}}"#,
            r#"{"listen": {"sources": {"ci": {"keys": ["SECRET:x:y"]}}}}"#,
        ] {
            let error = settings(json).unwrap_err().to_string();
            assert!(!error.contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn values_that_make_no_sense_name_key_and_source() {
        for (json, key) in [
            (r#"{"variant": "../x"}"#, "variant"),
            (r#"{"allowedOrigins": ["https://x/path"]}"#, "allowedOrigins"),
            (r#"{"keys": ["x"]}"#, "keys"),
        ] {
            let error = settings(json).unwrap_err().to_string();
            assert!(error.contains(&format!("\"{key}\" from ESP")), "{error}");
        }
    }
}
