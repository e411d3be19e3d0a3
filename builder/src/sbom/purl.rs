//! Package URLs (purls), as the purl specification writes them.

/// Returns `pkg:<kind>/<namespace>/<name>@<version>?<qualifiers>`. The qualifiers have to be sorted by
/// their names.
pub(super) fn purl(
    kind: &str,
    namespace: Option<&str>,
    name: &str,
    version: &str,
    qualifiers: &[(&str, &str)],
) -> String {
    let namespace = namespace.map(|text| encode(text) + "/").unwrap_or_default();
    let qualifiers: Vec<String> =
        qualifiers.iter().map(|(key, value)| format!("{key}={}", encode(value))).collect();
    let qualifiers =
        if qualifiers.is_empty() { String::new() } else { format!("?{}", qualifiers.join("&")) };
    format!("pkg:{kind}/{namespace}{}@{}{qualifiers}", encode(name), encode(version))
}

/// Encodes all characters except letters, digits and `.-_~:`.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'.' | b'-' | b'_' | b'~' | b':' => char::from(b).to_string(),
            b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_plus_and_caret_but_neither_tilde_nor_colon() {
        let found =
            purl("deb", Some("debian"), "libstdc++6", "1:2~rc^1-1+b1", &[("arch", "amd64")]);
        assert_eq!(found, "pkg:deb/debian/libstdc%2B%2B6@1:2~rc%5E1-1%2Bb1?arch=amd64");
        assert_eq!(purl("cargo", None, "a_b", "1.0.0+x", &[]), "pkg:cargo/a_b@1.0.0%2Bx");
    }
}
