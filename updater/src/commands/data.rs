//! The command `data`, which a unit runs before Docker starts.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::context::{in_mount_namespace, log_problems};
use super::data_keys;
use super::output::print_or_warn;
use crate::cli::{self, Exit, Global};
use crate::clock::now;
use crate::config::{Ask, Data, Merged, Settings, load};
use crate::data::{self, Mounted};
use crate::esp::{Access, Esp, run_directory};
use crate::host::Host;
use crate::process::systemd_stdout;
use crate::record::{self, DataResult};

/// The file in the run directory because of which Docker does not start. The units of Docker have it in
/// `AssertPathExists=`.
const MISSING: &str = "data-missing";
/// How long after the boot a source that cannot be read, such as a metadata service, may ask for data.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(90);
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Mounts what the host keeps over reboots, or with `--stop` unmounts it.
///
/// Docker does not start if this command ends with an error, even if it is killed: then Docker would fill the
/// memory with what should be kept.
pub(super) fn data(global: &Global, arguments: &cli::Data) -> Result<Exit> {
    let host = Host::new(&global.host_root);
    if let Some(action) = arguments.keys {
        return data_keys::data_keys(global, &host, action);
    }
    if arguments.stop {
        data::unmount(&host);
        return Ok(Exit::Ok);
    }
    if data::is_mounted(&host) {
        return report(global, true, "the data partition is mounted already");
    }
    let mark = Mark::set(&host)?;
    let result = configured(&host, global).and_then(|settings| match settings {
        Some(settings) => Ok(Some(data::mount(&host, &settings)?)),
        None => Ok(None),
    });
    match result {
        Ok(None) => {
            record::remove::<DataResult>(&host);
            mark.remove()?;
            report(global, false, "nothing is kept over reboots: \"data\" is not configured")
        }
        Ok(Some(mounted)) => {
            mark.remove()?;
            let text = record_mounted(&host, &mounted);
            report(global, true, &text)
        }
        Err(error) => {
            let problems = vec![format!("{error:#}")];
            let result = DataResult {
                time: now(),
                mounted: false,
                device: None,
                file_system: None,
                encrypted: None,
                recovery_key: None,
                problems,
            };
            record::write(&host, &result);
            stop_docker_socket(&host);
            Err(error.context("the data partition is not mounted, so Docker does not start"))
        }
    }
}

/// Returns what is to be kept, or `None` if nothing is. Waits for sources that may still become readable.
pub(super) fn configured(host: &Host, global: &Global) -> Result<Option<Data>> {
    loop {
        let merged = in_mount_namespace(|| {
            let esp = Esp::open(host, global.esp.as_deref(), Access::Read)?;
            Ok(load(host, esp.as_ref(), &global.configs, Ask::Service)?)
        })?;
        let settings = Settings::try_from(&merged)?;
        let may_change = !merged.is_permanently_broken()
            && host.uptime().is_ok_and(|uptime| uptime < SOURCE_TIMEOUT);
        if settings.data.is_some() && merged.source_of_unknown_data().is_none() {
            log_problems(&merged);
            return Ok(settings.data);
        }
        if !may_change {
            log_problems(&merged);
            return without_data(&merged);
        }
        std::thread::sleep(RETRY_INTERVAL);
    }
}

fn without_data(merged: &Merged) -> Result<Option<Data>> {
    match merged.source_of_unknown_data() {
        Some(source) => {
            bail!("`data` from {source} cannot be read: correct this configuration, then reboot")
        }
        None => Ok(None),
    }
}

/// Records the mounted partition. Returns a line for the operator.
fn record_mounted(host: &Host, mounted: &Mounted) -> String {
    let Mounted { device, file_system, recovery_key, problems } = mounted;
    for problem in problems {
        log::error!("{problem}");
    }
    record::write(
        host,
        &DataResult {
            time: now(),
            mounted: true,
            device: Some(device.display().to_string()),
            file_system: Some(file_system.to_string()),
            encrypted: Some(recovery_key.is_some()),
            recovery_key: *recovery_key,
            problems: problems.clone(),
        },
    );
    format!("mounted {} ({file_system}) at {}", device.display(), data::MOUNT_POINT)
}

/// Stops the socket of Docker. A client that connects to it would start a service that does not start, until
/// the socket fails, and a failed unit makes the boot unhealthy.
fn stop_docker_socket(host: &Host) {
    if !host.is_running_host() {
        return;
    }
    let command = ["systemctl", "stop", "--no-block", "docker.socket"];
    if let Err(error) = systemd_stdout(&command, STOP_TIMEOUT) {
        log::debug!("cannot stop docker.socket: {error}");
    }
}

fn report(global: &Global, mounted: bool, text: &str) -> Result<Exit> {
    log::info!("{text}");
    print_or_warn(global, &json!({"mounted": mounted}), || text.to_owned());
    Ok(Exit::Ok)
}

/// The file because of which Docker does not start.
struct Mark(PathBuf);

impl Mark {
    fn set(host: &Host) -> Result<Self> {
        let path = run_directory(host)?.join(MISSING);
        fs::write(&path, "").with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self(path))
    }

    fn remove(self) -> Result<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.0.display()))
            }
            _ => Ok(()),
        }
    }
}
