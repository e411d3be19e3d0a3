//! Removes releases that no host needs any more.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use protocol::token::{TOKEN_MAX, decode_unverified};
use protocol::{Claims, Release, Target};
use serde_json::Value;

use super::layout::{build_of, release_directory};
use crate::destination::{Destination, Listed};
use crate::diff::escape;

/// The minimum age of the files of an interrupted upload that are removed. Another publisher, which may
/// not see the lock, could still be uploading younger ones.
const UPLOAD_MAX: Duration = Duration::from_secs(24 * 3600);

/// Which releases are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retention {
    /// The number of releases, including the one that is live.
    pub releases: usize,
    /// The number of months whose first release is kept as well.
    pub months: usize,
    /// The time for which a release is kept after another one has replaced it.
    pub after: Duration,
}

impl Retention {
    /// Returns the positions of the releases that are kept whatever their age: the newest ones, and the first
    /// releases of the newest months that are older than these. `builds` has the first build number of each
    /// release, the newest release first.
    fn chosen(self, builds: &[u64]) -> Vec<usize> {
        // A build number is a time, such as 20261123100000.
        let month = |build: u64| build / 100_000_000;
        let is_first_of_month = |index: &usize| {
            let build = builds[*index];
            !builds.iter().any(|other| *other < build && month(*other) == month(build))
        };
        let newest = self.releases.min(builds.len());
        let monthly = (newest..builds.len()).filter(is_first_of_month).take(self.months);
        (0..newest).chain(monthly).collect()
    }

    /// Returns the [chosen](Self::chosen) releases of manifests, the newest first. The manifests have their build
    /// numbers and are in the same order; several can be of the same release.
    pub(super) fn kept<T>(
        self,
        manifests: impl IntoIterator<Item = (T, u64)>,
        is_same: impl Fn(&T, &T) -> bool,
    ) -> Vec<T> {
        // Each release with the number of its first build.
        let mut releases: Vec<(T, u64)> = Vec::new();
        for (release, build) in manifests {
            match releases.iter_mut().find(|(known, _)| is_same(known, &release)) {
                Some((_, first)) => *first = build,
                None => releases.push((release, build)),
            }
        }
        let builds: Vec<u64> = releases.iter().map(|(_, first)| *first).collect();
        let chosen = self.chosen(&builds);
        let releases = releases.into_iter().enumerate();
        releases.filter(|(index, _)| chosen.contains(index)).map(|(_, (it, _))| it).collect()
    }
}

/// A manifest of the history. Its signature is not checked: a retired key may have made it.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    build: u64,
    /// The time of its publication.
    published: SystemTime,
    /// The directories of the files that it names.
    directories: BTreeSet<String>,
}

/// Removes what neither `retention` nor the release that is live keeps, and returns the paths. Nothing is
/// removed if a manifest cannot be read.
pub(super) fn clean(
    destination: &dyn Destination,
    live: &Release,
    retention: Retention,
    now: SystemTime,
) -> Result<Vec<String>> {
    let target = &live.target();
    let listed = destination.list(&target.to_string())?;
    let mut history = Vec::new();
    for file in &listed {
        if let Some(build) = build_of(target, &file.path) {
            history.push(entry(destination, build, file, target)?);
        }
    }
    // The live release need not have the highest number: a bridge keeps the number of its release.
    let live = directories(live, target);
    let mut obsolete = obsolete(&listed, history, target, retention, now);
    obsolete.retain(|path| {
        release_directory(target, path).is_none_or(|directory| !live.contains(directory))
    });
    for path in &obsolete {
        destination.remove(path)?;
    }
    Ok(obsolete)
}

fn entry(
    destination: &dyn Destination,
    build: u64,
    file: &Listed,
    target: &Target,
) -> Result<Entry> {
    let stored = destination.read(&file.path, TOKEN_MAX as u64);
    let stored = stored.context("nothing was removed")?;
    let stored = stored.with_context(|| format!("{} was removed meanwhile", file.path))?;
    let claims = claims(stored.bytes).map_err(|error| {
        anyhow!(
            "{} in {} is not a manifest: {}; nothing was removed; if no publisher needs this file, move \
             it away",
            file.path,
            destination.describe(),
            // Nobody has signed the text, which the error may quote.
            escape::plain(&format!("{error:#}"))
        )
    })?;
    let signed = claims.iat.and_then(|iat| UNIX_EPOCH.checked_add(Duration::from_secs(iat)));
    Ok(Entry {
        build,
        // The upload of the files, which takes place between the two times, can take hours.
        published: signed.map_or(file.modified, |signed| signed.max(file.modified)),
        directories: claims.etchaos_release.iter().flat_map(|it| directories(it, target)).collect(),
    })
}

/// Reads the claims of a manifest without a check of its signature.
fn claims(token: Vec<u8>) -> Result<Claims> {
    let token = decode_unverified(&String::from_utf8(token)?)?;
    let claims: Claims = serde_json::from_value(Value::Object(token.claims))?;
    ensure!(claims.etchaos_release.is_some(), "it names no release");
    Ok(claims)
}

/// Returns the directories of the files of a release.
fn directories(release: &Release, target: &Target) -> BTreeSet<String> {
    let directories = release.all_files().filter_map(|file| release_directory(target, file.url));
    directories.map(str::to_owned).collect()
}

/// Returns the files to remove: those of releases, and their manifests, that are not [`Retention::chosen`] and
/// were not replaced a short time ago; and those that no manifest names, if they are old.
fn obsolete(
    listed: &[Listed],
    mut history: Vec<Entry>,
    target: &Target,
    retention: Retention,
    now: SystemTime,
) -> Vec<String> {
    history.sort_by_key(|entry| std::cmp::Reverse(entry.build));
    let rule = Retention { releases: retention.releases.max(1), ..retention };
    let manifests = history.iter().map(|entry| (&entry.directories, entry.build));
    let chosen = rule.kept(manifests, |one, other| one == other);
    let mut kept: BTreeSet<&str> = chosen.into_iter().flatten().map(String::as_str).collect();
    // The newest entry is live, so nothing has replaced it.
    let mut replaced = now;
    for entry in &history {
        if is_younger(replaced, now, retention.after) {
            kept.extend(entry.directories.iter().map(String::as_str));
        }
        replaced = entry.published;
    }
    let named: BTreeSet<&str> =
        history.iter().flat_map(|entry| &entry.directories).map(String::as_str).collect();
    let is_obsolete = |file: &&Listed| match release_directory(target, &file.path) {
        Some(directory) if named.contains(directory) => !kept.contains(directory),
        Some(_) => !is_younger(file.modified, now, retention.after.max(UPLOAD_MAX)),
        None => build_of(target, &file.path).is_some_and(|build| {
            let entry = history.iter().find(|entry| entry.build == build);
            entry.is_some_and(|entry| {
                entry.directories.iter().all(|directory| !kept.contains(directory.as_str()))
            })
        }),
    };
    listed.iter().filter(is_obsolete).map(|file| file.path.clone()).collect()
}

/// Returns whether `time` is less than `age` before `now`. A time in the future is.
fn is_younger(time: SystemTime, now: SystemTime, age: Duration) -> bool {
    now.duration_since(time).is_ok_and(|passed| passed < age) || time > now
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::layout;

    const DAY: u64 = 24 * 3600;

    fn at(day: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(day * DAY)
    }

    fn target() -> Target {
        "deb_amd64".parse().unwrap()
    }

    /// Returns an entry of the history: a build, published on a day, with one directory.
    fn entry(build: u64, day: u64, name: &str) -> Entry {
        let directories = BTreeSet::from([format!("deb_amd64/{name}")]);
        Entry { build, published: at(day), directories }
    }

    /// Returns what is removed on `day` of the releases, each with one file and its manifest.
    fn removed(history: &[Entry], keep: usize, days: u64, day: u64) -> Vec<String> {
        let mut listed = Vec::new();
        for entry in history {
            let file = |path: String| Listed { path, size: 1, modified: entry.published };
            listed.push(file(layout::history_path(&target(), entry.build)));
            listed.extend(entry.directories.iter().map(|name| file(format!("{name}/x"))));
        }
        let after = Duration::from_secs(days * DAY);
        let retention = Retention { releases: keep, months: 0, after };
        let mut paths = obsolete(&listed, history.to_vec(), &target(), retention, at(day));
        paths.sort();
        paths.dedup();
        paths
    }

    #[test]
    fn keeps_the_newest_releases() {
        let history = [entry(1, 1, "a"), entry(2, 8, "b"), entry(3, 15, "c"), entry(4, 22, "d")];
        assert_eq!(
            removed(&history, 2, 0, 100),
            [
                "deb_amd64/a/x",
                "deb_amd64/b/x",
                "deb_amd64/history/1.jwt",
                "deb_amd64/history/2.jwt"
            ]
        );
        assert!(removed(&history, 9, 0, 100).is_empty());
        let all_but_live = removed(&history, 0, 0, 100);
        assert!(!all_but_live.iter().any(|path| path.contains("/d/") || path.contains("4.jwt")));
    }

    #[test]
    fn keeps_releases_that_were_live_a_short_time_ago() {
        let history = [entry(1, 1, "a"), entry(2, 8, "b"), entry(3, 15, "c")];
        // On day 17, "b" was replaced two days ago, and "a" nine days ago.
        assert!(removed(&history, 1, 10, 17).is_empty());
        assert_eq!(removed(&history, 1, 9, 17), ["deb_amd64/a/x", "deb_amd64/history/1.jwt"]);
        assert!(removed(&history, 1, 2, 17).contains(&"deb_amd64/b/x".to_owned()));
    }

    #[test]
    fn keeps_a_release_that_is_live_again() {
        // Build 3 withdraws build 2 in favor of the files of build 1; build 4 renews build 3.
        let history = [entry(1, 1, "a"), entry(2, 8, "b"), entry(3, 9, "a"), entry(4, 20, "a")];
        assert_eq!(removed(&history, 1, 0, 100), ["deb_amd64/b/x", "deb_amd64/history/2.jwt"]);
        assert!(removed(&history, 2, 0, 100).is_empty());
    }

    #[test]
    fn a_renewed_release_is_kept_no_longer_than_another() {
        // Build 2 renews build 1.
        let history = [entry(1, 1, "a"), entry(2, 8, "a"), entry(3, 9, "b")];
        assert_eq!(
            removed(&history, 1, 0, 100),
            ["deb_amd64/a/x", "deb_amd64/history/1.jwt", "deb_amd64/history/2.jwt"]
        );
    }

    #[test]
    fn chooses_the_newest_releases_and_the_first_ones_of_months_before() {
        let builds = [
            20_261_201, 20_261_124, 20_261_117, 20_261_103, 20_261_027, 20_261_006, 20_260_922,
            20_260_901,
        ];
        let builds = builds.map(|date| date * 1_000_000 + 101_500);
        let chosen = |releases, months| {
            Retention { releases, months, after: Duration::ZERO }.chosen(&builds)
        };
        assert_eq!(chosen(2, 2), [0, 1, 3, 5]);
        assert_eq!(chosen(4, 2), [0, 1, 2, 3, 5, 7]);
        assert_eq!(chosen(4, 9), [0, 1, 2, 3, 5, 7]);
        assert_eq!(chosen(4, 0), [0, 1, 2, 3]);
        assert_eq!(chosen(0, 1), [0]);
        assert_eq!(chosen(20, 2).len(), builds.len());
        assert!(Retention { releases: 4, months: 2, after: Duration::ZERO }.chosen(&[]).is_empty());
        // Whatever is chosen later is among what is chosen now.
        for live in 0..builds.len() - 1 {
            let rule = Retention { releases: 2, months: 2, after: Duration::ZERO };
            let older = &builds[live + 1..];
            let before: Vec<u64> = rule.chosen(older).into_iter().map(|it| older[it]).collect();
            let now = rule.chosen(&builds[live..]).into_iter().skip(1);
            let now: Vec<u64> = now.map(|it| builds[live + it]).collect();
            assert!(now.iter().all(|build| before.contains(build)), "{now:?} {before:?}");
        }
    }

    #[test]
    fn removes_only_old_files_that_no_manifest_names() {
        let upload = |path: &str, day| Listed { path: path.into(), size: 1, modified: at(day) };
        let listed = [
            upload("deb_amd64/interrupted/x", 1),
            upload("deb_amd64/current/x", 99),
            upload("etchaos_deb_amd64.jwt", 1),
            upload("ubu_amd64/other/x", 1),
            upload("deb_amd64/x/y/z", 1),
        ];
        let retention = Retention { releases: 1, months: 0, after: Duration::ZERO };
        let paths = obsolete(&listed, Vec::new(), &target(), retention, at(100) - UPLOAD_MAX / 2);
        assert_eq!(paths, ["deb_amd64/interrupted/x"]);
    }
}
