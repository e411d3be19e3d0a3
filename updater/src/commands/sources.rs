//! The command `sources`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::context::{Context, in_mount_namespace};
use super::output::print_or_warn;
use crate::cdn::{Cdn, Timeouts};
use crate::cli::{Exit, Global, Sources};
use crate::clock::now;
use crate::config::Settings;
use crate::esp::Access;
use crate::host::Host;
use crate::schedule::Timer;
use crate::sources::{Puller, RunState, Runner, Selection, SourceRuns, Store, wait_for_turn};

/// Starts the unit that pulls, which then starts the unit that runs `sources`.
const NEXT: Timer = Timer {
    name: "etchaos-sources-again",
    description: "Run the sources of EtchaOS when it is time",
    unit: "etchaos-pull.service",
};
/// The time after which the configuration is read again, if a source of it may appear.
const CONFIG_INTERVAL: u64 = 60;
/// The longest random delay of the next run. The hosts of a fleet must not poll at the same time.
const SPREAD_MAX: u64 = 300;

/// What is known of the configuration.
struct Known {
    settings: Settings,
    is_complete: bool,
    may_change: bool,
}

pub(super) fn sources(global: &Global, arguments: &Sources) -> Result<Exit> {
    let host = Host::new(&global.host_root);
    let known = in_mount_namespace(|| {
        let context = Context::new(global, Access::Read)?;
        let is_complete = context.config_problem().is_none();
        let may_change = !context.merged.is_permanently_broken();
        Ok(Known { settings: context.settings, is_complete, may_change })
    })?;
    if arguments.pull {
        return pull_all(global, &host, &known.settings, arguments.all);
    }
    let turn = wait_for_turn(&host).context("cannot run the sources")?;
    let selection = Selection { all: arguments.all, is_complete: known.is_complete };
    let runs =
        Runner::new(&host, global.esp.as_deref(), known.settings.sources).run(&turn, selection);
    drop(turn);
    schedule(&runs, known.may_change);
    print_or_warn(global, &json!({"sources": runs.to_json(None)}), || text(&runs));
    let has_failed = runs.sources.values().any(|run| run.state == RunState::Failed);
    Ok(match runs.sources.is_empty() {
        true => Exit::NothingDone,
        false if has_failed => Exit::Error,
        false => Exit::Ok,
    })
}

/// Only pulls the Patterns, and runs nothing.
fn pull_all(global: &Global, host: &Host, settings: &Settings, all: bool) -> Result<Exit> {
    if settings.sources.values().all(|source| source.pull.is_empty()) {
        print_or_warn(global, &json!({"pulls": {}}), || "no source is pulled".to_owned());
        return Ok(Exit::NothingDone);
    }
    let timeouts = Timeouts::default().with_max_pause(global.longest_pause());
    let cdn = Cdn::new(&settings.network, &settings.allowed_origins, timeouts)?;
    let kept = Store::new(host, global.esp.as_deref()).load();
    let pulls = Puller::new(host, &cdn, now()).pull(&settings.sources, &kept, all);
    let lines = pulls
        .iter()
        .map(|(name, pull)| format!("{name}: {}", pull.error.as_deref().unwrap_or("no error")));
    print_or_warn(global, &json!({"pulls": &pulls}), || lines.collect::<Vec<_>>().join("\n"));
    let has_failed = pulls.values().any(|pull| pull.error.is_some());
    Ok(if has_failed { Exit::Error } else { Exit::Ok })
}

/// Schedules the next run. Without it, the unit's own timer starts it within an hour.
fn schedule(runs: &SourceRuns, may_change: bool) {
    let now = now();
    let again = may_change.then_some(now + CONFIG_INTERVAL);
    let Some(next) = runs.sources.values().map(|run| run.next).chain(again).min() else { return };
    let next = next.max(now + 1);
    let spread = Duration::from_secs(((next - now) / 10).min(SPREAD_MAX));
    if let Err(error) = NEXT.set(next, spread) {
        log::warn!("the next run of the sources is not scheduled: {error}");
    }
}

fn text(runs: &SourceRuns) -> String {
    let now = now();
    let lines =
        runs.sources.iter().map(|(name, run)| format!("{name}: {}", run.text(now).join("; ")));
    match runs.sources.is_empty() {
        true => "no source has a Pattern or Commands".to_owned(),
        false => lines.collect::<Vec<_>>().join("\n"),
    }
}
