//! `data unlock` and `data recovery-key`: the keys of an encrypted data partition.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::data::configured;
use super::output::print_or_warn;
use crate::cli::{DataKeys, Exit, Global};
use crate::config::Data;
use crate::data::{self, Key, NO_RECOVERY_KEY};
use crate::host::Host;
use crate::process::systemd_stdout;
use crate::record::{self, DataResult};

/// How long the unit that mounts the partition may take. It may check a file system.
const MOUNT_TIMEOUT: Duration = Duration::from_secs(2 * 3600);
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Does something with the keys of the data partition. The key that it needs is read from standard input, so that
/// it is neither in the list of processes nor in the history of a shell.
pub(super) fn data_keys(global: &Global, host: &Host, action: DataKeys) -> Result<Exit> {
    let settings = configured(host, global)?;
    let settings = settings.context("\"data\" is not configured, so there is no data partition")?;
    let key = Key::from_stdin()?;
    match action {
        DataKeys::Unlock => unlock(global, host, &settings, &key),
        DataKeys::RecoveryKey => set_recovery_key(global, host, &settings, &key),
    }
}

fn unlock(global: &Global, host: &Host, settings: &Data, key: &Key) -> Result<Exit> {
    let mut problems: Vec<String> = data::unlock(host, settings, key)?.into_iter().collect();
    if host.is_running_host()
        && let Err(error) = mount(host)
    {
        problems.push(format!("{error:#}"));
    }
    problems.iter().for_each(|problem| log::error!("{problem}"));
    print_or_warn(global, &json!({"unlocked": true, "problems": &problems}), || {
        let lines = ["the data partition is unlocked".to_owned()];
        lines.iter().chain(&problems).cloned().collect::<Vec<_>>().join("\n")
    });
    Ok(if problems.is_empty() { Exit::Ok } else { Exit::Error })
}

/// Lets the unit mount the partition, in the mount namespace that all programs share, and starts Docker.
fn mount(host: &Host) -> Result<()> {
    if !record::read::<DataResult>(host).is_some_and(|result| result.mounted) {
        systemd_stdout(&["systemctl", "restart", "etchaos-data.service"], MOUNT_TIMEOUT)?;
    }
    match record::read::<DataResult>(host) {
        Some(DataResult { mounted: true, .. }) => {}
        result => bail!(
            "the data partition is not mounted: {}",
            result.map_or("see its unit".to_owned(), |result| result.problems.join("; "))
        ),
    }
    let start = ["systemctl", "start", "--no-block", "docker.socket", "docker.service"];
    systemd_stdout(&start, START_TIMEOUT).context("cannot start Docker")?;
    Ok(())
}

fn set_recovery_key(global: &Global, host: &Host, settings: &Data, key: &Key) -> Result<Exit> {
    data::set_recovery_key(host, settings, key)?;
    if let Some(mut result) = record::read::<DataResult>(host).filter(|result| result.mounted) {
        result.recovery_key = Some(true);
        result.problems.retain(|problem| problem != NO_RECOVERY_KEY);
        record::write(host, &result);
    }
    let text = "the data partition has this recovery key";
    log::info!("the data partition has a new recovery key");
    print_or_warn(global, &json!({"recoveryKey": true}), || text.to_owned());
    Ok(Exit::Ok)
}
