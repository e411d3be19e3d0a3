//! Who would mind a reboot, by what logind wrote below `/run/systemd`.
//!
//! Of the three ways to ask logind, this is the one that always has an answer. `loginctl` and
//! `systemd-inhibit` need a bus and a logind that runs, and where either is missing their answer is
//! neither yes nor no. The files are what sd-login(3) of every version reads, so their keys stay; they
//! are there while logind is not; and where nobody ever logged in there are none.

use std::path::Path;

use super::Busy;
use crate::host::{Host, read_limited};

const SESSIONS: &str = "/run/systemd/sessions";
const INHIBITORS: &str = "/run/systemd/inhibit";
/// They take some hundred bytes.
const FILE_MAX: u64 = 64 * 1024;
/// More than this many do not change the answer.
const FILES_MAX: usize = 1000;
/// As much as is shown of what somebody wrote.
const SHOWN_MAX: usize = 64;
/// Sessions in which nobody sits (sd_session_get_class(3)). A class that is not known, or not said,
/// counts as a user.
const NOBODY: [&str; 7] = [
    "background",
    "background-light",
    "greeter",
    "lock-screen",
    "manager",
    "manager-early",
    "none",
];

/// Everybody who is logged in, and everybody who holds an inhibitor that blocks a shutdown.
pub fn busy(host: &Host) -> Vec<Busy> {
    let users = files(&host.path(SESSIONS)).into_iter().filter_map(|text| user(&text));
    let inhibitors = files(&host.path(INHIBITORS)).into_iter().filter_map(|text| inhibitor(&text));
    users.chain(inhibitors).collect()
}

fn user(text: &str) -> Option<Busy> {
    let class = value(text, "CLASS").unwrap_or_default();
    let is_closing = value(text, "STATE") == Some("closing");
    let is_user = !NOBODY.contains(&class) && !is_closing;
    is_user.then(|| Busy::User(shown(value(text, "USER").unwrap_or("somebody"))))
}

/// `delay` is not meant for us: systemd itself waits for it.
fn inhibitor(text: &str) -> Option<Busy> {
    let of_shutdown =
        value(text, "WHAT").unwrap_or_default().split(':').any(|what| what == "shutdown");
    let blocks = matches!(value(text, "MODE"), Some("block" | "block-weak"));
    (of_shutdown && blocks).then(|| Busy::Inhibitor {
        who: shown(value(text, "WHO").unwrap_or("somebody")),
        why: shown(value(text, "WHY").unwrap_or("no reason given")),
    })
}

/// The texts of the files in a directory, in the order of their names. Beside them lie pipes, on which
/// opening would wait; and a file may go away while we look.
fn files(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.path())
        .take(FILES_MAX)
        .collect();
    paths.sort();
    let texts = paths.iter().filter_map(|path| read_limited(path, FILE_MAX).ok().flatten());
    texts.map(|text| String::from_utf8_lossy(&text).into_owned()).collect()
}

/// A line `NAME=value`. In values that others chose, logind has escaped what is not plain text.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = |line: &'a str| line.trim().strip_prefix(name)?.strip_prefix('=');
    text.lines().find_map(line).filter(|value| !value.is_empty())
}

fn shown(text: &str) -> String {
    let plain = |c: char| if c.is_control() { '?' } else { c };
    text.chars().take(SHOWN_MAX).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As logind of versions 252 and 257 writes them.
    const SESSION: &str = "# This is private data. Do not parse.\nUID=1000\nUSER=ann\nACTIVE=1\nIS_DISPLAY=1\nSTATE=active\nREMOTE=1\nTYPE=tty\nORIGINAL_TYPE=tty\nCLASS=user\nSCOPE=session-1.scope\nFIFO=/run/systemd/sessions/1.ref\nTTY=pts/0\n";
    const INHIBITOR: &str = "# This is private data. Do not parse.\nWHAT=shutdown:sleep\nMODE=block\nUID=0\nPID=777\nWHO=backup\nWHY=nightly \\\"run\\\"\nFIFO=/run/systemd/inhibit/1.ref\n";

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join("run/systemd").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let host = Host::new(directory.path());
        (directory, host)
    }

    #[test]
    fn users_and_inhibitors_are_found() {
        let (_directory, nobody) = host(&[]);
        assert_eq!(busy(&nobody), []);
        let (directory, two) = host(&[("sessions/1", SESSION), ("inhibit/1", INHIBITOR)]);
        // Opening one would wait for ever.
        for pipe in ["sessions/1.ref", "inhibit/1.ref"] {
            let path = directory.path().join("run/systemd").join(pipe);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        let backup = Busy::Inhibitor { who: "backup".into(), why: r#"nightly \"run\""#.into() };
        assert_eq!(busy(&two), [Busy::User("ann".into()), backup]);
    }

    #[test]
    fn only_those_who_would_mind_count() {
        let count = |session: &str, inhibitor: &str| {
            let (_directory, host) = host(&[("sessions/1", session), ("inhibit/1", inhibitor)]);
            busy(&host).len()
        };
        for class in NOBODY {
            assert_eq!(count(&SESSION.replace("CLASS=user", &format!("CLASS={class}")), ""), 0);
        }
        assert_eq!(count(&SESSION.replace("STATE=active", "STATE=closing"), INHIBITOR), 1);
        assert_eq!(count(&SESSION.replace("STATE=active", "STATE=opening"), ""), 1);
        for class in ["user-early", "user-light", "user-incomplete", "of-tomorrow", ""] {
            assert_eq!(count(&SESSION.replace("CLASS=user", &format!("CLASS={class}")), ""), 1);
        }
        let closing = SESSION.replace("STATE=active", "STATE=closing");
        for (from, to, expected) in [
            ("MODE=block", "MODE=delay", 0),
            ("MODE=block", "MODE=block-weak", 1),
            ("shutdown:sleep", "sleep:idle", 0),
            ("shutdown:sleep", "sleep:shutdown", 1),
            ("shutdown:sleep", "handle-power-key", 0),
        ] {
            assert_eq!(count(&closing, &INHIBITOR.replace(from, to)), expected, "{to}");
        }
    }

    #[test]
    fn hostile_files_are_harmless() {
        let long = format!("WHAT=shutdown\nMODE=block\nWHO={}\nWHY=\x1b[2J\n", "x".repeat(1000));
        let huge = "x".repeat(FILE_MAX as usize + 1);
        let (_directory, host) =
            host(&[("inhibit/1", &long), ("inhibit/2", &huge), ("inhibit/3", "\0=\n=")]);
        let [Busy::Inhibitor { who, why }] = &busy(&host)[..] else { panic!() };
        assert_eq!((who.len(), why.as_str()), (SHOWN_MAX, "?[2J"));
    }
}
