//! The command `health`.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use super::context::{in_mount_namespace, log_problems};
use super::output::print;
use crate::cli::{Exit, Global, Health as Arguments};
use crate::clock::now;
use crate::config::{Ask, ConfigError, HealthPolicy, Settings, load};
use crate::esp::{Access, Esp};
use crate::health_check::{Problem, check_once, wait};
use crate::host::Host;
use crate::record::{self, HealthResult, HealthState};

/// The time after the start of the kernel in which a disk or a metadata service appears, if it does.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(3 * 60);
/// The time between two attempts to read the configuration.
const SOURCE_INTERVAL: Duration = Duration::from_secs(5);

/// Checks the health of the host, and with `--wait` until it is healthy or the deadline has passed.
///
/// A broken source of the configuration does not count as an unhealthy host: a typing error of the operator
/// must not undo an update. The units and checks of the other sources count.
pub(super) fn health(global: &Global, arguments: &Arguments) -> Result<Exit> {
    let host = Host::new(&global.host_root);
    let (health, problem) = match read_config_patiently(global, &host, arguments.wait) {
        // Only files of --config end the command.
        Err(error) if arguments.wait && error.is::<ConfigError>() => {
            log::error!("{error}; health.units and health.checks are not checked");
            (HealthPolicy::default(), None)
        }
        config => config.map(|config| (config.health, config.problem))?,
    };
    let running = host.running().context("cannot read the kernel command line")?;
    let record = |state, problems: &[Problem]| {
        let problems = lines(problems);
        if let Some(slot) = running {
            record::write(&host, &HealthResult { time: now(), slot, state, problems });
        }
    };
    let problems = match arguments.wait {
        true => {
            let time_left = || time_left(&host, health.deadline);
            wait(&host, &health, time_left, |problems| record(HealthState::Waiting, problems))
        }
        false => check_once(&host, &health),
    };
    let healthy = problems.is_empty();
    record(if healthy { HealthState::Healthy } else { HealthState::Unhealthy }, &problems);
    let lines = lines(&problems);
    for line in &lines {
        log::error!("not healthy: {line}");
    }
    print(global, &json!({"healthy": healthy, "problems": lines}), || match healthy {
        true => format!("healthy: {}", summary(&health)),
        false => format!("not healthy:\n  {}", lines.join("\n  ")),
    })?;
    Ok(match problem {
        _ if !healthy => Exit::Error,
        // With --wait, any other code than 0 would undo an update.
        Some(_) if !arguments.wait => Exit::BrokenConfig,
        _ => Exit::Ok,
    })
}

fn lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// The health section of the configuration.
pub(super) struct HealthConfig {
    pub(super) health: HealthPolicy,
    /// The first error of a broken source.
    problem: Option<String>,
    /// Whether a source could not be read for a reason that may pass.
    may_change: bool,
}

/// Reads the health section of the configuration, with `wait` again for as long as a source cannot be read
/// and the host may still be starting: the source may have the checks that decide about the release.
fn read_config_patiently(global: &Global, host: &Host, wait: bool) -> Result<HealthConfig> {
    loop {
        let config = in_mount_namespace(|| read_config(global, host, Ask::Service))?;
        let patience = SOURCE_TIMEOUT.min(config.health.deadline / 2);
        if !wait || !config.may_change || time_left(host, patience).is_zero() {
            return Ok(config);
        }
        std::thread::sleep(SOURCE_INTERVAL);
    }
}

/// Reads the health section of the configuration. This mounts the ESP: see [`in_mount_namespace`].
pub(super) fn read_config(global: &Global, host: &Host, ask: Ask) -> Result<HealthConfig> {
    let esp = Esp::open(host, global.esp.as_deref(), Access::Read)?;
    let merged = load(host, esp.as_ref(), &global.configs, ask)?;
    log_problems(&merged);
    for source in merged.sources_with_unknown_health() {
        log::error!("health.units and health.checks from {source} are unknown and not checked");
    }
    Ok(HealthConfig {
        health: Settings::try_from(&merged)?.health,
        problem: merged.problems().into_iter().next(),
        may_change: !merged.is_permanently_broken(),
    })
}

/// Returns the time until `deadline` after the start of the kernel, or zero if the uptime cannot be read.
pub(super) fn time_left(host: &Host, deadline: Duration) -> Duration {
    host.uptime().map_or(Duration::ZERO, |uptime| deadline.saturating_sub(uptime))
}

fn summary(health: &HealthPolicy) -> String {
    match (health.units.len(), health.checks.len() + health.sources.len()) {
        (0, 0) => "no units and no checks are configured".into(),
        (units, checks) => format!("units active: {units}, checks passed: {checks}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    /// Run it by hand as root: `cargo test -p updater -- --ignored`. Checks must see the mounts of the host
    /// as they are now, and not those of the namespace in which the configuration was read.
    #[test]
    #[ignore = "needs root"]
    fn checks_see_the_mounts_of_the_host() {
        let directory = tempfile::tempdir().unwrap();
        // The boot sector of a FAT32 without any content.
        let mut sector = [0; 512];
        sector[0x43..0x47].copy_from_slice(&[0x34, 0x12, 0xcd, 0xab]);
        sector[0x52..0x57].copy_from_slice(b"FAT32");
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        for (path, content) in [
            ("proc/cmdline", &b"etchaos.slot=b etchaos.esp=ABCD-1234"[..]),
            ("sys/class/block/vda1/dev", b"254:1\n"),
            ("sys/class/block/vda1/size", b"2048\n"),
            ("dev/vda1", &sector),
        ] {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let root = directory.path().to_str().unwrap();
        let cli = crate::cli::Cli::parse_from(["x", "--host-root", root, "health"]);
        let namespace = || std::fs::read_link("/proc/thread-self/ns/mnt").unwrap();
        let before = namespace();
        let error = health(&cli.global, &Arguments { wait: false }).unwrap_err();
        // The command has reached the mount of the ESP.
        assert!(error.to_string().contains("cannot mount"), "{error}");
        assert_eq!(namespace(), before);
    }
}
