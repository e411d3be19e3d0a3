//! Lists the users who are logged in and the inhibitors that block a shutdown, by asking logind.
//!
//! The JSON forms differ between versions of systemd, so for each list there are two commands:
//!
//! - Sessions: `loginctl list-sessions --json=` exists since 256. Until 255 it was `--output=json`, which
//!   later versions ignore. Until 255 the list has the state and no class; since 256 it has the class and
//!   no state. `loginctl show-session` has both in all versions.
//! - Inhibitors: `systemd-inhibit --list --json=` exists since 260. In earlier versions busctl calls the
//!   method that systemd-inhibit calls (org.freedesktop.login1(5)), and prints its reply as JSON.

use std::fmt;

use serde_json::Value;

use crate::host::Host;
use crate::open_shells;
use crate::process::{ProcessError, QUERY_TIMEOUT, systemd_stdout};

const SESSIONS: [&[&str]; 2] = [
    &["loginctl", "list-sessions", "--no-legend", "--json=short"],
    &["loginctl", "list-sessions", "--no-legend", "--output=json"],
];
const INHIBITORS: [&[&str]; 2] = [
    &["systemd-inhibit", "--list", "--no-legend", "--json=short"],
    &[
        "busctl",
        "--system",
        "--json=short",
        "call",
        "org.freedesktop.login1",
        "/org/freedesktop/login1",
        "org.freedesktop.login1.Manager",
        "ListInhibitors",
    ],
];
/// How many characters of a name or reason are shown that another program chose.
const SHOWN_MAX: usize = 64;
/// Classes of sessions without a user (sd_session_get_class(3)). A session of an unknown class counts as
/// one of a user.
const CLASSES_WITHOUT_USER: [&str; 7] = [
    "background",
    "background-light",
    "greeter",
    "lock-screen",
    "manager",
    "manager-early",
    "none",
];

/// A reason not to reboot now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Blocker {
    /// A user is logged in.
    User(String),
    /// A program holds an inhibitor that blocks a shutdown.
    Inhibitor {
        /// The name that the program gave.
        who: String,
        /// The reason that it gave.
        why: String,
    },
    /// The list could not be read, so there may be a user or an inhibitor.
    Unknown {
        /// What could not be listed.
        what: &'static str,
        /// The error.
        error: String,
    },
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "{name} is logged in"),
            Self::Inhibitor { who, why } => write!(f, "{who} inhibits a shutdown ({why})"),
            Self::Unknown { what, error } => write!(f, "cannot list {what}: {error}"),
        }
    }
}

/// Returns every user who is logged in or has a shell through the listener, and every inhibitor that blocks a
/// shutdown. A list that cannot be read is reported as a blocker, and logged.
pub(crate) fn blockers(host: &Host) -> Vec<Blocker> {
    let run = |command: &[&str]| systemd_stdout(command, QUERY_TIMEOUT);
    let mut blockers = list_blockers(&run);
    blockers.extend(shells(host));
    for blocker in &blockers {
        if let Blocker::Unknown { .. } = blocker {
            log::warn!("{blocker}; the host counts as in use");
        }
    }
    blockers
}

/// Returns the shells through the listener, of which logind does not know.
fn shells(host: &Host) -> Vec<Blocker> {
    match open_shells::list(host) {
        Ok(texts) => texts.iter().map(|text| Blocker::User(shown(text))).collect(),
        Err(error) => {
            vec![Blocker::Unknown { what: "the shells of the listener", error: error.to_string() }]
        }
    }
}

type Run<'a> = &'a dyn Fn(&[&str]) -> Result<String, ProcessError>;

fn list_blockers(run: Run<'_>) -> Vec<Blocker> {
    let users = query(run, SESSIONS).and_then(|list| users(run, &list));
    let inhibitors = query(run, INHIBITORS).and_then(|list| inhibitors(&list));
    let unknown = |what| move |error| vec![Blocker::Unknown { what, error }];
    let mut blockers = users.unwrap_or_else(unknown("users"));
    blockers.extend(inhibitors.unwrap_or_else(unknown("inhibitors")));
    blockers
}

/// Returns the JSON that the first command that succeeds prints, or the error of the last one.
fn query(run: Run<'_>, commands: [&[&str]; 2]) -> Result<Value, String> {
    let mut failure = String::new();
    for command in commands {
        let name = command.join(" ");
        match run(command) {
            Ok(text) => match serde_json::from_str(&text) {
                Ok(value) => return Ok(value),
                Err(_) => failure = format!("\"{name}\" did not print JSON"),
            },
            // The other command would hang, too.
            Err(error @ ProcessError::TimedOut { .. }) => return Err(error.to_string()),
            Err(error) => failure = error.to_string(),
        }
    }
    Err(failure)
}

/// Reads a list of sessions: objects with `session`, `user`, and `class` or `state`.
fn users(run: Run<'_>, sessions: &Value) -> Result<Vec<Blocker>, String> {
    let sessions = sessions.as_array().ok_or("loginctl did not print a list of sessions")?;
    let in_use = sessions.iter().filter(|session| is_user(run, session));
    let name = |session: &Value| shown(session["user"].as_str().unwrap_or("an unknown user"));
    Ok(in_use.map(|session| Blocker::User(name(session))).collect())
}

/// Returns whether a session belongs to a user and is not closing. If this cannot be determined, the
/// session counts as one of a user.
fn is_user(run: Run<'_>, session: &Value) -> bool {
    let has_user = |class: Option<&str>, state: Option<&str>| {
        !class.is_some_and(|class| CLASSES_WITHOUT_USER.contains(&class))
            && state != Some("closing")
    };
    let (class, state) = (session["class"].as_str(), session["state"].as_str());
    if !has_user(class, state) || (class.is_some() && state.is_some()) {
        return has_user(class, state);
    }
    let Some(id) = session["session"].as_str().filter(|id| !id.starts_with('-')) else {
        return true;
    };
    let show = ["loginctl", "show-session", "--property=Class", "--property=State", id];
    match run(&show) {
        Ok(text) => {
            let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
            has_user(value("Class="), value("State="))
        }
        // The session may have ended since. The next decision sees the new list.
        Err(error) => {
            log::debug!("{error}");
            true
        }
    }
}

/// Reads a list of inhibitors: the objects that systemd-inhibit prints, or the reply to ListInhibitors, an
/// array of structures with the fields what, who, why, mode, uid and pid.
fn inhibitors(list: &Value) -> Result<Vec<Blocker>, String> {
    let entries = list.as_array().or_else(|| list["data"][0].as_array());
    let entries = entries.ok_or("logind did not return a list of inhibitors")?;
    let blocker = |entry: &Value| {
        let field = |name: &str, index: usize| {
            let value = if entry.is_array() { &entry[index] } else { &entry[name] };
            value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let what = field("what", 0).unwrap_or_default();
        // systemd itself waits for inhibitors of the mode "delay".
        let blocks = matches!(field("mode", 3).as_deref(), Some("block" | "block-weak"));
        (blocks && what.split(':').any(|what| what == "shutdown")).then(|| Blocker::Inhibitor {
            who: shown(&field("who", 1).unwrap_or("an unknown program".into())),
            why: shown(&field("why", 2).unwrap_or("no reason given".into())),
        })
    };
    Ok(entries.iter().filter_map(blocker).collect())
}

fn shown(text: &str) -> String {
    let printable = |c: char| if c.is_control() { '?' } else { c };
    text.chars().take(SHOWN_MAX).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;

    /// `loginctl list-sessions` of systemd 255, which has no class.
    const SESSIONS_255: &str = r#"[{"session":"1","uid":1000,"user":"ann","seat":null,"tty":"pts/0","state":"active","idle":false,"since":null}]"#;
    /// The same output of systemd 257, which has no state.
    const SESSIONS_257: &str = r#"[{"session":"1","uid":1000,"user":"ann","seat":null,"leader":7,"class":"user","tty":"pts/0","idle":false,"since":null}]"#;
    /// `systemd-inhibit --list` of systemd 260.
    const INHIBITORS_260: &str = r#"[{"who":"backup","uid":0,"user":"root","pid":777,"comm":"sh","what":"shutdown:sleep","why":"nightly \"run\"","mode":"block"}]"#;
    /// The reply to ListInhibitors, as busctl prints it.
    const INHIBITORS_BUS: &str = r#"{"type":"a(ssssuu)","data":[[["shutdown:sleep","backup","nightly \"run\"","block",0,777]]]}"#;

    /// Lists the blockers of a host where these commands print these texts and all others fail.
    fn list(answers: &[(&[&str], &str)]) -> Vec<Blocker> {
        let answers: BTreeMap<&[&str], &str> = answers.iter().copied().collect();
        let run = |command: &[&str]| match answers.get(command) {
            Some(text) => Ok((*text).to_owned()),
            None => systemd_stdout(&["false"], Duration::from_secs(60)),
        };
        list_blockers(&run)
    }

    fn show<'a>() -> &'a [&'a str] {
        &["loginctl", "show-session", "--property=Class", "--property=State", "1"]
    }

    #[test]
    fn a_shell_of_the_listener_counts_as_a_user() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::new(directory.path());
        assert_eq!(shells(&host), []);
        let open = open_shells::OpenShell::record(&host, "1", "root through a shell").unwrap();
        assert_eq!(shells(&host), [Blocker::User("root through a shell".into())]);
        drop(open);
        assert_eq!(shells(&host), []);
    }

    #[test]
    fn reads_the_formats_of_all_supported_versions() {
        let backup = Blocker::Inhibitor { who: "backup".into(), why: r#"nightly "run""#.into() };
        let expected = [Blocker::User("ann".into()), backup];
        let details = (show(), "Class=user\nState=active\n");
        for (sessions, session_text) in [(1, SESSIONS_255), (0, SESSIONS_257)] {
            for (inhibitors, inhibitor_text) in [(1, INHIBITORS_BUS), (0, INHIBITORS_260)] {
                let found = list(&[
                    (SESSIONS[sessions], session_text),
                    (INHIBITORS[inhibitors], inhibitor_text),
                    details,
                ]);
                assert_eq!(found, expected, "{sessions} {inhibitors}");
            }
        }
        let none = r#"{"type":"a(ssssuu)","data":[[]]}"#;
        assert_eq!(list(&[(SESSIONS[0], "[]"), (INHIBITORS[1], none)]), []);
    }

    #[test]
    fn reports_lists_that_cannot_be_read() {
        let count = |answers: &[(&[&str], &str)]| {
            let found = list(answers);
            found.iter().filter(|blocker| matches!(blocker, Blocker::Unknown { .. })).count()
        };
        assert_eq!(count(&[]), 2);
        assert_eq!(count(&[(SESSIONS[0], "[]")]), 1);
        assert_eq!(count(&[(INHIBITORS[1], INHIBITORS_BUS)]), 1);
        for bad in ["", "no JSON", "{}", "null", "7"] {
            assert_eq!(count(&[(SESSIONS[0], bad), (INHIBITORS[0], bad)]), 2, "{bad}");
        }
        let text = list(&[])[0].to_string();
        assert!(text.starts_with("cannot list users: \"false\" failed"), "{text}");
    }

    #[test]
    fn counts_only_sessions_of_users() {
        let count = |sessions: &str, details: Option<&str>| {
            let mut answers = vec![(SESSIONS[0], sessions), (INHIBITORS[0], "[]")];
            answers.extend(details.map(|text| (show(), text)));
            list(&answers).len()
        };
        for class in CLASSES_WITHOUT_USER {
            let sessions = SESSIONS_257.replace("\"user\",\"tty", &format!("\"{class}\",\"tty"));
            assert_ne!(sessions, SESSIONS_257);
            assert_eq!(count(&sessions, None), 0, "{class}");
            let details = format!("Class={class}\nState=active\n");
            assert_eq!(count(SESSIONS_255, Some(&details)), 0, "{class}");
        }
        for class in ["user-early", "user-light", "user-incomplete", "user-of-the-future", ""] {
            let details = format!("Class={class}\nState=active\n");
            assert_eq!(count(SESSIONS_255, Some(&details)), 1, "{class}");
        }
        assert_eq!(count(&SESSIONS_255.replace("active", "closing"), None), 0);
        assert_eq!(count(SESSIONS_257, Some("Class=user\nState=closing\n")), 0);
        assert_eq!(count(SESSIONS_257, Some("Class=user\nState=opening\n")), 1);
        // Without details a session counts, and so does one without an ID.
        assert_eq!(count(SESSIONS_257, None), 1);
        assert_eq!(count("[{}, 7]", None), 2);
    }

    #[test]
    fn counts_only_inhibitors_that_block_a_shutdown() {
        for (from, to, expected) in [
            ("block", "block", 1),
            ("block", "delay", 0),
            ("block", "block-weak", 1),
            ("shutdown:sleep", "sleep:idle", 0),
            ("shutdown:sleep", "sleep:shutdown", 1),
            ("shutdown:sleep", "handle-power-key", 0),
        ] {
            for (command, text) in [(0, INHIBITORS_260), (1, INHIBITORS_BUS)] {
                let text = text.replace(from, to);
                let found = list(&[(SESSIONS[0], "[]"), (INHIBITORS[command], &text)]);
                assert_eq!(found.len(), expected, "{to}");
            }
        }
    }

    #[test]
    fn shortens_and_escapes_texts() {
        let text = serde_json::json!([{
            "what": "shutdown", "mode": "block", "who": "x".repeat(1000), "why": "\u{1b}[2J",
        }]);
        let found = list(&[(SESSIONS[0], "[]"), (INHIBITORS[0], &text.to_string())]);
        let [Blocker::Inhibitor { who, why }] = &found[..] else { panic!("{found:?}") };
        assert_eq!((who.len(), why.as_str()), (SHOWN_MAX, "?[2J"));
    }
}
