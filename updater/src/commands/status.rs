//! `status`

use anyhow::{Context, Result};
use protocol::Release;
use protocol::esp::Slot;
use serde_json::{Map, Value, json};

use super::{Opened, answer};
use crate::bootstate::{Grubenv, good_without_grubenv};
use crate::cli::{Exit, Global};
use crate::esp::Access;
use crate::host::Host;
use crate::plan::{Content, Slots};
use crate::slots::inspect;

pub(super) fn status(global: &Global) -> Result<Exit> {
    let opened = Opened::new(global, Access::Read)?;
    let esp = opened.esp()?;
    let slots = inspect(esp, &opened.settings.keys);
    let grubenv = Grubenv::read(esp, good_without_grubenv(opened.running, &slots));
    let host = Host::new(&global.host_root);
    let image = host.os_release("IMAGE_VERSION").context("cannot read /etc/os-release")?;
    let json = json!({
        "updaterVersion": env!("CARGO_PKG_VERSION"),
        "running": opened.running.map(|slot| running(slot, &slots, image)),
        "good": grubenv.state.good,
        "trial": grubenv.state.trial.map(|t| json!({"slot": t.slot, "tries": t.tries})),
        "grubenvProblem": grubenv.problem,
        "slots": {"a": slot(&slots.a), "b": slot(&slots.b)},
        "config": opened.merged.to_json(),
    });
    answer(global, &json, || table(&json))?;
    Ok(Exit::Ok)
}

/// What runs: by the slot's manifest, or by the image where that is gone.
fn running(slot: Slot, slots: &Slots, image: Option<String>) -> Value {
    let release = slots.get(slot).release();
    json!({
        "slot": slot,
        "version": release.map(|r| r.version.clone()).or(image),
        "build": release.map(|r| r.build),
        "kernel": release.map(|r| r.kernel.clone()),
    })
}

fn slot(content: &Content) -> Value {
    let (state, release, problem) = match content {
        Content::Empty => ("empty", None, None),
        Content::Complete(release) => ("complete", Some(release), None),
        Content::Partial { release, bytes } => {
            let size: u64 = release.boot_artifacts().map(|artifact| artifact.size).sum();
            let problem = format!("{bytes} of {size} bytes are there; the next update goes on");
            ("partial", Some(release), Some(problem))
        }
        Content::Damaged { release, problem } => {
            ("damaged", release.as_ref(), Some(problem.clone()))
        }
    };
    let mut shown = Map::from_iter([("state".to_owned(), json!(state))]);
    if let Some(Release { version, build, kernel, .. }) = release {
        shown.insert("version".into(), json!(version));
        shown.insert("build".into(), json!(build));
        shown.insert("kernel".into(), json!(kernel));
    }
    if let Some(problem) = problem {
        shown.insert("problem".into(), json!(problem));
    }
    Value::Object(shown)
}

fn table(status: &Value) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let mut lines = vec![format!("updater   {}", text(&status["updaterVersion"]))];
    let running = &status["running"];
    lines.push(match running {
        Value::Null => "running   not from this ESP".to_owned(),
        _ => format!("running   slot {}  {}", text(&running["slot"]), text(&running["version"])),
    });
    lines.push(format!("good      slot {}", text(&status["good"])));
    let trial = &status["trial"];
    lines.push(match trial {
        Value::Null => "trial     none".to_owned(),
        _ => format!("trial     slot {}, tries left: {}", text(&trial["slot"]), trial["tries"]),
    });
    if let Value::String(problem) = &status["grubenvProblem"] {
        lines.push(format!("grubenv   {problem}; the next update or confirm makes it anew"));
    }
    for name in ["a", "b"] {
        let slot = &status["slots"][name];
        let mut line = format!("slot {name}    {:8}", text(&slot["state"]));
        if !slot["version"].is_null() {
            line.push_str(&format!("  {}  build {}", text(&slot["version"]), slot["build"]));
        }
        if let Value::String(problem) = &slot["problem"] {
            line.push_str(&format!("  {problem}"));
        }
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}
