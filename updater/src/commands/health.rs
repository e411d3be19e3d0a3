//! `health`

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::context::in_mount_namespace;
use super::output::print;
use crate::cli::{Exit, Global, Health as Arguments};
use crate::clock::now;
use crate::config::{ConfigError, Health, Settings, load};
use crate::esp::{Access, Esp};
use crate::health::{Complaint, ask, wait};
use crate::host::Host;
use crate::record::{self, HealthFound, HealthState};

/// The unit waits, and then a configuration that cannot be read counts as an empty one: an operator's
/// typing error must not undo an update.
pub(super) fn health(global: &Global, arguments: &Arguments) -> Result<Exit> {
    let host = Host::new(&global.host_root);
    let health = match in_mount_namespace(|| configured(global, &host)) {
        Err(error) if arguments.wait && error.is::<ConfigError>() => {
            log::error!("{error}; only systemd's view of the host's health counts");
            Health::default()
        }
        health => health?,
    };
    let running = host.running().context("cannot read the kernel command line")?;
    let note = |state, complaints: &[Complaint]| {
        let problems = lines(complaints);
        if let Some(slot) = running {
            record::write(&host, &HealthFound { time: now(), slot, state, problems });
        }
    };
    let found = match arguments.wait {
        true => {
            let left = || left(&host, health.deadline);
            wait(&health, left, |complaints| note(HealthState::Waiting, complaints))
        }
        false => ask(&health),
    };
    let healthy = found.is_ok();
    let complaints = found.err().unwrap_or_default();
    note(if healthy { HealthState::Healthy } else { HealthState::Unhealthy }, &complaints);
    let lines = lines(&complaints);
    for line in &lines {
        log::error!("not healthy: {line}");
    }
    print(global, &json!({"healthy": healthy, "complaints": lines}), || match healthy {
        true => format!("healthy: {}", asked(&health)),
        false => format!("not healthy:\n  {}", lines.join("\n  ")),
    })?;
    Ok(if healthy { Exit::Ok } else { Exit::Error })
}

fn lines(complaints: &[Complaint]) -> Vec<String> {
    complaints.iter().map(ToString::to_string).collect()
}

/// What the configuration says, from all its sources. This mounts: see [`in_mount_namespace`].
pub(super) fn configured(global: &Global, host: &Host) -> Result<Health> {
    let esp = Esp::open(host, global.esp.as_deref(), Access::Read)?;
    let merged = load(host, esp.as_ref(), &global.configs)?;
    Ok(Settings::try_from(&merged)?.health)
}

/// How long it is until a time after the boot. Where the kernel does not say, it has come.
pub(super) fn left(host: &Host, deadline: Duration) -> Duration {
    host.uptime().map_or(Duration::ZERO, |uptime| deadline.saturating_sub(uptime))
}

fn asked(health: &Health) -> String {
    match (health.units.len(), health.checks.len()) {
        (0, 0) => "no units and no checks are configured".into(),
        (units, checks) => format!("units active: {units}, checks passed: {checks}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    /// By hand, as root: `cargo test -p updater -- --ignored`. A check that looks for a mount would
    /// else look at those of the moment in which the configuration was read.
    #[test]
    #[ignore = "needs root"]
    fn checks_see_the_mounts_of_the_host() {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("proc/cmdline", "etchaos.slot=b etchaos.esp=ABCD-1234"),
            ("dev/disk/by-uuid/ABCD-1234", "no disk"),
        ] {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = directory.path().to_str().unwrap();
        let cli = crate::cli::Cli::parse_from(["x", "--host-root", root, "health"]);
        let namespace = || std::fs::read_link("/proc/thread-self/ns/mnt").unwrap();
        let before = namespace();
        let error = health(&cli.global, &Arguments { wait: false }).unwrap_err();
        // So far it came.
        assert!(error.to_string().contains("cannot mount"), "{error}");
        assert_eq!(namespace(), before);
    }
}
