//! Kills the VM repeatedly during updates and keeps its disk. The host must boot each time, and must run
//! the newest release at the end. The updates copy the kernel and make the initrd from a delta.

use std::fmt;
use std::time::{Duration, Instant};

use clap::Args;
use fastrand::Rng;
use protocol::boot_order::{Environment, Save, SlotFiles};
use protocol::esp::Slot;
use serde::Serialize;

use super::interface::Scenario;
use crate::args::{FirmwareArgs, ScenarioArgs};
use crate::artifacts::Artifacts;
use crate::derived::Changes;
use crate::environment::TestEnvironment;
use crate::firmware::Firmware;
use crate::report::Step;
use crate::scenario::{ScenarioError, Steps};
use crate::seconds;
use crate::updates::{Disk, Host, ReleaseSeries};

/// One in this many kills happens during a trial boot.
const TRIAL_RATIO: usize = 4;
/// The latest moment of a kill during a trial boot. Without KVM, a trial boot takes longer; with KVM, the
/// kill may come after the confirmation.
const TRIAL_KILL_MAX: Duration = Duration::from_secs(45);

const KILL: Step = Step::new("kill", "update, kill and boot");

/// Kill QEMU repeatedly at random moments of updates
///
/// The disk is kept. The host must boot each time, and must run the newest release, confirmed, at the
/// end. Each release has deltas from all earlier ones, and the last update must use one. The work directory needs
/// room for two releases more than the number of kills.
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Options of every scenario
    #[command(flatten)]
    pub(crate) common: ScenarioArgs,
    /// Firmware that boots the disk
    #[command(flatten)]
    pub(crate) firmware: FirmwareArgs,
    /// Number of kills
    #[arg(long, default_value_t = 10, value_name = "N")]
    times: usize,
    /// Seed for the moments of the kills, to repeat a run
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
}

/// A kill and the boot after it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct KillRecord {
    /// The moment of the kill.
    moment: String,
    /// The content of the disk after the kill.
    disk: String,
    /// The duration of the next boot.
    #[serde(serialize_with = "seconds::serialize", rename = "bootSeconds")]
    boot: Duration,
    /// The slot that was booted.
    slot: Slot,
}

/// The kills of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Kills {
    /// The seed for the moments.
    seed: u64,
    /// The kills in order.
    kills: Vec<KillRecord>,
}

/// Formats the kills as a table.
impl fmt::Display for Kills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, KillRecord { moment, disk, boot, slot }) in self.kills.iter().enumerate() {
            let (number, boot) = (number + 1, boot.as_secs_f32());
            writeln!(f, "{number:>3}  {moment:<28}  booted slot {slot} in {boot:>5.1} s  {disk}")?;
        }
        writeln!(f, "killed {} times, seed {}", self.kills.len(), self.seed)
    }
}

impl Scenario for Kill {
    type Findings = Kills;

    fn common(&self) -> &ScenarioArgs {
        &self.common
    }

    fn firmware(&self) -> Option<Firmware> {
        Some(self.firmware.of(&self.common))
    }

    fn play(&self, artifacts: &Artifacts, steps: &mut Steps<'_>) -> Result<Kills, ScenarioError> {
        let firmware = self.firmware.of(&self.common);
        let moments = moments(self.seed, self.times);
        // If the boot after a kill confirms the release, the next kill needs a newer release. So does the last
        // update, because a host does not use a delta again that kills interrupted twice.
        let changes = vec![Changes { deltas: true, ..Changes::default() }; self.times + 2];
        let (releases, environment) = ReleaseSeries::prepare(artifacts, &changes, steps)?;

        let mut series = Series {
            environment: &environment,
            releases: &releases,
            firmware,
            running: Slot::A,
            published: 0,
        };
        releases.publish(0)?;
        let mut host = steps.run(Step::BOOT, || {
            Ok((Host::boot(&environment, "kill-0", firmware, None)?, firmware.to_string()))
        })?;
        let mut kills = Kills { seed: self.seed, kills: Vec::new() };
        for (number, moment) in moments.iter().enumerate() {
            host = steps.run(KILL, || {
                let (record, host) = series.kill(host, *moment, &format!("kill-{}", number + 1))?;
                // The table of kills is printed only at the end. If a later step fails, the notes still
                // list the earlier kills.
                let (moment, boot) = (&record.moment, record.boot.as_secs_f32());
                let note = format!("{moment}; {}; booted again in {boot:.1} s", record.disk);
                kills.kills.push(record);
                Ok((host, note))
            })?;
        }
        steps.run(Step::UPDATE, || {
            let (from, number) = (series.confirmed(), series.published + 1);
            let build = releases.publish(number)?.build;
            host.update(series.running.other(), build)?;
            let note = releases.describe_update(from, number, &environment)?;
            Ok(((), format!("build {build}, {note}")))
        })?;
        steps.power_off(host.guest)?;
        Ok(kills)
    }
}

/// The moment of a kill.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    /// After this fraction of the download is written.
    Written(f64),
    /// This long after GRUB has started the trial.
    Trial(Duration),
}

/// Returns the moments of `count` kills. The same seed gives the same moments.
fn moments(seed: u64, count: usize) -> Vec<Moment> {
    let mut rng = Rng::with_seed(seed);
    let moment = |_| match rng.usize(..TRIAL_RATIO) {
        0 => Moment::Trial(TRIAL_KILL_MAX.mul_f64(rng.f64())),
        _ => Moment::Written(rng.f64()),
    };
    (0..count).map(moment).collect()
}

/// The state of the scenario from one kill to the next.
struct Series<'a> {
    environment: &'a TestEnvironment<'a>,
    releases: &'a ReleaseSeries,
    firmware: Firmware,
    /// The running and confirmed slot.
    running: Slot,
    /// The number of the published release.
    published: usize,
}

impl<'a> Series<'a> {
    /// Returns the number of the running and confirmed release, or none for the base.
    fn confirmed(&self) -> Option<usize> {
        self.published.checked_sub(1)
    }

    /// Starts an update, kills the host at `moment`, and boots it again with `name` for its logs.
    fn kill(
        &mut self,
        mut host: Host<'a>,
        moment: Moment,
        name: &str,
    ) -> Result<(KillRecord, Host<'a>), ScenarioError> {
        let disk = Disk::open(&self.environment.disk)?;
        host.start_update()?;
        let moment = self.wait(&mut host, &disk, moment)?;
        host.guest.kill();
        let content = disk.inspect(&self.releases.keys(self.environment.options))?;

        let start = Instant::now();
        let mut host = Host::boot(self.environment, name, self.firmware, None)?;
        let boot = start.elapsed();
        let slot = if on_trial(&content.environment, self.running.other()) {
            let build = self.releases.releases[self.published].release.build;
            self.running = self.running.other();
            host.wait_for_confirmation(self.running, build)?;
            self.published += 1;
            self.releases.publish(self.published)?;
            self.running
        } else {
            let build = self.confirmed().map(|n| self.releases.releases[n].release.build);
            host.wait_for_confirmation(self.running, build.unwrap_or_default())?;
            self.running
        };
        Ok((KillRecord { moment, disk: content.to_string(), boot, slot }, host))
    }

    /// Waits for the moment and describes it.
    fn wait(
        &self,
        host: &mut Host<'_>,
        disk: &Disk,
        moment: Moment,
    ) -> Result<String, ScenarioError> {
        let spare = self.running.other();
        match moment {
            Moment::Written(fraction) => {
                let bytes = (self.releases.size(self.published) as f64 * fraction) as u64;
                let mut start = None;
                let written = host.guest.wait_until("waiting for the update to write", |vm| {
                    let written = vm.qmp().bytes_written()?;
                    let more = written - *start.get_or_insert(written);
                    // A resumed download writes only the rest, so the trial may begin before `bytes` are
                    // written.
                    let done = disk.environment().is_some_and(|env| on_trial(&env, spare));
                    Ok((more >= bytes || done).then_some(more))
                })?;
                Ok(format!("{} MiB written", written >> 20))
            }
            Moment::Trial(after) => {
                let mut start: Option<Instant> = None;
                host.guest.wait_until("waiting for the trial", |_| {
                    let has_started = |env: &Environment| on_trial(env, spare) && env.tries != "3";
                    if start.is_none() && disk.environment().is_some_and(|env| has_started(&env)) {
                        start = Some(Instant::now());
                    }
                    Ok(start.filter(|start| start.elapsed() >= after))
                })?;
                Ok(format!("trial boot, after {} s", after.as_secs()))
            }
        }
    }
}

/// Returns whether GRUB would boot this slot first.
fn on_trial(environment: &Environment, slot: Slot) -> bool {
    // The files of the slots only matter if grubenv names no good slot.
    let decision = environment.decide(|_| SlotFiles::default(), Save::Stored);
    decision.attempts.first().is_some_and(|first| first.slot == slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_moments_for_a_seed_and_mixes_both_kinds() {
        assert_eq!(moments(1, 10), moments(1, 10));
        assert_ne!(moments(1, 10), moments(2, 10));
        let all: Vec<Moment> = (0..10).flat_map(|seed| moments(seed, 10)).collect();
        let trials = all.iter().filter(|moment| matches!(moment, Moment::Trial(_))).count();
        assert!((10..50).contains(&trials), "{trials} of {}", all.len());
    }
}
