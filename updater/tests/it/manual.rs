//! Man pages and completions, which the example `manual` writes.

#[path = "../../examples/manual/pages.rs"]
mod pages;

use std::fs;

use clap::{Command, CommandFactory};
use updater::cli::Cli;

/// Escapes dashes as in a man page.
fn roff(name: &str) -> String {
    name.replace('-', "\\-")
}

fn options(command: &Command) -> Vec<String> {
    let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
    shown.filter_map(|argument| argument.get_long()).map(|name| format!("--{name}")).collect()
}

#[test]
fn manual_describes_every_command_and_option() {
    let directory = tempfile::tempdir().unwrap();
    pages::write(directory.path()).unwrap();
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    let shells = ["etchaos-updater.bash", "_etchaos-updater", "etchaos-updater.fish"]
        .map(|name| (name, read(name)));

    let mut cli = Cli::command();
    cli.build();
    let main = read("etchaos-updater.1");
    assert!(
        main.contains(".nf\n") && main.contains("health.deadline") && main.contains("EXIT CODES")
    );
    let commands: Vec<&Command> = cli
        .get_subcommands()
        .filter(|command| command.get_name() != "help" && !command.is_hide_set())
        .collect();
    // Commands of commands have pages too.
    let nested = |command: &&Command| {
        command.get_subcommands().filter(|command| command.get_name() != "help").count()
    };
    let documented = commands.len() + commands.iter().map(nested).sum::<usize>();
    assert!(documented >= 7);
    for command in commands {
        let name = command.get_name();
        assert!(main.contains(&roff(&format!("etchaos-updater-{name}"))), "{name}");
        let page = read(&format!("etchaos-updater-{name}.1"));
        // Each page lists only the exit codes of its command.
        let codes = page
            .split(".SH \"EXIT CODES\"\n")
            .nth(1)
            .unwrap_or_else(|| panic!("no exit codes for {name}"));
        for (code, commands) in [
            ("10", &["check"][..]),
            ("3", &["check", "update", "listen", "sources"]),
            ("255", &["config"]),
            ("143", &["update"]),
        ] {
            let is_listed = codes.split(|c: char| !c.is_ascii_digit()).any(|word| word == code);
            assert_eq!(is_listed, commands.contains(&name), "{name}: {code} in {codes}");
        }
        for row in ["\n  1    ", "\n  2    invalid usage\n"] {
            assert!(codes.contains(row), "{name}: no {row:?} in {codes}");
        }
        let options = options(command);
        assert!(options.len() >= 3, "{options:?}");
        for option in &options {
            assert!(page.contains(&roff(option)), "{option} is not in the page of {name}");
        }
        for (shell, text) in &shells {
            assert!(text.contains(name), "{name} is not in {shell}");
            for option in &options {
                // The completions for fish omit the dashes.
                let pattern = if shell.ends_with("fish") { &option[2..] } else { option };
                assert!(text.contains(pattern), "{option} is not in {shell}");
            }
        }
    }
    let files: Vec<String> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(files.len(), 1 + documented + 3);
    // Also those of commands of commands.
    for name in files.iter().filter(|name| name.ends_with(".1")) {
        let page = read(name);
        assert!(page.contains("EXIT CODES") && !page.contains(".SH EXTRA"), "{name}");
    }
    let checked = std::process::Command::new("bash")
        .arg("-n")
        .arg(directory.path().join("etchaos-updater.bash"))
        .status();
    assert!(checked.unwrap().success());
}
