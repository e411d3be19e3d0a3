//! The files of a token, by normalized paths.

use std::collections::BTreeMap;

use protocol::pattern::PatternFiles;

/// The files of a token.
pub(super) struct Files<'a> {
    entrypoint: &'a str,
    by_path: BTreeMap<String, &'a str>,
}

/// A file of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File<'a> {
    /// The normalized path, which begins with a slash.
    pub path: String,
    pub text: &'a str,
}

impl<'a> Files<'a> {
    /// Creates an instance.
    ///
    /// # Errors
    /// Fails if two names mean the same path, such as `a` and `/a`: an import could mean either.
    pub(super) fn new(pattern: &'a PatternFiles) -> Result<Self, String> {
        let mut by_path = BTreeMap::new();
        for (name, text) in &pattern.files {
            let path = resolve("/", name);
            if by_path.insert(path.clone(), text.as_str()).is_some() {
                return Err(format!("two of its files have the path {path:?}"));
            }
        }
        Ok(Self { entrypoint: &pattern.entrypoint, by_path })
    }

    /// Returns the main file.
    ///
    /// # Errors
    /// Fails if there is no such file.
    pub(super) fn main(&self) -> Result<File<'a>, String> {
        let path = resolve("/", self.entrypoint);
        self.get(&path).ok_or_else(|| {
            let entrypoint = cut(self.entrypoint);
            format!("the token has no file {entrypoint:?}, which is its entrypoint")
        })
    }

    /// Returns the file that an import in the file `from` names, relative to that file. If there is none, the first
    /// directories of the path are left out, as in Etcha: the signer has removed those that all files share.
    ///
    /// # Errors
    /// Fails if there is no such file.
    pub(super) fn import(&self, from: &str, name: &str) -> Result<File<'a>, String> {
        let directory = from.rsplit_once('/').map_or("/", |(directory, _)| directory);
        let path = resolve(directory, name);
        let found = path.match_indices('/').find_map(|(slash, _)| self.get(&path[slash..]));
        found.ok_or_else(|| {
            format!("the token has no file {:?}; imports find only files of the token", cut(name))
        })
    }

    fn get(&self, path: &str) -> Option<File<'a>> {
        let text = self.by_path.get(path)?;
        Some(File { path: path.to_owned(), text })
    }
}

/// Returns a normalized path, which begins with a slash. `..` does not leave the root, as in a file system.
fn resolve(directory: &str, name: &str) -> String {
    let start = if name.starts_with('/') { "" } else { directory };
    let mut parts: Vec<&str> = Vec::new();
    for part in start.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn cut(name: &str) -> String {
    name.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(entrypoint: &str, names: &[&str]) -> PatternFiles {
        let files = names.iter().map(|name| ((*name).to_owned(), format!("text of {name}")));
        PatternFiles { entrypoint: entrypoint.into(), files: files.collect() }
    }

    #[test]
    fn finds_imports_relative_to_the_file_or_by_the_end_of_their_path() {
        let names =
            ["/patterns/main.jsonnet", "/patterns/x.libsonnet", "/lib/etcha/file.libsonnet", "y"];
        let pattern = pattern("patterns/main.jsonnet", &names);
        let files = Files::new(&pattern).unwrap();
        let main = files.main().unwrap();
        assert_eq!(main.path, "/patterns/main.jsonnet");
        for (name, expected) in [
            ("x.libsonnet", Some("/patterns/x.libsonnet")),
            ("./x.libsonnet", Some("/patterns/x.libsonnet")),
            ("../lib/etcha/file.libsonnet", Some("/lib/etcha/file.libsonnet")),
            ("lib/etcha/file.libsonnet", Some("/lib/etcha/file.libsonnet")),
            ("/home/me/lib/etcha/file.libsonnet", Some("/lib/etcha/file.libsonnet")),
            ("/home/me/patterns/x.libsonnet", Some("/patterns/x.libsonnet")),
            ("/lib/../y", Some("/y")),
            ("../../../../y", Some("/y")),
            ("main.jsonnet", Some("/patterns/main.jsonnet")),
            ("lib", None),
            ("file.libsonnet", None),
            ("/etc/passwd", None),
            ("../../../etc/passwd", None),
            ("", None),
        ] {
            let found = files.import(&main.path, name).map(|file| file.path);
            assert_eq!(found.as_deref().ok(), expected, "{name}");
        }
    }

    #[test]
    fn rejects_a_missing_main_file_and_ambiguous_names() {
        let error = |pattern: &PatternFiles| {
            Files::new(pattern).and_then(|files| files.main().map(|_| ())).unwrap_err()
        };
        assert!(error(&pattern("main", &["other"])).contains("entrypoint"));
        assert!(error(&pattern("a", &["a", "/a"])).contains("two of its files"));
        assert!(error(&pattern("a", &["b/../a", "a"])).contains("two of its files"));
    }

    proptest! {
        #[test]
        fn never_finds_a_file_that_the_token_does_not_have(
            names in proptest::collection::vec("[a./]{0,8}", 1..6),
            from in "/[ab/]{0,6}",
            import in "[ab./]{0,12}",
        ) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let pattern = pattern(names[0], &names);
            let Ok(files) = Files::new(&pattern) else { return Ok(()) };
            prop_assert!(files.main().is_ok());
            if let Ok(file) = files.import(&from, &import) {
                prop_assert!(pattern.files.values().any(|text| text == file.text));
                prop_assert!(!file.path.contains("//") && !file.path.contains("/./"));
                prop_assert!(file.path.split('/').all(|part| part != ".."));
            }
        }
    }
}
