//! Compares the pages at the root of the repository with the repository: the paths and the commands of
//! the builder that they name exist.

use std::fs;
use std::path::{Path, PathBuf};

use builder::cli::Cli;
use clap::Parser;

const PAGES: [&str; 4] = ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "SECURITY.md"];
/// The beginning of a path that a build or a host creates.
const CREATED: [&str; 2] = ["out/", "etchaos/"];
/// The extensions of files that only the repository has.
const EXTENSIONS: [&str; 5] = ["rs", "md", "toml", "jsonnet", "libsonnet"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Splits a page into its prose and the content of its code blocks.
fn prose_and_code(page: &str) -> (String, String) {
    let text = fs::read_to_string(repository().join(page)).unwrap();
    let (mut prose, mut code, mut in_code) = (String::new(), String::new(), false);
    for line in text.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
            continue;
        }
        let part = if in_code { &mut code } else { &mut prose };
        part.push_str(line);
        part.push('\n');
    }
    assert!(!in_code, "{page} has a code block without an end");
    (prose, code)
}

/// Returns whether a text in backticks is the path of a file or directory of the repository.
fn is_path(text: &str) -> bool {
    let first = text.split('/').next().unwrap();
    let is_below_root =
        !first.is_empty() && text.contains('/') && repository().join(first).is_dir();
    let has_extension = Path::new(text)
        .extension()
        .is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known));
    !text.contains(' ')
        && !CREATED.iter().any(|created| text.starts_with(created))
        && (is_below_root || has_extension || (text.ends_with('/') && !text.starts_with('/')))
}

/// Returns whether a path exists. A placeholder, `NAME` or `*`, stands for any file of its directory.
fn exists(path: &str) -> bool {
    // ARCHITECTURE.md has a column of paths below updater/src/.
    ["", "updater/src"].iter().any(|base| {
        let path = repository().join(base).join(path);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match name.contains("NAME") || name.contains('*') {
            true => path.parent().unwrap().is_dir(),
            false => path.exists(),
        }
    })
}

#[test]
fn paths_in_pages_exist() {
    let mut count = 0;
    for page in PAGES {
        let (prose, _) = prose_and_code(page);
        let quoted = prose.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
        let links = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let links = links.filter(|link| !link.contains("://"));
        for path in quoted.filter(|text| is_path(text)).chain(links) {
            assert!(exists(path), "{page} names {path}, which does not exist");
            count += 1;
        }
    }
    assert!(count >= 60, "only {count} paths were found");
}

#[test]
fn missing_paths_are_recognized() {
    for path in ["builder/src/gone.rs", "gone.rs", "gone/", "docs/gone.md", "gone/NAME.jsonnet"] {
        assert!(is_path(path) && !exists(path), "{path}");
    }
    for text in ["out/cdn/", "etchaos/config.json", "/usr", "grub.cfg", "cargo fmt", ".jsonnet"] {
        assert!(!is_path(text), "{text}");
    }
}

#[test]
fn builder_commands_in_pages_parse() {
    let mut count = 0;
    for page in PAGES {
        let (_, code) = prose_and_code(page);
        for line in code.lines() {
            let Some((_, arguments)) = line.split_once("-p builder -- ") else { continue };
            let arguments = arguments.split('#').next().unwrap().split_whitespace();
            let parsed = Cli::try_parse_from(["builder"].into_iter().chain(arguments));
            assert!(parsed.is_ok(), "{page}: {line}: {}", parsed.unwrap_err());
            count += 1;
        }
    }
    assert!(count >= 5, "only {count} commands were found");
}
