//! Suggests the name that was meant in place of an unknown one.

use similar::get_close_matches;

/// The least similarity of a suggestion, from 0 to 1: one of four letters may differ.
const SIMILARITY_MIN: f32 = 0.65;

/// Returns the known name that is most similar to another one, if one is.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    get_close_matches(name, known, 1, SIMILARITY_MIN).first().copied()
}

/// Returns the part of an error that suggests a known name, or nothing if none is similar.
pub(crate) fn did_you_mean(name: &str, known: &[&str]) -> String {
    nearest(name, known).map_or_else(String::new, |known| format!(" (did you mean {known:?}?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_similar_names_only() {
        let known = ["packages", "units", "files", "kernelArguments", "binaries"];
        for (name, expected) in [
            ("packges", Some("packages")),
            ("package", Some("packages")),
            ("unit", Some("units")),
            ("kernelarguments", Some("kernelArguments")),
            ("binary", Some("binaries")),
            ("services", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, &known), expected, "{name:?}");
        }
        assert_eq!(did_you_mean("fils", &known), " (did you mean \"files\"?)");
        assert_eq!(did_you_mean("xyz", &known), "");
    }
}
