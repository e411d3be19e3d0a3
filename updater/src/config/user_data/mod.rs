//! The user data of a machine: what is a configuration in it, and what is meant for another program.
//!
//! Clouds and hypervisors hand one text to a machine, and most of these texts are for cloud-init,
//! Ignition or a shell. Only a text that says that it is a configuration is one:
//!
//! - a text that begins with the line `#etchaos`, possibly after other lines with `#`, followed by JSON;
//! - a JSON object of whose keys more than half are those of a configuration, and not of cloud-init too;
//! - after another first line that begins with `#`, a JSON object with only keys of a configuration;
//! - a part of a MIME message that has the type `text/etchaos`, or begins with `#etchaos`;
//! - any of these in base64, or compressed with gzip.

mod mime;

use std::io::Read;

use super::members::{Name, are_all_ours, etcha_key, is_ours, names, other_program, own_keys};
use super::text::{decode_base64, to_utf8};

/// The maximum size of user data in bytes, which is also the limit on all its parts together after
/// decompression. No platform accepts more than 256 KiB (GCP), but a `cidata` volume has no limit.
pub(super) const USER_DATA_MAX: usize = 1024 * 1024;
/// The first line of a configuration.
const HEADER: &[u8] = b"#etchaos";
/// The maximum number of encodings around a configuration: gzip in base64 in base64. Azure adds one, and
/// tools such as Terraform two.
const LAYERS_MAX: usize = 3;
/// How a configuration says that it is one, for messages.
const EXPECTED: &str = "a configuration begins with the line #etchaos, or is a JSON object with keys of a configuration";
/// The first bytes of gzip (RFC 1952 section 2.3.1).
const GZIP: &[u8] = &[0x1f, 0x8b];

/// What user data contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserData {
    /// The JSON of a configuration, possibly with errors.
    Config(Vec<u8>),
    /// Something that says that it is a configuration and cannot be read.
    Broken {
        /// Why it cannot be read. The reason shows no part of the data.
        reason: String,
        /// As much of the decoded text as there is.
        text: Vec<u8>,
    },
    /// Something for another program, and the reason for that conclusion. The reason shows no part of
    /// the data, which may have secrets of other programs.
    Foreign(String),
}

impl UserData {
    /// Determines what user data contains. `data` may be longer than [`USER_DATA_MAX`] by one byte, which
    /// says that there is more.
    pub fn classify(data: &[u8]) -> Self {
        unpack(data, LAYERS_MAX)
    }

    /// Returns the text of a configuration, or nothing.
    fn into_text(self) -> Vec<u8> {
        match self {
            Self::Config(text) | Self::Broken { text, .. } => text,
            Self::Foreign(_) => Vec::new(),
        }
    }
}

fn unpack(data: &[u8], layers: usize) -> UserData {
    if data.starts_with(GZIP) {
        return gzip(data, layers);
    }
    if data.len() > USER_DATA_MAX {
        return too_large(data, layers);
    }
    let text = match to_utf8(data) {
        Ok(text) => text,
        Err(reason) => return foreign(&reason),
    };
    let text = text.trim_ascii();
    match text {
        [] => foreign("it is empty"),
        [b'#', ..] => comment(text),
        _ => {
            object(text).or_else(|| message(text)).or_else(|| base64(text, layers)).unwrap_or_else(
                || foreign("it is neither a JSON object nor a text with the line #etchaos"),
            )
        }
    }
}

fn foreign(reason: &str) -> UserData {
    UserData::Foreign(format!("{reason}; {EXPECTED}"))
}

fn broken(reason: &str, text: &[u8]) -> UserData {
    UserData::Broken { reason: reason.to_owned(), text: text.to_vec() }
}

/// Determines what data contains of which only the start is used.
fn too_large(data: &[u8], layers: usize) -> UserData {
    let reason = format!("it is larger than the limit of {USER_DATA_MAX} bytes");
    match unpack(&data[..USER_DATA_MAX], layers) {
        UserData::Config(text) | UserData::Broken { text, .. } => UserData::Broken { reason, text },
        UserData::Foreign(_) => foreign(&reason),
    }
}

/// Splits off the first line.
fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    (text[..end].trim_ascii(), text[end..].trim_ascii())
}

/// Returns what follows the line `#etchaos`, if the text begins with it.
fn after_header(text: &[u8]) -> Option<&[u8]> {
    let (first, rest) = split_line(text);
    (first == HEADER).then_some(rest)
}

/// Determines what a text with the first line `#…` contains. Some clouds accept only texts that begin with
/// `#cloud-config`, and JSON is valid there too. So it is a configuration if nothing in it is for another
/// program, even if it has errors.
fn comment(text: &[u8]) -> UserData {
    if text.starts_with(b"#!") {
        return foreign("it is a script");
    }
    let mut rest = text;
    while rest.starts_with(b"#") {
        let (line, after) = split_line(rest);
        if line == HEADER {
            return UserData::Config(after.to_vec());
        }
        rest = after;
    }
    if rest.starts_with(b"{") && are_all_ours(&names(rest)) {
        return UserData::Config(rest.to_vec());
    }
    match text.starts_with(b"#cloud-config") {
        true => foreign("it is for cloud-init"),
        false => foreign("it begins with # and is not followed by a configuration"),
    }
}

/// Determines what an object in JSON or Jsonnet contains. Returns `None` if the text is no object.
fn object(text: &[u8]) -> Option<UserData> {
    let names = names(text);
    if names.is_empty() && !text.starts_with(b"{") {
        return None;
    }
    if is_ours(&names) {
        return Some(UserData::Config(text.to_vec()));
    }
    let keys = own_keys();
    Some(foreign(&match (other_program(&names), etcha_key(&names)) {
        (Some(program), _) => format!("it is for {program}"),
        (None, Some(key)) => {
            format!("it is a configuration of Etcha itself, because it has `{key}`")
        }
        _ if names.iter().any(Name::is_own_key) => {
            format!("it is an object, but at most half of its keys are among {keys}")
        }
        _ => format!("it is an object with none of the keys {keys}"),
    }))
}

/// Finds the configuration in a MIME message. Returns `None` if the text is no such message.
fn message(text: &[u8]) -> Option<UserData> {
    let parts = match mime::parts(text)? {
        Ok(parts) => parts,
        Err(reason) => return Some(foreign(&reason)),
    };
    let count = parts.len();
    let mut ours = Vec::new();
    // The parts share the limit: hundreds of them may be a thousand times as large as the message.
    let mut rest = Some(USER_DATA_MAX);
    for part in parts {
        let Some(left) = rest else { break };
        let part = decompressed(part, left);
        rest = left.checked_sub(part.body.len());
        ours.extend(config_in(&part));
    }
    if rest.is_some() && ours.len() == 1 {
        return ours.pop();
    }
    let reason = match rest {
        None => format!(
            "it is a MIME message whose parts are larger than the limit of {USER_DATA_MAX} bytes"
        ),
        Some(_) if ours.is_empty() => format!(
            "it is a MIME message, and none of its {count} parts has the type {} or begins with #etchaos",
            mime::TYPE
        ),
        Some(_) => "it is a MIME message with several configurations, expected one".to_owned(),
    };
    Some(match ours.is_empty() {
        true => foreign(&reason),
        false => {
            let text = ours.into_iter().flat_map(UserData::into_text).collect();
            UserData::Broken { reason, text }
        }
    })
}

/// Decompresses a part if it is gzip, up to one byte more than `limit`.
fn decompressed(part: mime::Part, limit: usize) -> mime::Part {
    if !part.body.starts_with(GZIP) {
        return part;
    }
    let (body, problem) = decompress(&part.body, limit);
    mime::Part { body, problem, ..part }
}

/// Returns the configuration in a part of a message, if it has one.
fn config_in(part: &mime::Part) -> Option<UserData> {
    let is_typed = part.content_type == mime::TYPE;
    let text = match to_utf8(&part.body) {
        Ok(text) => text,
        Err(reason) => return is_typed.then(|| broken(&reason, b"")),
    };
    let text = text.trim_ascii();
    let config = after_header(text).or_else(|| is_typed.then_some(text))?;
    Some(match part.problem {
        None => UserData::Config(config.to_vec()),
        Some(reason) => broken(reason, config),
    })
}

fn gzip(data: &[u8], layers: usize) -> UserData {
    let Some(layers) = layers.checked_sub(1) else {
        return foreign("it is compressed more than once");
    };
    let (inner, problem) = decompress(data, USER_DATA_MAX);
    match (problem, unpack(&inner, layers)) {
        (None, inner) => inner,
        (Some(reason), UserData::Foreign(_)) => foreign(reason),
        (Some(reason), ours) => broken(reason, &ours.into_text()),
    }
}

/// Decompresses gzip, up to one byte more than `limit`: a small file can become a very large one.
/// Returns what could be decompressed, and the problem if that is not all.
fn decompress(data: &[u8], limit: usize) -> (Vec<u8>, Option<&'static str>) {
    let mut inner = Vec::new();
    let limit = limit as u64 + 1;
    let read = flate2::read::MultiGzDecoder::new(data).take(limit).read_to_end(&mut inner);
    (inner, read.err().map(|_| "it is gzip that is damaged"))
}

/// Decodes base64. Returns `None` if the text is not base64 of a text or of gzip: many ordinary words are
/// valid base64.
fn base64(text: &[u8], layers: usize) -> Option<UserData> {
    let layers = layers.checked_sub(1)?;
    let inner = decode_base64(text)?;
    let is_text = |inner: &[u8]| to_utf8(inner).is_ok_and(|text| str::from_utf8(&text).is_ok());
    (inner.starts_with(GZIP) || is_text(&inner)).then(|| unpack(&inner, layers))
}

#[cfg(test)]
mod tests;
