//! The commands `check` and `update`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use protocol::{Release, date};
use serde_json::{Value, json};

use super::context::Context;
use super::metrics_file;
use super::output::{print, print_or_warn};
use super::poll_result::PollResult;
use super::report::{self, step_name};
use crate::cli::{Exit, Global, Update as Arguments};
use crate::clock::now;
use crate::esp::Access;
use crate::host::Host;
use crate::install::Source;
use crate::interrupt;
use crate::plan::{Permissions, Step};
use crate::progress::Progress;
use crate::reboot::{self, Decision};
use crate::record::{self, Failure, Waiting};
use crate::update::{Request, Update, describe, release_awaiting_reboot};

/// An update does not wait for another writer.
const WRITE: Access = Access::Write { wait: Duration::ZERO };

/// Reports the next step of an update.
pub(super) fn check(global: &Global) -> Result<Exit> {
    let allow = Permissions::default();
    let mut context = Context::new(global, Access::Read)?;
    let poll = PollResult::fetch(global, &mut context, allow)?;
    context.reopen(global, Access::Read)?;
    let update = Update::decide(request(&context, &poll, allow)?);
    record_poll(global, &update, &poll);
    metrics_file::refresh(global, &context);
    update.reject_downgrade()?;
    print(global, &report::json(&update), || report::text(&update))?;
    record_broken_config(global, &context, "check");
    Ok(context.exit(match update.step {
        Step::UpToDate => Exit::Ok,
        Step::Unconfirmed { .. } | Step::FailedBefore => Exit::NothingDone,
        _ => Exit::ActionOutstanding,
    }))
}

/// Updates the host.
pub(super) fn update(global: &Global, arguments: &Arguments) -> Result<Exit> {
    let allow =
        Permissions { downgrade: arguments.allow_downgrade, retry_failed: arguments.retry_failed };
    let mut context = Context::new(global, Access::Read)?;
    // An invalid reboot window has to be reported before anything is installed.
    decide_reboot(global, &context, arguments)?;
    let poll = match PollResult::fetch(global, &mut context, allow) {
        Ok(poll) => poll,
        Err(error) => {
            // Booting an installed release does not depend on the CDN.
            if !arguments.dry_run {
                reboot_if_pending(global, arguments, &mut context)
                    .unwrap_or_else(|error| log::error!("{error:#}"));
            }
            return Err(error);
        }
    };
    context.reopen(global, Access::Read)?;
    if arguments.dry_run {
        let exit = dry_run(global, &Update::decide(request(&context, &poll, allow)?))?;
        return Ok(context.exit(exit));
    }
    // A decision that leads to a write must be made under the write lock, because another updater may
    // change the disk until then. Hashing both slots takes seconds, so a preview without hashing decides
    // whether to take the lock first. The slots are hashed again under the lock only if hashing finds
    // damage that the preview could not see.
    let preview = Update::preview(request(&context, &poll, allow)?);
    let is_locked = preview.writes();
    if is_locked {
        record_poll(global, &preview, &poll);
        context.reopen(global, WRITE)?;
    }
    let mut update = Update::decide(request(&context, &poll, allow)?);
    record_poll(global, &update, &poll);
    update.reject_downgrade()?;
    if update.writes() && !is_locked {
        context.reopen(global, WRITE)?;
        update = Update::decide(request(&context, &poll, allow)?);
    }
    report::log(&update);
    // Nothing has been written so far, so a signal could end the process at any moment.
    interrupt::catch().context("cannot catch signals")?;
    let progress = Progress::for_update(global.json, &Host::new(&global.host_root));
    let wants_reboot = update.carry_out(&progress)?;
    let decision = wants_reboot.then(|| decide_reboot(global, &context, arguments)).transpose()?;
    let (done, exit) = (report::done(&update), context.exit(exit(&update.step)));
    let next_boot = update.next_boot().clone();
    let json = result(&update, decision == Some(Decision::Now));
    record_broken_config(global, &context, "update");
    metrics_file::refresh(global, &context);
    let reason_to_wait = schedule_reboot(global, decision.as_ref())?;
    // A write error on standard output must not prevent the reboot.
    print_or_warn(global, &json, || match &reason_to_wait {
        Some(reason) => format!("{done}\n{reason}"),
        None => done,
    });
    reboot_now(&mut context, decision.as_ref(), &next_boot)?;
    Ok(exit)
}

/// Reports what [`update`] would do. Returns its exit code.
fn dry_run(global: &Global, update: &Update<'_>) -> Result<Exit> {
    update.reject_downgrade()?;
    update.check_space()?;
    let mut json = result(update, false);
    json["dryRun"] = json!(true);
    print(global, &json, || format!("dry run: {}", report::text(update)))?;
    Ok(exit(&update.step))
}

fn result(update: &Update<'_>, reboot: bool) -> Value {
    let mut json = report::json(update);
    json["event"] = json!("result");
    json["reboot"] = json!(reboot);
    json
}

fn exit(step: &Step) -> Exit {
    match step {
        Step::Unconfirmed { .. } | Step::FailedBefore => Exit::NothingDone,
        _ => Exit::Ok,
    }
}

fn request<'a>(
    context: &'a Context,
    poll: &'a PollResult,
    allow: Permissions,
) -> Result<Request<'a>> {
    let settings = &context.settings;
    Ok(Request {
        esp: context.esp()?,
        booted: context.booted,
        source: Source {
            candidate: &poll.candidate,
            cdn: &poll.cdn,
            allowed_origins: &settings.allowed_origins,
            keys: &settings.keys,
            host: &poll.host,
            retry_failed: allow.retry_failed,
        },
        allow,
    })
}

/// Records the poll for `status`.
fn record_poll(global: &Global, update: &Update<'_>, poll: &PollResult) {
    let release = update.candidate();
    let record = record::Poll {
        time: now(),
        outcome: step_name(&update.step).to_owned(),
        version: release.version.clone(),
        build: release.build,
        cdn: poll.candidate.base().to_owned(),
    };
    record::write(&Host::new(&global.host_root), &record);
}

/// Records for `status` that a source of the configuration is broken, although the command succeeded.
fn record_broken_config(global: &Global, context: &Context, command: &str) {
    if let Some(problem) = context.config_problem() {
        record::write(&Host::new(&global.host_root), &Failure::new(now(), command, &problem));
    }
}

/// Records for `status` why the reboot has to wait, or removes that record.
fn record_waiting(global: &Global, decision: Option<&Decision>) {
    let host = Host::new(&global.host_root);
    let (reason, next) = match decision {
        None | Some(Decision::Now) => return record::remove::<Waiting>(&host),
        Some(Decision::Never { reason }) => (reason.clone(), None),
        Some(Decision::Later { reason, retry }) => (reason.clone(), Some(retry.at)),
    };
    record::write(&host, &Waiting { time: now(), reason, next });
}

/// Decides when to reboot into the slot on trial.
fn decide_reboot(global: &Global, context: &Context, arguments: &Arguments) -> Result<Decision> {
    let never = |reason: &str| Ok(Decision::Never { reason: reason.to_owned() });
    if context.booted.slot.is_none() {
        return never("this system was not booted from this ESP, so it is not rebooted");
    }
    if arguments.no_reboot {
        return never("--no-reboot was given");
    }
    if let Some(reason) = context.merged.reason_not_to_reboot() {
        return never(&reason);
    }
    let policy = &context.settings.reboot;
    let facts = reboot::Facts::collect(policy, &Host::new(&global.host_root), now())?;
    Ok(reboot::decide(policy, &facts))
}

/// Schedules the next attempt if the reboot has to wait. Returns why the host is not rebooted now.
fn schedule_reboot(global: &Global, decision: Option<&Decision>) -> Result<Option<String>> {
    record_waiting(global, decision);
    Ok(match decision {
        None | Some(Decision::Now) => None,
        Some(Decision::Never { reason }) => {
            Some(format!("the host has to be rebooted by hand: {reason}"))
        }
        Some(Decision::Later { reason, retry }) => {
            reboot::schedule(*retry)
                .context("the release is installed, but its reboot could not be scheduled")?;
            let again = date::format_utc(retry.at);
            Some(format!("the reboot has to wait: {reason}; the next attempt is at {again}"))
        }
    })
}

/// Reboots for a release that an earlier update installed.
fn reboot_if_pending(global: &Global, arguments: &Arguments, context: &mut Context) -> Result<()> {
    context.reopen(global, Access::Read)?;
    let release = release_awaiting_reboot(context.esp()?, context.booted, &context.settings.keys);
    let Some(release) = release else { return Ok(()) };
    let decision = decide_reboot(global, context, arguments)?;
    if let Some(reason) = schedule_reboot(global, Some(&decision))? {
        log::info!("{} is installed; {reason}", describe(&release));
    }
    reboot_now(context, Some(&decision), &release)
}

fn reboot_now(context: &mut Context, decision: Option<&Decision>, release: &Release) -> Result<()> {
    // The ESP is unmounted here, so that the reboot cannot leave it dirty.
    context.close();
    if decision != Some(&Decision::Now) {
        return Ok(());
    }
    log::info!(version = release.version.as_str(); "rebooting into {} as configured", describe(release));
    reboot::reboot(&context.settings.reboot)
        .context("the update is recorded, but the reboot failed: reboot by hand")
}
