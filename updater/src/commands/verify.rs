//! The command `verify`.

use anyhow::Result;
use protocol::esp::Slot;
use serde_json::json;

use super::context::Context;
use super::metrics_file;
use super::output::print;
use crate::cli::{Exit, Global};
use crate::clock::now;
use crate::esp::Access;
use crate::host::Host;
use crate::host_status::slot;
use crate::progress::Progress;
use crate::record::{self, Checked};
use crate::slot_content::{Content, Slots};
use crate::slots::inspect_with;

pub(super) fn verify(global: &Global) -> Result<Exit> {
    let context = Context::new(global, Access::Read)?;
    let config_problem = context.config_problem();
    let progress = Progress::for_terminal(global.json);
    let slots = inspect_with(context.esp()?, &context.settings.keys, &progress);
    drop(progress);
    let grubenv = context.grubenv()?;
    let needed = [Some(grubenv.state.good), context.booted.slot];
    let mut problems = problems(&slots, grubenv.problem.as_deref(), &needed);
    let text = text(&slots, &problems, config_problem.as_deref());
    if let Some(problem) = &config_problem {
        // A key may be missing, so the result is not certain.
        problems.push(problem.clone());
    } else {
        record_result(global, &context, &slots);
    }
    let is_ok = problems.is_empty();
    let json = json!({
        "whole": is_ok,
        "slots": {"a": slot(&slots.a), "b": slot(&slots.b)},
        "problems": problems,
    });
    print(global, &json, || text)?;
    Ok(if is_ok { Exit::Ok } else { Exit::Error })
}

/// Records the result for `status` and the metrics.
fn record_result(global: &Global, context: &Context, slots: &Slots) {
    let is_complete = |slot| match slots.get(slot) {
        Content::Empty | Content::Partial { .. } => None,
        Content::Complete(_) => Some(true),
        Content::Damaged { .. } => Some(false),
    };
    let (a, b) = (is_complete(Slot::A), is_complete(Slot::B));
    record::write(&Host::new(&global.host_root), &Checked { time: now(), a, b });
    metrics_file::refresh(global, context);
}

/// Returns the problems, one line for each. An empty slot is a problem only if the host needs it.
fn problems(slots: &Slots, grubenv: Option<&str>, needed: &[Option<Slot>]) -> Vec<String> {
    let of_slot = |slot: Slot| match slots.get(slot) {
        Content::Damaged { problem, .. } => Some(format!("slot {slot} is damaged: {problem}")),
        Content::Empty | Content::Partial { .. } if needed.contains(&Some(slot)) => {
            Some(format!("slot {slot} has no release, but the host boots from it"))
        }
        Content::Empty | Content::Partial { .. } | Content::Complete(_) => None,
    };
    Slot::ALL.into_iter().filter_map(of_slot).chain(grubenv.map(str::to_owned)).collect()
}

fn text(slots: &Slots, problems: &[String], config_problem: Option<&str>) -> String {
    let line = |slot: Slot| {
        let content = slots.get(slot);
        let state = match content {
            Content::Empty => "empty",
            Content::Complete(_) => "complete",
            Content::Partial { .. } => "partial",
            Content::Damaged { .. } => "damaged",
        };
        let release = content.release();
        let release = release.map(|r| format!("  {}  build {}", r.version, r.build));
        format!("slot {slot}  {state:8}{}", release.unwrap_or_default()).trim_end().to_owned()
    };
    let mut lines: Vec<String> = Slot::ALL.into_iter().map(line).collect();
    lines.extend_from_slice(problems);
    if !problems.is_empty() {
        lines.push("run \"etchaos-updater update\" to repair the damage".to_owned());
    }
    lines.extend(config_problem.map(str::to_owned));
    lines.join("\n")
}
