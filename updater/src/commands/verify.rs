//! `verify`

use anyhow::Result;
use protocol::esp::Slot;
use serde_json::json;

use super::{Opened, answer, metrics_file};
use crate::cli::{Exit, Global};
use crate::clock::now;
use crate::host::Host;
use crate::host_status::slot;
use crate::plan::{Content, Slots};
use crate::progress::Progress;
use crate::record::{self, Checked};
use crate::slots::inspect_with;

pub(super) fn verify(global: &Global) -> Result<Exit> {
    let (opened, config) = Opened::to_look(global)?;
    let progress = Progress::for_terminal(global.json);
    let slots = inspect_with(opened.esp()?, &opened.settings.keys, &progress);
    drop(progress);
    let grubenv = opened.grubenv(&slots)?;
    let needed = [Some(grubenv.state.good), opened.booted.slot];
    let mut problems = problems(&slots, grubenv.problem.as_deref(), &needed);
    let text = text(&slots, &problems, config.as_deref());
    if let Some(why) = &config {
        log::error!("{why}");
        problems.push(why.clone());
    } else {
        remember(global, &opened, &slots);
    }
    let is_whole = problems.is_empty();
    let json = json!({
        "whole": is_whole,
        "slots": {"a": slot(&slots.a), "b": slot(&slots.b)},
        "problems": problems,
    });
    answer(global, &json, || text)?;
    Ok(if is_whole { Exit::Ok } else { Exit::Error })
}

/// For `status` and the metrics.
fn remember(global: &Global, opened: &Opened, slots: &Slots) {
    let whole = |slot| match slots.get(slot) {
        Content::Empty | Content::Partial { .. } => None,
        Content::Complete(_) => Some(true),
        Content::Damaged { .. } => Some(false),
    };
    let (a, b) = (whole(Slot::A), whole(Slot::B));
    record::write(&Host::new(&global.host_root), &Checked { time: now(), a, b });
    metrics_file::refresh(global, opened);
}

/// What is wrong, a line each. An empty slot is fine, unless it is one that the host needs.
fn problems(slots: &Slots, grubenv: Option<&str>, needed: &[Option<Slot>]) -> Vec<String> {
    let of_slot = |slot: Slot| match slots.get(slot) {
        Content::Damaged { problem, .. } => Some(format!("slot {slot} is damaged: {problem}")),
        Content::Empty | Content::Partial { .. } if needed.contains(&Some(slot)) => {
            Some(format!("slot {slot} has no release, and the host boots from it"))
        }
        Content::Empty | Content::Partial { .. } | Content::Complete(_) => None,
    };
    Slot::ALL.into_iter().filter_map(of_slot).chain(grubenv.map(str::to_owned)).collect()
}

fn text(slots: &Slots, problems: &[String], config: Option<&str>) -> String {
    let line = |slot: Slot| {
        let content = slots.get(slot);
        let word = match content {
            Content::Empty => "empty",
            Content::Complete(_) => "whole",
            Content::Partial { .. } => "partial",
            Content::Damaged { .. } => "damaged",
        };
        let release = content.release();
        let release = release.map(|r| format!("  {}  build {}", r.version, r.build));
        format!("slot {slot}  {word:7}{}", release.unwrap_or_default()).trim_end().to_owned()
    };
    let mut lines: Vec<String> = Slot::ALL.into_iter().map(line).collect();
    lines.extend_from_slice(problems);
    if !problems.is_empty() {
        lines.push("\"etchaos-updater update\" repairs what is damaged".to_owned());
    }
    lines.extend(config.map(str::to_owned));
    lines.join("\n")
}
