//! Compares the pages of the repository with the repository: the paths and the commands of the builder that
//! they name exist.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use builder::cli::Cli;
use clap::Parser;

const PAGES: [&str; 4] = ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "SECURITY.md"];
/// The pages for users. Most paths in them are those of a host or of a destination.
const GUIDES: [&str; 6] = [
    "docs/delta.md",
    "docs/first-host.md",
    "docs/keys.md",
    "docs/operators.md",
    "docs/publishers.md",
    "docs/variants.md",
];
/// The beginning of a path that a build or a host creates.
const CREATED: [&str; 3] = ["out/", "etchaos/", "own/"];
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

/// Returns whether a page has a heading with this anchor, as GitHub forms it. An empty anchor links to the page
/// itself.
fn has_heading(page: &str, anchor: &str) -> bool {
    let anchor_of = |heading: &str| -> String {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
    };
    let is_heading = |line: &str| {
        line.starts_with('#') && anchor_of(line.trim_start_matches('#').trim()) == anchor
    };
    anchor.is_empty()
        || fs::read_to_string(repository().join(page)).unwrap().lines().any(is_heading)
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
            let (file, heading) = path.split_once('#').unwrap_or((path, ""));
            let file = if file.is_empty() { page } else { file };
            assert!(exists(file), "{page} names {file}, which does not exist");
            assert!(has_heading(file, heading), "{page}: {file} has no heading #{heading}");
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
    for page in PAGES.into_iter().chain(GUIDES) {
        let (prose, code) = prose_and_code(page);
        let code = code.replace("\\\n", " ");
        // In prose, `builder verify` stands for a command with any arguments.
        let is_command = |text: &&str| {
            text.split(' ').count() > 2
                && !["NAME", "COMMAND"].iter().any(|name| text.contains(name))
        };
        let quoted = prose.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
        let quoted = quoted.filter(is_command);
        for line in code.lines().chain(quoted) {
            let Some(arguments) = arguments_of_builder(line) else { continue };
            let parsed = Cli::try_parse_from(["builder".to_owned()].into_iter().chain(arguments));
            // A request for help is not an error.
            let error = parsed.err().filter(clap::Error::use_stderr);
            assert!(error.is_none(), "{page}: {line}: {}", error.unwrap());
            count += 1;
        }
    }
    assert!(count >= 25, "only {count} commands were found");
}

/// Returns the arguments of the builder in a line of a script, as the shell splits them.
fn arguments_of_builder(line: &str) -> Option<Vec<String>> {
    let arguments = match line.split_once("-p builder -- ") {
        Some((_, arguments)) => arguments,
        None => line.strip_prefix("builder ")?,
    };
    // Leave out comments, redirections and pipes.
    let arguments = arguments.split(" #").next()?.split(" >").next()?.split(" |").next()?;
    let script = format!("printf '%s\\n' {arguments}");
    let output = Command::new("sh").args(["-c", &script]).output().expect("sh can be started");
    let words = String::from_utf8(output.stdout).expect("the pages are UTF-8");
    Some(words.lines().map(str::to_owned).collect())
}
