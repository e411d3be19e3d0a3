//! `check` and `update`

use std::time::Duration;

use anyhow::{Context, Result};
use protocol::{Release, date};
use serde_json::{Value, json};

use super::offer::Offer;
use super::report::{self, step_name};
use super::{Opened, answer, metrics_file, tell};
use crate::cli::{Exit, Global, Update as Arguments};
use crate::clock::now;
use crate::esp::Access;
use crate::host::Host;
use crate::install::Source;
use crate::interrupt;
use crate::plan::{Permissions, Step};
use crate::progress::Progress;
use crate::reboot::{self, Decision};
use crate::record::{self, Waiting};
use crate::update::{Request, Update, named, outstanding};

pub(super) fn check(global: &Global) -> Result<Exit> {
    let allow = Permissions::default();
    let mut opened = Opened::new(global, Access::Read)?;
    let offer = Offer::get(global, &mut opened, allow)?;
    opened.reopen(global, Access::Read)?;
    let update = Update::decide(request(&opened, &offer, allow)?);
    record_poll(global, &update, &offer);
    metrics_file::refresh(global, &opened);
    update.refuse_downgrade()?;
    answer(global, &report::json(&update), || report::text(&update))?;
    Ok(match update.step {
        Step::UpToDate => Exit::Ok,
        Step::Unconfirmed { .. } | Step::FailedBefore => Exit::NotNow,
        _ => Exit::Available,
    })
}

pub(super) fn update(global: &Global, arguments: &Arguments) -> Result<Exit> {
    let allow =
        Permissions { downgrade: arguments.allow_downgrade, retry_failed: arguments.retry_failed };
    let mut opened = Opened::new(global, Access::Read)?;
    // A window that systemd cannot read is better told before anything is installed.
    decide_reboot(&opened, arguments)?;
    let offer = match Offer::get(global, &mut opened, allow) {
        Ok(offer) => offer,
        Err(error) => {
            // What was installed before does not wait for the CDN.
            if !arguments.dry_run {
                reboot_if_outstanding(global, arguments, &mut opened)
                    .unwrap_or_else(|error| log::error!("{error:#}"));
            }
            return Err(error);
        }
    };
    opened.reopen(global, Access::Read)?;
    let mut update = Update::decide(request(&opened, &offer, allow)?);
    if arguments.dry_run {
        return dry_run(global, &update);
    }
    record_poll(global, &update, &offer);
    update.refuse_downgrade()?;
    if update.writes() {
        opened.reopen(global, Access::Write { wait: Duration::ZERO })?;
        // By what it is now.
        update = Update::decide(request(&opened, &offer, allow)?);
    }
    report::log(&update);
    // What came before may end at any moment.
    interrupt::catch().context("cannot catch signals")?;
    let progress = Progress::for_update(global.json, &Host::new(&global.host_root));
    let wants_reboot = update.carry_out(&progress)?;
    let decision = wants_reboot.then(|| decide_reboot(&opened, arguments)).transpose()?;
    let (done, exit) = (report::done(&update), exit(&update.step));
    let next_boot = update.next_boot().clone();
    let json = result(&update, decision == Some(Decision::Now));
    metrics_file::refresh(global, &opened);
    let why_not = arrange(global, decision.as_ref())?;
    // What was put on trial is booted whether anybody reads this or not.
    tell(global, &json, || match &why_not {
        Some(why) => format!("{done}\n{why}"),
        None => done,
    });
    reboot_now(&mut opened, decision.as_ref(), &next_boot)?;
    Ok(exit)
}

/// What [`update`] would do, and how it would end.
fn dry_run(global: &Global, update: &Update<'_>) -> Result<Exit> {
    update.refuse_downgrade()?;
    update.check_space()?;
    let mut json = result(update, false);
    json["dryRun"] = json!(true);
    answer(global, &json, || format!("dry run: {}", report::text(update)))?;
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
        Step::Unconfirmed { .. } | Step::FailedBefore => Exit::NotNow,
        _ => Exit::Ok,
    }
}

fn request<'a>(opened: &'a Opened, offer: &'a Offer, allow: Permissions) -> Result<Request<'a>> {
    let settings = &opened.settings;
    Ok(Request {
        esp: opened.esp()?,
        booted: opened.booted,
        source: Source {
            candidate: &offer.candidate,
            cdn: &offer.cdn,
            allowed_origins: &settings.allowed_origins,
            keys: &settings.keys,
        },
        allow,
    })
}

/// For `status`.
fn record_poll(global: &Global, update: &Update<'_>, offer: &Offer) {
    let release = update.candidate();
    let poll = record::Poll {
        time: now(),
        outcome: step_name(&update.step).to_owned(),
        version: release.version.clone(),
        build: release.build,
        cdn: offer.candidate.base().to_owned(),
    };
    record::write(&Host::new(&global.host_root), &poll);
}

/// For `status`: what the reboot waits for, if it does.
fn record_waiting(global: &Global, decision: Option<&Decision>) {
    let host = Host::new(&global.host_root);
    let (why, next) = match decision {
        None | Some(Decision::Now) => return record::remove::<Waiting>(&host),
        Some(Decision::Never { why }) => (why.clone(), None),
        Some(Decision::Later { why, retry }) => (why.clone(), Some(retry.at)),
    };
    record::write(&host, &Waiting { time: now(), why, next });
}

/// What becomes of the reboot that a trial needs.
fn decide_reboot(opened: &Opened, arguments: &Arguments) -> Result<Decision> {
    let never = |why: &str| Ok(Decision::Never { why: why.to_owned() });
    if opened.booted.slot.is_none() {
        return never("this system does not run from this ESP, so it is not rebooted");
    }
    if arguments.no_reboot {
        return never("--no-reboot was given");
    }
    let policy = &opened.settings.reboot;
    let facts = reboot::Facts::collect(policy, now())?;
    Ok(reboot::decide(policy, &facts))
}

/// Has it decided again later, if it has to wait. Says why it is not now.
fn arrange(global: &Global, decision: Option<&Decision>) -> Result<Option<String>> {
    record_waiting(global, decision);
    Ok(match decision {
        None | Some(Decision::Now) => None,
        Some(Decision::Never { why }) => Some(format!("reboot for it: {why}")),
        Some(Decision::Later { why, retry }) => {
            reboot::schedule(*retry)
                .context("everything is written, and its reboot could not be arranged")?;
            let again = date::format_utc(retry.at);
            Some(format!("the reboot has to wait: {why}; it is decided again at {again}"))
        }
    })
}

/// The reboot of an update before this one, which had to wait.
fn reboot_if_outstanding(
    global: &Global,
    arguments: &Arguments,
    opened: &mut Opened,
) -> Result<()> {
    opened.reopen(global, Access::Read)?;
    let release = outstanding(opened.esp()?, opened.booted, &opened.settings.keys);
    let Some(release) = release else { return Ok(()) };
    let decision = decide_reboot(opened, arguments)?;
    if let Some(why) = arrange(global, Some(&decision))? {
        log::info!("{} is installed; {why}", named(&release));
    }
    reboot_now(opened, Some(&decision), &release)
}

fn reboot_now(opened: &mut Opened, decision: Option<&Decision>, release: &Release) -> Result<()> {
    // Unmounted before the reboot, not by it.
    opened.close();
    if decision != Some(&Decision::Now) {
        return Ok(());
    }
    log::info!(version = release.version.as_str(); "rebooting into {} as configured", named(release));
    reboot::reboot(&opened.settings.reboot)
        .context("everything is written, and the reboot failed: reboot by hand")
}
