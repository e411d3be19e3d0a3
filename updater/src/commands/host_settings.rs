//! The command `host-settings`, which units run before and after the network is up.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::context::{in_mount_namespace, log_problems};
use super::output::print_or_warn;
use crate::cli::{Exit, Global, HostSettings as Arguments};
use crate::clock::now;
use crate::config::{Ask, Merged, Settings, load};
use crate::esp::{Access, Esp};
use crate::host::Host;
use crate::host_settings::{Applied, Changes, HostSettings, set_host_name, write_files};
use crate::process::{QUERY_TIMEOUT, systemd_stdout};
use crate::record;
use crate::timeout::run_with_timeout;

/// How long the start of the network waits for the disk. Without it, the settings of the other sources apply
/// until the second run.
const DISK_TIMEOUT: Duration = Duration::from_secs(30);
/// The timeout of a reload. systemd-networkd answers before it has configured the interfaces.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Applies the host name, the network interfaces and the time servers of the configuration. A source that is
/// broken does not count: without valid settings, the host keeps the files of its image, which use DHCP.
pub(super) fn host_settings(global: &Global, arguments: &Arguments) -> Result<Exit> {
    let host = Host::new(&global.host_root);
    let merged = match arguments.early {
        true => read_early(global, &host)?,
        false => in_mount_namespace(|| read(global, &host, true, Ask::Service))?,
    };
    log_problems(&merged);
    let settings = Settings::try_from(&merged)?.host;
    let result = apply(&host, &settings, arguments.early);
    let result = result.context("the host settings are not applied completely");
    let problem = result.as_ref().err().map(|error| format!("{error:#}"));
    record::write(&host, &Applied { time: now(), settings: settings.clone(), problem });
    report(global, &settings, result?);
    Ok(if merged.problems().is_empty() { Exit::Ok } else { Exit::BrokenConfig })
}

/// Reads the sources that need no network. If the disk does not appear in time, those without it.
fn read_early(global: &Global, host: &Host) -> Result<Merged> {
    for with_esp in [true, false] {
        let (global, host) = (global.clone(), host.clone());
        let read = move || read(&global, &host, with_esp, Ask::Cache);
        match run_with_timeout(DISK_TIMEOUT, read) {
            Some(Ok(merged)) => return Ok(merged),
            Some(Err(error)) if with_esp => log::error!("{error:#}"),
            Some(Err(error)) => return Err(error),
            None => log::error!(
                "the configuration could not be read within {} s",
                DISK_TIMEOUT.as_secs()
            ),
        }
        log::error!("the host settings on the disk do not apply until the network is up");
    }
    bail!("no source of the configuration can be read now")
}

/// Reads the configuration. This mounts the ESP: see [`in_mount_namespace`].
fn read(global: &Global, host: &Host, with_esp: bool, ask: Ask) -> Result<Merged> {
    let esp = match with_esp {
        true => Esp::open(host, global.esp.as_deref(), Access::Read)?,
        false => None,
    };
    Ok(load(host, esp.as_ref(), &global.configs, ask)?)
}

/// Applies the settings, and returns whether the host name and which files were changed.
fn apply(host: &Host, settings: &HostSettings, is_early: bool) -> Result<(bool, Changes)> {
    // Before the network, because DHCP sends it. A name that cannot be set does not take the network away.
    let hostname = set_host_name(host, settings);
    let changes = write_files(host, settings)?;
    if !is_early {
        reload(changes)?;
    }
    Ok((hostname?, changes))
}

/// Makes the daemons read what has changed.
fn reload(changes: Changes) -> Result<()> {
    if changes.network {
        // Configures the interfaces whose file has changed, and no others.
        systemd_stdout(&["networkctl", "reload"], RELOAD_TIMEOUT)?;
    }
    if changes.time {
        let restart = ["systemctl", "try-restart", "--no-block", "systemd-timesyncd.service"];
        systemd_stdout(&restart, QUERY_TIMEOUT)?;
    }
    Ok(())
}

fn report(global: &Global, settings: &HostSettings, (hostname, changes): (bool, Changes)) {
    let Changes { network, time } = changes;
    let json = json!({
        "settings": settings,
        "changed": {"hostname": hostname, "interfaces": network, "ntp": time},
    });
    let names = [(hostname, "host name"), (network, "network"), (time, "time servers")];
    let changed: Vec<&str> =
        names.into_iter().filter_map(|(changed, name)| changed.then_some(name)).collect();
    let text = match changed.is_empty() {
        true => "nothing has changed".to_owned(),
        false => format!("changed: {}", changed.join(", ")),
    };
    log::info!("{text}");
    print_or_warn(global, &json, || text.clone());
}
