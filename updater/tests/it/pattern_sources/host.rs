//! A host with one source, `web`, that is pulled from a server on loopback.

use std::fs;

use protocol::esp::Slot;
use protocol::pattern::{Pattern, PatternFiles};
use protocol::token::sign;
use protocol::{Claims, PrivateKey};
use serde_json::{Value, json};

use crate::server::Reply;
use crate::world::{Ran, World, now};

/// The path of the token of `web`.
pub(super) const PATH: &str = "/web.jwt";

pub(super) struct Host {
    pub world: World,
    /// The key of the source.
    pub key: PrivateKey,
    /// The time from which the ages of tokens count.
    pub start: u64,
}

impl Host {
    /// Returns a host that was started a day ago.
    pub(super) fn new() -> Self {
        let host = Self { world: World::new(), key: PrivateKey::generate(), start: now() };
        host.world.write("host/proc/uptime", "86400.00 1.00\n");
        fs::create_dir(host.world.path("state")).unwrap();
        host.configure(json!({"web": host.web()}));
        host
    }

    /// Returns the configuration of `web`.
    pub(super) fn web(&self) -> Value {
        let url = format!("{}{PATH}", self.world.cdn.url);
        json!({"keys": [self.key.public().to_string()], "pull": url})
    }

    /// Sets the sources in the configuration on the ESP.
    pub(super) fn configure(&self, sources: Value) {
        let config = json!({"sources": sources}).to_string();
        self.world.write("esp/etchaos/config.json", config);
    }

    /// Returns a Command that creates the file `name`, and removes it.
    pub(super) fn command(&self, name: &str) -> Value {
        let path = self.world.path("state").join(name);
        let path = path.display();
        json!({
            "id": name,
            "check": format!("test -e {path}"),
            "change": format!("echo made >{path}"),
            "remove": format!("rm {path}"),
        })
    }

    /// Signs a Pattern with these Commands, as of `ago` seconds before the start of the test.
    pub(super) fn token(&self, ago: u64, commands: Value) -> String {
        self.sign(&self.claims(ago, commands))
    }

    pub(super) fn claims(&self, ago: u64, commands: Value) -> Claims {
        let pattern = Pattern::from_value(&json!({"run": commands})).unwrap();
        Claims {
            iat: Some(self.start - ago),
            etcha_pattern: Some(PatternFiles::from(&pattern)),
            ..Claims::default()
        }
    }

    pub(super) fn sign(&self, claims: &Claims) -> String {
        sign(&self.key, claims).unwrap()
    }

    /// Makes the server offer a token for `web`.
    pub(super) fn publish(&self, token: impl Into<Vec<u8>>) {
        self.world.cdn.put(PATH, Reply::ok(token));
    }

    /// Pulls and runs all sources, as the units do at each interval.
    #[track_caller]
    pub(super) fn run(&self) -> Ran {
        self.make_due();
        self.world.run(&["sources", "--pull"]);
        self.world.run(&["sources"])
    }

    /// Pulls all sources.
    pub(super) fn pull(&self) -> Ran {
        self.make_due();
        self.world.run(&["sources", "--pull"])
    }

    /// Makes every source due.
    fn make_due(&self) {
        let path = self.world.path("host/run/etchaos-updater/sources.json");
        let Ok(text) = fs::read(&path) else { return };
        let mut runs: Value = serde_json::from_slice(&text).unwrap();
        for (_, run) in runs["sources"].as_object_mut().unwrap() {
            run["next"] = json!(0);
        }
        fs::write(path, runs.to_string()).unwrap();
    }

    /// Returns `web` as `status` shows it.
    pub(super) fn status(&self) -> Value {
        let ran = self.world.run(&["status", "--json"]);
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        ran.json()["sources"]["web"].clone()
    }

    /// Returns the names of the files that Commands created.
    pub(super) fn state(&self) -> Vec<String> {
        let entries = fs::read_dir(self.world.path("state")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Removes what is in memory, and the files that Commands created.
    pub(super) fn reboot(&self) {
        for path in ["host/run", "state"] {
            fs::remove_dir_all(self.world.path(path)).unwrap();
            fs::create_dir(self.world.path(path)).unwrap();
        }
        self.world.boot(Slot::A);
    }
}
