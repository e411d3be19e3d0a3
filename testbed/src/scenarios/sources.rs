//! A host that pulls a Pattern, keeps it, and removes what its successor has not.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use protocol::pattern::{Mode, Pattern, PatternFiles};
use protocol::token::sign;
use protocol::{Claims, PrivateKey};
use serde_json::{Value, json};

use super::interface::{Passed, Scenario};
use crate::actions;
use crate::args::ScenarioArgs;
use crate::artifacts::Artifacts;
use crate::cdn::Served;
use crate::environment::TestEnvironment;
use crate::firmware::Firmware;
use crate::guest::Guest;
use crate::report::Step;
use crate::scenario::{Options, Outcome, ScenarioError, Steps};

const BOOT: Step = Step::new("boot", "boot a host that pulls a Pattern");
const PULL: Step = Step::new("pull", "the Pattern runs after the boot");
const CHANGE: Step = Step::new("change", "its successor runs, and what it lacks is removed");
const OLDER: Step = Step::new("older", "an older Pattern is refused");
const REBOOT: Step = Step::new("reboot", "the kept Pattern runs after a reboot without its server");
const UPDATE: Step = Step::new("update", "the kept Pattern runs after an update");
const REMOVE: Step = Step::new("remove", "an empty Pattern removes everything");

/// The path of the token on the CDN.
const TOKEN: &str = "sources/web.jwt";
/// The directory in the guest in which Commands create files. It is in memory.
const STATE: &str = "/run/testbed-sources";
/// The limit for a run of the sources, which begins half a minute after a boot.
const TIMEOUT: Duration = Duration::from_secs(300);
/// The time between two questions to the guest. A push keeps the sources from running.
const INTERVAL: Duration = Duration::from_secs(3);

/// Test the sources of Patterns
///
/// Boots the disk image with a source in the configuration whose Pattern is on the CDN. The Pattern must run after
/// the boot, be replaced by its successor, refused if it is older, and run again after a reboot and an update,
/// while the CDN does not have it any more.
#[derive(Debug, Args)]
pub(crate) struct Sources {
    /// Options of every scenario
    #[command(flatten)]
    common: ScenarioArgs,
}

impl Scenario for Sources {
    type Findings = Passed;

    fn common(&self) -> &ScenarioArgs {
        &self.common
    }

    fn play(&self, artifacts: &Artifacts, steps: &mut Steps<'_>) -> Result<Passed, ScenarioError> {
        let publisher = Publisher::new(steps.options)?;
        publisher.publish(300, &["a", "b"])?;
        let mut environment = TestEnvironment::prepare(artifacts, &[publisher.served()], steps)?;
        let url = format!("http://10.0.2.2:{}/{TOKEN}", environment.cdn.address().port());
        let sources = json!({"web": {"keys": [publisher.key()], "pull": url, "interval": "1min"}});
        environment.configured.insert("sources".into(), sources);

        let firmware = Firmware::uefi(&artifacts.release);
        let mut host = steps.run(BOOT, || Host::boot(&environment, firmware, &publisher))?;
        steps.run(PULL, || host.expect(&["a", "b"]))?;
        steps.run(CHANGE, || host.replace(200, &["b", "c"]))?;
        steps.run(OLDER, || host.refuse(250))?;
        publisher.withdraw()?;
        steps.run(REBOOT, || host.reboot(&["b", "c"]))?;
        steps.run(UPDATE, || host.update(&["b", "c"]))?;
        steps.run(REMOVE, || host.replace(100, &[]))?;
        steps.power_off(host.guest)?;
        Ok(Passed)
    }
}

/// The publisher of the Pattern.
struct Publisher {
    key: PrivateKey,
    file: PathBuf,
    /// The time from which the ages of tokens count, in Unix seconds.
    start: u64,
}

impl Publisher {
    fn new(options: &Options) -> Result<Self, ScenarioError> {
        let directory = options.logs.join("sources");
        let failed = |source| ScenarioError::File {
            doing: "create the directory",
            path: directory.clone(),
            source,
        };
        std::fs::create_dir_all(&directory).map_err(failed)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            key: PrivateKey::generate(),
            file: directory.join("web.jwt"),
            start: now.as_secs(),
        })
    }

    /// Returns the file that the CDN serves as the token.
    fn served(&self) -> Served {
        Served { path: TOKEN.into(), file: self.file.clone() }
    }

    /// Returns the public key, as text.
    fn key(&self) -> String {
        self.key.public().to_string()
    }

    /// Publishes a Pattern that creates these files, signed `ago` seconds before the start.
    fn publish(&self, ago: u64, names: &[&str]) -> Result<(), ScenarioError> {
        let commands: Vec<Value> = names.iter().map(|name| command(name)).collect();
        let pattern = Pattern::from_value(&json!({ "run": commands }));
        let pattern = pattern.unwrap_or_else(|error| panic!("the Pattern is not valid: {error}"));
        let claims = Claims {
            iat: Some(self.start - ago),
            etcha_pattern: Some(PatternFiles::from(&pattern)),
            ..Claims::default()
        };
        let token = sign(&self.key, &claims).map_err(|error| self.failed("sign", error))?;
        std::fs::write(&self.file, token).map_err(|error| self.failed("write", error))
    }

    /// Removes the Pattern from the CDN.
    fn withdraw(&self) -> Result<(), ScenarioError> {
        std::fs::remove_file(&self.file).map_err(|error| self.failed("remove", error))
    }

    fn failed(
        &self,
        doing: &'static str,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> ScenarioError {
        let source = std::io::Error::other(error);
        ScenarioError::File { doing, path: self.file.clone(), source }
    }
}

/// Returns a Command that creates a file, and removes it.
fn command(name: &str) -> Value {
    let path = format!("{STATE}/{name}");
    json!({
        "id": name,
        "check": format!("test -e {path}"),
        "change": format!("mkdir -p {STATE} && touch {path}"),
        "remove": format!("rm {path}"),
    })
}

/// A running host.
struct Host<'a> {
    publisher: &'a Publisher,
    guest: Guest<'a>,
    boot: String,
}

impl<'a> Host<'a> {
    fn boot(
        environment: &'a TestEnvironment<'a>,
        firmware: Firmware,
        publisher: &'a Publisher,
    ) -> Outcome<Self> {
        let (guest, boot) = environment.boot("sources", firmware, None)?;
        Ok((Self { publisher, guest, boot }, firmware.to_string()))
    }

    /// Waits until the files are there that the Pattern in force creates, and no others.
    fn expect(&mut self, names: &[&str]) -> Outcome<()> {
        let expected = names.join(" ");
        let check = format!(
            "found=$(ls {STATE} 2>/dev/null | tr '\\n' ' ')\n\
             [ \"$found\" = \"{}\" ] || {{ echo \"expected {expected}, found $found\"; etchaos-updater status; exit 1; }}",
            names.iter().map(|name| format!("{name} ")).collect::<String>()
        );
        self.wait_for(&check)?;
        Ok(((), expected))
    }

    /// Repeats a check until it succeeds.
    fn wait_for(&mut self, check: &str) -> Result<(), ScenarioError> {
        let until = Instant::now() + TIMEOUT;
        loop {
            let pattern = actions::sources(check);
            match self.guest.push("waiting for the sources", pattern, Mode::Check) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > until => return Err(error.into()),
                Err(_) => thread::sleep(INTERVAL),
            }
        }
    }

    /// Publishes a successor and waits until it runs.
    fn replace(&mut self, ago: u64, names: &[&str]) -> Outcome<()> {
        self.publisher.publish(ago, names)?;
        self.start_sources()?;
        self.expect(names)
    }

    /// Publishes an older Pattern, and checks that the host reports it.
    fn refuse(&mut self, ago: u64) -> Outcome<()> {
        self.publisher.publish(ago, &["older"])?;
        self.start_sources()?;
        self.wait_for("etchaos-updater status | grep 'is not accepted: it was signed at'")?;
        let files = format!("test ! -e {STATE}/older && test -e {STATE}/c");
        self.wait_for(&files)?;
        Ok(((), String::new()))
    }

    fn start_sources(&mut self) -> Result<(), ScenarioError> {
        let pattern = actions::start_sources();
        self.guest.push("starting the sources", pattern, Mode::Change)?;
        Ok(())
    }

    fn reboot(&mut self, names: &[&str]) -> Outcome<()> {
        self.guest.push_last("rebooting", actions::reboot())?;
        self.boot = self.guest.wait_for_boot(&self.boot)?;
        self.expect(names)
    }

    /// Updates the host, which repairs slot a from slot b, and so reboots.
    fn update(&mut self, names: &[&str]) -> Outcome<()> {
        self.guest.push("deleting kernel and initrd", actions::damage(), Mode::Change)?;
        self.guest.push_last("starting the update", actions::update())?;
        self.boot = self.guest.wait_for_reboot(&self.boot)?;
        self.expect(names)
    }
}
