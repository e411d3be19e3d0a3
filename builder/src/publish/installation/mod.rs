//! The `run` list of a manifest's Pattern, with which a host that Etcha administers installs the release.
//!
//! Our updater ignores it. Etcha runs it where it pulls the manifest as a Pattern: it downloads kernel and
//! initrd to the slot that is not good, compares their digests, puts the slot on trial, and reboots. A
//! manifest does not know where it is published: the host has the URL of the CDN in `ETCHAOS_CDN`.
//!
//! The list is only in manifests that are published. It names the build, which nothing inside of an image
//! may depend on.

use anyhow::{Context, Result};
use protocol::pattern::{Command, Entry, Pattern, PatternFiles};
use protocol::{Artifact, Release, Role};

use super::layout;

/// The id of the Command that installs.
const INSTALL: &str = "etchaos install";
/// The id of the Command that reboots, after an installation.
const REBOOT: &str = "etchaos reboot";

const COMMON: &str = include_str!("common.sh");

/// Returns the Pattern with the Commands that install `release`, in place of those of an earlier issue of
/// its manifest.
///
/// # Errors
/// Fails if the Pattern cannot be read, or if the release has no kernel or no initrd.
pub(super) fn with_installation(
    pattern: Option<&PatternFiles>,
    release: &Release,
) -> Result<PatternFiles> {
    let pattern = pattern.map(PatternFiles::pattern).transpose();
    let mut pattern: Pattern =
        pattern.context("reading the Pattern of the manifest")?.unwrap_or_default();
    pattern.run.retain(|entry| !is_ours(entry));
    let values = values(release)?;
    let script = |script: &str| values.clone() + &without_comments(&[COMMON, script].concat());
    let install = Command {
        id: INSTALL.into(),
        check: Some(script(include_str!("check.sh"))),
        change: Some(script(include_str!("install.sh"))),
        on_change: vec![REBOOT.into()],
        ..Command::default()
    };
    let reboot = Command {
        id: REBOOT.into(),
        change: Some(format!("set -eu\n{}", without_comments(include_str!("reboot.sh")))),
        ..Command::default()
    };
    pattern.run.extend([install, reboot].map(|command| Entry::Command(Box::new(command))));
    Ok(PatternFiles::from(&pattern))
}

fn is_ours(entry: &Entry) -> bool {
    matches!(entry, Entry::Command(command) if [INSTALL, REBOOT].contains(&command.id.as_str()))
}

/// Returns the assignments that the scripts begin with.
fn values(release: &Release) -> Result<String> {
    let artifact = |role: Role| {
        let found = release.artifact(role);
        found.with_context(|| format!("the release has no {role}"))
    };
    let target = release.target();
    let mut values = vec![
        ("build".to_owned(), release.build.to_string()),
        ("version".to_owned(), release.version.clone()),
        ("release".to_owned(), release.id().to_string()),
        ("manifest".to_owned(), target.manifest_name()),
        ("history".to_owned(), layout::history_path(&target, release.build)),
    ];
    for (name, role) in [("kernel", Role::Kernel), ("initrd", Role::Initrd)] {
        let Artifact { url, size, sha256, .. } = artifact(role)?;
        values.push((format!("{name}_url"), url.clone()));
        values.push((format!("{name}_size"), size.to_string()));
        values.push((format!("{name}_sha256"), sha256.clone()));
    }
    let lines = values.iter().map(|(name, value)| format!("{name}={}\n", quoted(value)));
    Ok(lines.collect())
}

/// Removes the lines that are comments, and empty ones: hosts download the manifest at every poll.
fn without_comments(script: &str) -> String {
    let is_code = |line: &&str| !line.is_empty() && !line.trim_start().starts_with('#');
    script.lines().filter(is_code).map(|line| format!("{line}\n")).collect()
}

/// Quotes a text for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::tests::release;

    fn ids(files: &PatternFiles) -> Vec<String> {
        let entries = files.pattern().unwrap().run;
        let id = |entry: &Entry| match entry {
            Entry::Command(command) => command.id.clone(),
            Entry::List(_) => "list".into(),
        };
        entries.iter().map(id).collect()
    }

    #[test]
    fn replaces_the_commands_of_an_earlier_issue_and_keeps_others() {
        let own = Command { id: "own".into(), always: true, ..Command::default() };
        let own = Pattern { run: vec![Entry::Command(Box::new(own))], ..Pattern::default() };
        let first = with_installation(Some(&(&own).into()), &release("one")).unwrap();
        assert_eq!(ids(&first), ["own", INSTALL, REBOOT]);
        let later = Release { build: 2, ..release("one") };
        let again = with_installation(Some(&first), &later).unwrap();
        assert_eq!(ids(&again), ["own", INSTALL, REBOOT]);
        assert_eq!(again, with_installation(Some(&(&own).into()), &later).unwrap());
        assert_eq!(ids(&with_installation(None, &later).unwrap()), [INSTALL, REBOOT]);
    }

    #[test]
    fn quotes_values_for_the_shell() {
        assert_eq!(quoted("a'b $(c) \\"), r"'a'\''b $(c) \'");
        let mut hostile = release("one");
        hostile.artifacts[0].url = "x'; touch /tmp/owned; '".into();
        let values = values(&hostile).unwrap();
        assert!(values.contains(r"kernel_url='x'\''; touch /tmp/owned; '\'''"), "{values}");
    }
}
