//! The Pattern that a person pushes: a command, or a file with its imports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use protocol::pattern::PatternFiles;
use protocol::token::TOKEN_MAX;
use rsjsonnet_lang::arena::Arena;
use rsjsonnet_lang::interner::StrInterner;
use rsjsonnet_lang::lexer::Lexer;
use rsjsonnet_lang::span::SpanManager;
use rsjsonnet_lang::token::{STokenKind, TokenKind};
use serde_json::json;

/// The endings of files that are Patterns.
const EXTENSIONS: [&str; 3] = ["jsonnet", "libsonnet", "json"];
/// The id of a Command that is a person's text, as Etcha's client names it.
const COMMAND_ID: &str = "etcha push";
/// The name of the file with a command, as Etcha's client names it.
const MAIN: &str = "/main.jsonnet";
/// The maximum number of files of a Pattern.
const FILES_MAX: usize = 256;

/// Reads the Pattern that `argument` names or is.
///
/// It is a file if it ends like one and either exists or has no white space; otherwise it is a command.
///
/// # Errors
/// Fails if the file, or what it imports, cannot be read.
pub(crate) fn load(argument: &str) -> Result<PatternFiles, String> {
    let path = Path::new(argument);
    let extension = path.extension().and_then(|extension| extension.to_str());
    let ends_like_a_file = extension.is_some_and(|extension| EXTENSIONS.contains(&extension));
    let has_space = argument.contains(char::is_whitespace);
    match ends_like_a_file && (!has_space || path.exists()) {
        true => file(path),
        false if argument.trim().is_empty() => Err("the command is empty".into()),
        false => Ok(command(argument)),
    }
}

/// Returns a Pattern that runs a shell text, as Etcha's client sends it. JSON is valid Jsonnet, and hosts
/// that render no Jsonnet take it, too.
fn command(text: &str) -> PatternFiles {
    let pattern = json!({"run": [{"always": true, "change": text, "id": COMMAND_ID}]});
    PatternFiles {
        entrypoint: MAIN.into(),
        files: BTreeMap::from([(MAIN.into(), pattern.to_string())]),
    }
}

/// Reads a file and everything that it imports.
///
/// The names in the Pattern begin at the directory that all files have in common, so that they say
/// nothing else about this machine.
fn file(path: &Path) -> Result<PatternFiles, String> {
    let main = std::path::absolute(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let main = normal(&main);
    let (mut texts, mut scanned) = (BTreeMap::new(), BTreeSet::new());
    let mut left = TOKEN_MAX;
    let mut open = vec![Import { path: main.clone(), is_data: false, importer: None }];
    while let Some(import) = open.pop() {
        if !texts.contains_key(&import.path) {
            if texts.len() == FILES_MAX {
                return Err(format!("{} imports more than {FILES_MAX} files", main.display()));
            }
            let text = read(&import.path, &mut left).map_err(|why| match &import.importer {
                Some(importer) => format!("{why}, which {} imports", importer.display()),
                None => why,
            })?;
            texts.insert(import.path.clone(), text);
        }
        if !import.is_data && scanned.insert(import.path.clone()) {
            open.extend(imports(&import.path, &texts[&import.path])?);
        }
    }
    let root = common_directory(texts.keys());
    let name = |path: &Path| {
        let below = path.strip_prefix(&root).unwrap_or(path);
        let below = below.to_str().ok_or_else(|| format!("{} is not UTF-8", path.display()))?;
        Ok::<_, String>(format!("/{below}"))
    };
    let entrypoint = name(&main)?;
    let files = texts.into_iter().map(|(path, text)| Ok((name(&path)?, text)));
    Ok(PatternFiles { entrypoint, files: files.collect::<Result<_, String>>()? })
}

fn read(path: &Path, left: &mut usize) -> Result<String, String> {
    let failed = |why: &dyn std::fmt::Display| format!("cannot read {}: {why}", path.display());
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(*left as u64 + 1).read_to_string(&mut text))
        .map_err(|error| failed(&error))?;
    match left.checked_sub(text.len()) {
        Some(rest) => *left = rest,
        None => return Err(failed(&format_args!("the Pattern is larger than {TOKEN_MAX} bytes"))),
    }
    Ok(text)
}

/// A file that another one names in `import` or `importstr`.
struct Import {
    path: PathBuf,
    /// Whether it is imported as text, and therefore imports nothing itself.
    is_data: bool,
    importer: Option<PathBuf>,
}

/// Returns the files that a text imports. In Jsonnet, their names are literals.
fn imports(path: &Path, text: &str) -> Result<Vec<Import>, String> {
    let (arena, literals) = (Arena::new(), Arena::new());
    let interner = StrInterner::new();
    let mut spans = SpanManager::new();
    let (context, _) = spans.insert_source_context(text.len());
    let lexer = Lexer::new(&arena, &literals, &interner, &mut spans, context, text.as_bytes());
    // The host reports the mistake of a text that is not Jsonnet.
    let Ok(tokens) = lexer.lex_to_eof(false) else { return Ok(Vec::new()) };
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut found = Vec::new();
    for pair in tokens.windows(2) {
        let is_data = match pair[0].kind {
            TokenKind::Simple(STokenKind::Import) => false,
            TokenKind::Simple(STokenKind::Importstr) => true,
            TokenKind::Simple(STokenKind::Importbin) => {
                return Err(format!(
                    "{}: a Pattern that is pushed cannot use importbin",
                    path.display()
                ));
            }
            _ => continue,
        };
        let (TokenKind::String(name) | TokenKind::TextBlock(name)) = pair[1].kind else { continue };
        if Path::new(name).is_absolute() {
            return Err(format!(
                "{} imports {name:?}: use a path relative to the importing file",
                path.display()
            ));
        }
        let importer = Some(path.to_owned());
        found.push(Import { path: normal(&directory.join(name)), is_data, importer });
    }
    Ok(found)
}

/// Resolves `.` and `..` by name only, as the host does.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => _ = normal.pop(),
            Component::CurDir => {}
            component => normal.push(component),
        }
    }
    normal
}

fn common_directory<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> PathBuf {
    let directories = paths.map(|path| path.parent().unwrap_or(Path::new("/")).to_owned());
    let common = directories.reduce(|common, directory| {
        let both = common.components().zip(directory.components());
        both.take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
    });
    common.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Writes files below a new directory.
    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        directory
    }

    fn load_in(directory: &tempfile::TempDir, name: &str) -> Result<PatternFiles, String> {
        load(directory.path().join(name).to_str().unwrap())
    }

    fn names(files: &PatternFiles) -> Vec<&str> {
        files.files.keys().map(String::as_str).collect()
    }

    #[test]
    fn sends_a_command_as_etcha_does() {
        let files = load("echo 'a \"b\"' | cat /etc/x.json").unwrap();
        assert_eq!(files.entrypoint, "/main.jsonnet");
        let pattern: serde_json::Value =
            serde_json::from_str(&files.files["/main.jsonnet"]).unwrap();
        assert_eq!(
            pattern,
            json!({"run": [{"id": "etcha push", "always": true,
                            "change": "echo 'a \"b\"' | cat /etc/x.json"}]})
        );
        assert!(load(" ").is_err() && load("").is_err());
    }

    #[test]
    fn sends_a_file_with_everything_that_it_imports() {
        let directory = directory(&[
            (
                "patterns/web.jsonnet",
                "local l = import '../lib/l.libsonnet'; // import 'not.this'\n{ run: [l.c, importstr 'run.sh', \"import 'nor.this'\"] }",
            ),
            ("lib/l.libsonnet", "{ c: import @'./deep/c.json', again: import 'l.libsonnet' }"),
            ("lib/deep/c.json", "{\"id\": \"c\"}"),
            ("patterns/run.sh", "import 'fmt'\n"),
            ("unused.jsonnet", "{}"),
        ]);
        let files = load_in(&directory, "patterns/web.jsonnet").unwrap();
        assert_eq!(files.entrypoint, "/patterns/web.jsonnet");
        assert_eq!(
            names(&files),
            ["/lib/deep/c.json", "/lib/l.libsonnet", "/patterns/run.sh", "/patterns/web.jsonnet"]
        );
        assert_eq!(files.files["/patterns/run.sh"], "import 'fmt'\n");
    }

    #[test]
    fn names_of_files_say_nothing_about_the_directory() {
        let directory = directory(&[("p.json", "{\"run\": []}")]);
        let files = load_in(&directory, "p.json").unwrap();
        assert_eq!((files.entrypoint.as_str(), names(&files)), ("/p.json", vec!["/p.json"]));
    }

    #[test]
    fn names_the_file_that_cannot_be_sent() {
        let directory = directory(&[
            ("missing.jsonnet", "import 'nowhere.libsonnet'"),
            ("absolute.jsonnet", "import '/etc/passwd'"),
            ("binary.jsonnet", "importbin 'x'"),
            ("large.jsonnet", &" ".repeat(TOKEN_MAX + 1)),
            ("my file.jsonnet", "{}"),
        ]);
        for (name, expected) in [
            ("missing.jsonnet", "missing.jsonnet imports"),
            ("absolute.jsonnet", "/etc/passwd"),
            ("binary.jsonnet", "importbin"),
            ("large.jsonnet", "larger than"),
            ("no.jsonnet", "cannot read"),
        ] {
            let error = load_in(&directory, name).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        assert!(load_in(&directory, "my file.jsonnet").is_ok());
    }
}
