//! Man pages and completions, made of the command line's definition.

use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::{Shell, generate_to};
use clap_mangen::Man;
use updater::cli::Cli;

/// As hosts know the program.
const NAME: &str = "etchaos-updater";

/// Writes `etchaos-updater.1`, `etchaos-updater-update.1` and so on, and the completions for bash, zsh
/// and fish.
pub fn write(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Cli::command(), directory)?;
    for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        name_exit_codes(&directory.join(format!("{NAME}-{}.1", command.get_name())))?;
    }
    std::fs::write(directory.join(format!("{NAME}.1")), main_page()?)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Cli::command(), NAME, directory)?;
    }
    Ok(())
}

/// What stands at the end of a command's help are its exit codes.
fn name_exit_codes(page: &Path) -> io::Result<()> {
    let text = std::fs::read_to_string(page)?;
    std::fs::write(page, text.replacen(".SH EXTRA\n", ".SH \"EXIT CODES\"\n", 1))
}

/// The page of the program itself. What stands at the end of its help has a table, whose lines a man
/// page must not fill.
fn main_page() -> io::Result<Vec<u8>> {
    let man = Man::new(Cli::command());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    man.render_subcommands_section(&mut page)?;
    let mut extra = Vec::new();
    man.render_extra_section(&mut extra)?;
    let extra = String::from_utf8_lossy(&extra);
    let lines = extra.replacen(".SH EXTRA\n", ".SH \"CONFIGURATION AND EXIT CODES\"\n.nf\n", 1);
    page.extend(lines.as_bytes());
    page.extend(b".fi\n");
    man.render_version_section(&mut page)?;
    Ok(page)
}
