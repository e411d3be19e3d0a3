//! The user data of this machine, read once in each boot.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::metadata::{self, Answer};
use super::platform::Platform;
use super::user_data::USER_DATA_MAX;
use crate::esp::{RUN, run_directory};
use crate::host::{Host, read_limited};
use crate::record::replace;

/// The file in [`RUN`] with the answer of the metadata service. User data may have secrets, so only root
/// can read the directory.
const CACHE: &str = "user-data.json";
/// The maximum size of the file: base64 takes four bytes for three.
const CACHE_MAX: u64 = USER_DATA_MAX as u64 * 3 / 2;
/// The time after the start of the kernel in which the network comes up, if it does.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest time that one process waits for the network.
const PATIENCE_MAX: Duration = Duration::from_secs(20);

/// Whether a command may ask the metadata service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Reads the answer of an earlier command, and asks if there is none.
    Service,
    /// Only reads the answer of an earlier command.
    Cache,
}

/// The content of [`CACHE`]: exactly one of `data` and `nothing` is set.
#[derive(Serialize, Deserialize)]
struct Cached {
    platform: Platform,
    /// The user data in base64.
    data: Option<String>,
    /// Why there is no user data.
    nothing: Option<String>,
}

/// Returns the user data of a machine on this platform, or `None` if it is not known and `ask` forbids to
/// ask.
///
/// # Errors
/// Fails if the service does not answer. The next command asks again.
pub(super) fn user_data(
    host: &Host,
    platform: Platform,
    ask: Ask,
) -> Result<Option<Answer>, String> {
    if let Some(answer) = cached(host, platform) {
        return Ok(Some(answer));
    }
    if ask == Ask::Cache {
        return Ok(None);
    }
    let answer = metadata::fetch(platform, patience(host))?;
    store(host, platform, &answer);
    Ok(Some(answer))
}

/// Returns how long to wait for the network: until a minute after the start, and not at all later.
fn patience(host: &Host) -> Duration {
    let uptime = host.uptime().unwrap_or(BOOT_TIMEOUT);
    BOOT_TIMEOUT.saturating_sub(uptime).min(PATIENCE_MAX)
}

fn cached(host: &Host, platform: Platform) -> Option<Answer> {
    let bytes = read_limited(&host.path(RUN).join(CACHE), CACHE_MAX).ok()??;
    let cached: Cached = serde_json::from_slice(&bytes).ok()?;
    if cached.platform != platform {
        return None;
    }
    match cached.data {
        Some(data) => Some(Answer::Data(STANDARD.decode(data).ok()?)),
        None => cached.nothing.map(Answer::Nothing),
    }
}

/// Stores the answer. Without it, the next command asks again, so an error is only logged. Other users
/// than root cannot store it.
fn store(host: &Host, platform: Platform, answer: &Answer) {
    // A directory tree that is not a running system gets no files.
    if !host.path("/run").is_dir() {
        return;
    }
    let (data, nothing) = match answer {
        Answer::Data(data) => (Some(STANDARD.encode(data)), None),
        Answer::Nothing(reason) => (None, Some(reason.clone())),
    };
    let stored = run_directory(host).map_err(|error| error.to_string()).and_then(|directory| {
        let json = serde_json::to_vec(&Cached { platform, data, nothing });
        let json = json.map_err(|error| error.to_string())?;
        replace(&directory.join(CACHE), &json).map_err(|error| error.to_string())
    });
    if let Err(error) = stored {
        log::debug!("the user data is not stored for other commands: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_answers_for_a_platform() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("run")).unwrap();
        let host = Host::new(directory.path());
        assert_eq!(user_data(&host, Platform::Aws, Ask::Cache), Ok(None));
        for answer in [Answer::Data(vec![0xff; USER_DATA_MAX + 1]), Answer::Nothing("x".into())] {
            store(&host, Platform::Aws, &answer);
            assert_eq!(user_data(&host, Platform::Aws, Ask::Cache), Ok(Some(answer)));
            assert_eq!(user_data(&host, Platform::Gcp, Ask::Cache), Ok(None));
        }
        for bad in ["", "{}", r#"{"platform": "Aws"}"#, r#"{"platform": "Aws", "data": "%"}"#] {
            std::fs::write(directory.path().join("run/etchaos/user-data.json"), bad).unwrap();
            assert_eq!(user_data(&host, Platform::Aws, Ask::Cache), Ok(None), "{bad}");
        }
        let tree = tempfile::tempdir().unwrap();
        store(&Host::new(tree.path()), Platform::Aws, &Answer::Nothing("x".into()));
        assert_eq!(std::fs::read_dir(tree.path()).unwrap().count(), 0);
    }

    #[test]
    fn waits_for_the_network_only_after_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::new(directory.path());
        assert_eq!(patience(&host), Duration::ZERO);
        std::fs::create_dir(directory.path().join("proc")).unwrap();
        for (uptime, expected) in [("1.00 1.00", 20), ("50.00 1.00", 10), ("100000.00 1.00", 0)] {
            std::fs::write(directory.path().join("proc/uptime"), uptime).unwrap();
            assert_eq!(patience(&host), Duration::from_secs(expected), "{uptime}");
        }
    }
}
