//! The text forms of keys. Etcha's own is `<type>:<base64 DER>:<key id>`, where the id may be missing; PEM and
//! OpenSSH's forms have no id.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::kind::KeyKind;
use super::parsed::{Half, KeyError, Parsed, UNNAMED, damaged};
use super::{openssh, pem};

/// The maximum length of a key string. An RSA-2048 private key takes about 1.7 kB.
const TEXT_MAX: usize = 8 * 1024;
/// The maximum length of a key id in bytes.
const ID_MAX: usize = 64;

/// Reads a key in any of its text forms.
pub(super) fn parse(text: &str, half: Half) -> Result<Parsed, KeyError> {
    let text = text.trim();
    match text {
        "" => Err(half.unexpected("nothing")),
        _ if text.len() > TEXT_MAX => Err(half.unexpected("a text that is too long")),
        _ if pem::is_pem(text) => pem::parse(text, half),
        _ if openssh::is_public(text) => openssh::parse_public(text, half),
        _ if text.starts_with("argon2id:") => Err(half.unexpected(
            "a key that is encrypted with a password, which is not supported: decrypt it with Etcha, or use a key without a password",
        )),
        _ if text.starts_with(['/', '~', '.']) => {
            Err(half.unexpected("a text that looks like a file path"))
        }
        _ if !text.contains(':') => Err(half.unexpected("a text without a colon")),
        _ => parse_etcha(text, half),
    }
}

/// Splits `<kind><half>:<base64>:<id>` and decodes the base64.
fn parse_etcha(text: &str, half: Half) -> Result<Parsed, KeyError> {
    let fields: Vec<&str> = text.splitn(4, ':').collect();
    let (name, der, id) = match fields[..] {
        [name, der] => (name, der, ""),
        [name, der, id] => (name, der, id.trim()),
        _ => return Err(half.unexpected("a different number of parts")),
    };
    let kind = name.strip_suffix(half.name()).and_then(KeyKind::from_name).ok_or_else(|| {
        // A public key in place of a private one, or the reverse, is the usual mistake. Any other text may
        // be a secret and is not shown.
        match name.strip_suffix("private").or(name.strip_suffix("public")) {
            Some(kind) if KeyKind::from_name(kind).is_some() => half.unexpected(name),
            _ => half.unexpected("an unknown type"),
        }
    })?;
    if id.len() > ID_MAX || id.chars().any(char::is_control) {
        return Err(half.unexpected(
            "an invalid key id (expected at most 64 bytes without line ends or other control characters)",
        ));
    }
    let id = (!id.is_empty()).then(|| id.to_owned());
    let shown = id.as_deref().unwrap_or(UNNAMED);
    let der = STANDARD.decode(der).map_err(|_| damaged(shown, "it is not standard base64"))?;
    Ok(Parsed { kind, der, id })
}

/// Returns the keys in a text, such as a file: each line that is not blank and does not start with `#`, and each
/// PEM block with its lines.
pub fn split_keys(text: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines().map(str::trim) {
        match &mut block {
            Some(open) => {
                *open = format!("{open}\n{line}");
                if line.starts_with(pem::END) {
                    keys.extend(block.take());
                }
            }
            None if pem::is_pem(line) => block = Some(line.to_owned()),
            None if line.is_empty() || line.starts_with('#') => {}
            None => keys.push(line.to_owned()),
        }
    }
    // A block without an end is an error of the key.
    keys.extend(block);
    keys
}
