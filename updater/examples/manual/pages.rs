//! Man pages and completions, generated from the definition of the command line.

use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::{Shell, generate_to};
use updater::cli::Cli;

/// The name of the program on hosts.
const NAME: &str = "etchaos-updater";
/// The headings in the text at the end of `--help`, and the sections of a man page that they become.
const SECTIONS: [(&str, &str); 3] = [
    ("Configuration:", "CONFIGURATION"),
    ("Examples:", "EXAMPLES"),
    ("Exit codes:", "\"EXIT CODES\""),
];

/// Writes `etchaos-updater.1`, a page for each command such as `etchaos-updater-data-unlock.1`, and the
/// completions for bash, zsh and fish.
pub(super) fn write(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Cli::command(), directory)?;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(NAME) && name.ends_with(".1") {
            write_sections(&path)?;
        }
    }
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Cli::command(), NAME, directory)?;
    }
    Ok(())
}

/// Splits the section EXTRA of a page, which has the text at the end of `--help`, into sections. Their
/// lines are tables, which man must not fill.
fn write_sections(path: &Path) -> io::Result<()> {
    let page = std::fs::read_to_string(path)?;
    let Some((before, extra)) = page.split_once(".SH EXTRA\n") else { return Ok(()) };
    let (extra, after) = match extra.split_once("\n.SH ") {
        Some((extra, after)) => (extra, format!(".SH {after}")),
        None => (extra.trim_end(), String::new()),
    };
    let lines = extra.lines().map(|line| {
        let section = SECTIONS.iter().find(|(heading, _)| *heading == line);
        section.map_or_else(|| line.to_owned(), |(_, name)| format!(".fi\n.SH {name}\n.nf"))
    });
    let sections = lines.collect::<Vec<_>>().join("\n");
    std::fs::write(path, format!("{before}{sections}\n.fi\n{after}"))
}
