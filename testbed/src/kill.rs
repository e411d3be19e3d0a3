//! The machine is killed in the middle of updates, again and again, with the disk as it is left. It
//! has to boot each time, and to run the newest release in the end.

use std::fmt;
use std::time::{Duration, Instant};

use fastrand::Rng;
use protocol::boot_order::{Environment, Save, SlotFiles};
use protocol::esp::Slot;
use serde::Serialize;

use crate::derived::Changes;
use crate::environment::{self, TestEnvironment};
use crate::firmware::Firmware;
use crate::report::{Event, Report, Step, seconds};
use crate::scenario::{self, Failure, Options, ScenarioError, Steps};
use crate::updates::{Disk, Host, Offers};

/// One in so many kills is in a trial boot.
const TRIALS: usize = 4;
/// A trial boot is killed within this time: it takes longer than that everywhere but under KVM, where
/// a kill may come after its confirmation.
const TRIAL: Duration = Duration::from_secs(45);

/// What besides [`Options`] a run needs to know.
#[derive(Debug, Clone)]
pub struct Kill {
    /// What boots the disk.
    pub firmware: Firmware,
    /// How often the machine is killed.
    pub times: usize,
    /// What decides when.
    pub seed: u64,
}

/// A kill, and what came after it.
#[derive(Debug, Clone, Serialize)]
pub struct Killed {
    /// When it was.
    pub moment: String,
    /// What was on the disk then.
    pub disk: String,
    /// How long the next boot took.
    #[serde(serialize_with = "seconds", rename = "bootSeconds")]
    pub boot: Duration,
    /// From which slot.
    pub slot: Slot,
}

/// All kills.
#[derive(Debug, Clone, Serialize)]
pub struct Kills {
    /// What decided when.
    pub seed: u64,
    /// One after the other.
    pub kills: Vec<Killed>,
}

/// A table for people.
impl fmt::Display for Kills {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Killed { moment, disk, boot, slot }) in self.kills.iter().enumerate() {
            let (number, boot) = (number + 1, boot.as_secs_f32());
            writeln!(f, "{number:>3}  {moment:<28}  booted slot {slot} in {boot:>5.1} s  {disk}")?;
        }
        writeln!(f, "killed {} times, seed {}", self.kills.len(), self.seed)
    }
}

/// Updates and kills, as often as `kill` says.
pub fn run(
    options: &Options,
    kill: &Kill,
    events: &dyn Fn(Event<'_>),
) -> Result<(Kills, Report), Box<Failure>> {
    scenario::run(options, events, |steps, say| play(options, kill, steps, say))
}

fn play(
    options: &Options,
    kill: &Kill,
    steps: &mut Steps<'_>,
    say: &dyn Fn(&str),
) -> Result<Kills, ScenarioError> {
    let artifacts = steps.run(Step::VerifyArtifacts, || environment::verify(options))?;
    let work = TestEnvironment::directories(options)?;
    let moments = moments(kill);
    // Any kill may come so late that the next boot is confirmed; then there has to be a newer one.
    let changes = vec![Changes::default(); kill.times + 1];
    let offers = steps.run(Step::DeriveReleases, || Offers::make(&artifacts, &changes, &work))?;
    let bench = steps.run(Step::PrepareBench, || offers.bench(options, &artifacts, work, say))?;
    steps.report.accel = Some(bench.accel.clone());

    let mut series = Series {
        bench: &bench,
        offers: &offers,
        firmware: kill.firmware,
        running: Slot::A,
        offered: 0,
    };
    offers.publish(0)?;
    let mut host = steps.run(Step::Boot, || {
        Ok((Host::boot(&bench, "kill-0", kill.firmware, None)?, kill.firmware.to_string()))
    })?;
    let mut kills = Kills { seed: kill.seed, kills: Vec::new() };
    for (number, moment) in moments.iter().enumerate() {
        host = steps.run(Step::Kill, || {
            let (killed, host) = series.kill(host, *moment, &format!("kill-{}", number + 1))?;
            // The table of kills is printed in the end; should one fail, this says what came before.
            let (moment, boot) = (&killed.moment, killed.boot.as_secs_f32());
            let note = format!("{moment}; {}; booted again in {boot:.1} s", killed.disk);
            kills.kills.push(killed);
            Ok((host, note))
        })?;
    }
    steps.run(Step::Update, || {
        let build = offers.releases[series.offered].release.build;
        host.update(series.running.other(), build)?;
        Ok(((), format!("build {build}")))
    })?;
    steps.run(Step::PowerOff, || Ok(((), host.guest.power_off()?.to_owned())))?;
    Ok(kills)
}

/// When a machine is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    /// When it has written this part of what it downloads.
    Written(f64),
    /// So long after GRUB began the trial.
    Trial(Duration),
}

/// The same seed gives the same moments.
fn moments(kill: &Kill) -> Vec<Moment> {
    let mut rng = Rng::with_seed(kill.seed);
    let moment = |_| match rng.usize(..TRIALS) {
        0 => Moment::Trial(TRIAL.mul_f64(rng.f64())),
        _ => Moment::Written(rng.f64()),
    };
    (0..kill.times).map(moment).collect()
}

/// What is carried from one kill to the next.
struct Series<'a> {
    bench: &'a TestEnvironment<'a>,
    offers: &'a Offers,
    firmware: Firmware,
    /// The slot that runs and is confirmed.
    running: Slot,
    /// The number of the release that is offered.
    offered: usize,
}

impl<'a> Series<'a> {
    /// Has the host update, kills it meanwhile, and boots it again, with logs of this name.
    fn kill(
        &mut self,
        mut host: Host<'a>,
        moment: Moment,
        name: &str,
    ) -> Result<(Killed, Host<'a>), ScenarioError> {
        let disk = Disk::open(&self.bench.disk)?;
        host.start_update()?;
        let moment = self.wait(&mut host, &disk, moment)?;
        host.guest.kill();
        let held = disk.inspect(&self.offers.keys(self.bench.options))?;

        let start = Instant::now();
        let mut host = Host::boot(self.bench, name, self.firmware, None)?;
        let boot = start.elapsed();
        let slot = if on_trial(&held.environment, self.running.other()) {
            let build = self.offers.releases[self.offered].release.build;
            self.running = self.running.other();
            host.wait_for_confirmation(self.running, build)?;
            self.offered += 1;
            self.offers.publish(self.offered)?;
            self.running
        } else {
            let build = self.offered.checked_sub(1).map(|n| self.offers.releases[n].release.build);
            host.wait_for_confirmation(self.running, build.unwrap_or_default())?;
            self.running
        };
        Ok((Killed { moment, disk: held.to_string(), boot, slot }, host))
    }

    /// Waits for the moment; says when it was.
    fn wait(
        &self,
        host: &mut Host<'_>,
        disk: &Disk,
        moment: Moment,
    ) -> Result<String, ScenarioError> {
        let spare = self.running.other();
        match moment {
            Moment::Written(part) => {
                let bytes = (self.offers.size(self.offered) as f64 * part) as u64;
                let mut start = None;
                let written = host.guest.wait_until("waiting for the update to write", |vm| {
                    let written = vm.qmp().written()?;
                    let more = written - *start.get_or_insert(written);
                    // What was downloaded before need not be written again.
                    let done = disk.environment().is_some_and(|env| on_trial(&env, spare));
                    Ok((more >= bytes || done).then_some(more))
                })?;
                Ok(format!("{} MiB written", written >> 20))
            }
            Moment::Trial(after) => {
                let mut begin: Option<Instant> = None;
                host.guest.wait_until("waiting for the trial", |_| {
                    let counted = |env: &Environment| on_trial(env, spare) && env.tries != "3";
                    if begin.is_none() && disk.environment().is_some_and(|env| counted(&env)) {
                        begin = Some(Instant::now());
                    }
                    Ok(begin.filter(|begin| begin.elapsed() >= after))
                })?;
                Ok(format!("trial boot, after {} s", after.as_secs()))
            }
        }
    }
}

/// Returns whether GRUB boots this slot next.
fn on_trial(environment: &Environment, slot: Slot) -> bool {
    // The files of the slots only matter if grubenv names no good slot.
    let decision = environment.decide(|_| SlotFiles::default(), Save::Stored);
    decision.attempts.first().is_some_and(|first| first.slot == slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_of_both_kinds_and_come_again_with_the_seed() {
        let kill = |seed| Kill { firmware: Firmware::Bios, times: 10, seed };
        assert_eq!(moments(&kill(1)), moments(&kill(1)));
        assert_ne!(moments(&kill(1)), moments(&kill(2)));
        let all: Vec<Moment> = (0..10).flat_map(|seed| moments(&kill(seed))).collect();
        let trials = all.iter().filter(|moment| matches!(moment, Moment::Trial(_))).count();
        assert!((10..50).contains(&trials), "{trials} of {}", all.len());
    }
}
