//! The user data of a machine: what is a configuration in it, and what is meant for another program.
//!
//! Clouds and hypervisors hand one text to a machine, and most of these texts are for cloud-init,
//! Ignition or a shell. Only a text that says that it is a configuration is one:
//!
//! - a text whose first line is `#etchaos`, followed by JSON;
//! - a JSON object that has a key of a configuration;
//! - after another first line that begins with `#`, a JSON object that is a valid configuration;
//! - a part of a MIME multipart message that has the type `text/etchaos`, or begins with `#etchaos`;
//! - any of these in base64, or compressed with gzip.

mod mime;

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::fragment::Fragment;
use super::members::{KEYS, etcha_key, is_ours, names};
use super::text::to_utf8;

/// The maximum size of user data, and of what it contains after decompression. The largest that a
/// platform allows is 256 KiB (GCP); a `cidata` volume has no limit.
pub(super) const USER_DATA_MAX: usize = 1024 * 1024;
/// The first line of a configuration.
const HEADER: &[u8] = b"#etchaos";
/// The maximum number of encodings around a configuration: gzip in base64 in base64. Azure adds one, and
/// tools such as Terraform two.
const LAYERS_MAX: usize = 3;
/// How a configuration says that it is one, for messages.
const EXPECTED: &str = "a configuration begins with the line #etchaos, or is a JSON object with a key of a configuration";

/// What user data contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum UserData {
    /// The JSON of a configuration, possibly with errors.
    Config(Vec<u8>),
    /// Something that says that it is a configuration and cannot be read, and the reason.
    Broken(String),
    /// Something for another program, and the reason for that conclusion. The reason shows no part of
    /// the data, which may have secrets of other programs.
    Foreign(String),
}

/// Determines what user data contains. `data` may be longer than [`USER_DATA_MAX`] by one byte, which
/// says that there is more.
pub(super) fn classify(data: &[u8]) -> UserData {
    unpack(data, LAYERS_MAX)
}

fn unpack(data: &[u8], layers: usize) -> UserData {
    if data.starts_with(&[0x1f, 0x8b]) {
        return gzip(data, layers);
    }
    let Ok(text) = to_utf8(data) else {
        return foreign("it is UTF-16 that is not well-formed");
    };
    let text = text.trim_ascii();
    if let Some(config) = after_header(text) {
        return config_of(config, data.len());
    }
    if data.len() > USER_DATA_MAX {
        return foreign(&format!("it is larger than {USER_DATA_MAX} bytes"));
    }
    match text {
        [] => foreign("it is empty"),
        [b'#', ..] => comment(text),
        [b'{', ..] => object(text),
        _ => message(text)
            .or_else(|| base64(text, layers))
            .unwrap_or_else(|| foreign("it is neither JSON nor a text with the line #etchaos")),
    }
}

fn foreign(reason: &str) -> UserData {
    UserData::Foreign(format!("{reason}; {EXPECTED}"))
}

/// Returns what follows the line `#etchaos`, if the text begins with it.
fn after_header(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    (text[..end].trim_ascii() == HEADER).then(|| text[end..].trim_ascii())
}

fn config_of(text: &[u8], size: usize) -> UserData {
    match size > USER_DATA_MAX {
        true => UserData::Broken(format!("it is larger than the limit of {USER_DATA_MAX} bytes")),
        false => UserData::Config(text.to_vec()),
    }
}

/// Determines what a text with another first line contains. Some clouds accept only texts that begin with
/// `#cloud-config`, and JSON is valid there too. So it is a configuration only if nothing in it is for
/// another program.
fn comment(text: &[u8]) -> UserData {
    let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    let rest = text[end..].trim_ascii();
    let is_config = is_ours(&names(rest)) && Fragment::from_json(rest).is_ok();
    match is_config {
        true => UserData::Config(rest.to_vec()),
        false if text.starts_with(b"#cloud-config") => foreign("it is for cloud-init"),
        false if text.starts_with(b"#!") => foreign("it is a script"),
        false => foreign("it begins with # and is not followed by a configuration"),
    }
}

fn object(text: &[u8]) -> UserData {
    let names = names(text);
    if is_ours(&names) {
        return UserData::Config(text.to_vec());
    }
    if let Some(key) = etcha_key(&names) {
        return foreign(&format!("it is a configuration of Etcha itself, because it has `{key}`"));
    }
    match names.iter().any(|name| name.text == "ignition") {
        true => foreign("it is for Ignition"),
        false => foreign(&format!("it is an object with none of the keys {}", KEYS.join(", "))),
    }
}

/// Finds the configuration in a MIME message. Returns `None` if the text is no such message.
fn message(text: &[u8]) -> Option<UserData> {
    let parts = match mime::parts(text)? {
        Ok(parts) => parts,
        Err(reason) => return Some(foreign(&reason)),
    };
    let count = parts.len();
    let mut ours = parts.into_iter().filter_map(part);
    Some(match (ours.next(), ours.next()) {
        (None, _) => foreign(&format!(
            "it is a MIME message, and none of its {count} parts has the type {} or begins with #etchaos",
            mime::TYPE
        )),
        (Some(first), None) => first,
        (Some(_), Some(_)) => UserData::Broken(
            "it is a MIME message with several configurations, expected one".to_owned(),
        ),
    })
}

/// Returns the configuration in a part of a message, if it has one.
fn part(part: mime::Part) -> Option<UserData> {
    let is_typed = part.content_type == mime::TYPE;
    let body = part.body.as_deref().unwrap_or_default();
    let Ok(text) = to_utf8(body) else {
        return is_typed.then(|| UserData::Broken("it is UTF-16 that is not well-formed".into()));
    };
    let text = text.trim_ascii();
    let config = after_header(text).or_else(|| is_typed.then_some(text))?;
    Some(match part.body {
        Ok(_) => UserData::Config(config.to_vec()),
        Err(reason) => UserData::Broken(reason),
    })
}

fn gzip(data: &[u8], layers: usize) -> UserData {
    let Some(layers) = layers.checked_sub(1) else {
        return foreign("it is compressed more than once");
    };
    let mut inner = Vec::new();
    // The limit ends the decompression of a small file that becomes a very large one.
    let limit = USER_DATA_MAX as u64 + 1;
    let read = flate2::read::MultiGzDecoder::new(data).take(limit).read_to_end(&mut inner);
    match (read, unpack(&inner, layers)) {
        (Ok(_), inner) => inner,
        (Err(_), UserData::Config(_) | UserData::Broken(_)) => {
            UserData::Broken("it is gzip that is damaged".to_owned())
        }
        (Err(_), UserData::Foreign(_)) => foreign("it is gzip that is damaged"),
    }
}

/// Decodes base64. Returns `None` if the text is not base64.
fn base64(text: &[u8], layers: usize) -> Option<UserData> {
    let layers = layers.checked_sub(1)?;
    let bytes: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let inner = STANDARD.decode(bytes).ok()?;
    Some(unpack(&inner, layers))
}

#[cfg(test)]
mod tests;
