//! `listen`

use anyhow::{Context, Result, anyhow};
use serde_json::json;

use super::{Opened, tell};
use crate::cli::{Exit, Global};
use crate::config::Settings;
use crate::esp::Access;
use crate::host::Host;
use crate::listen;

pub(super) fn listen(global: &Global) -> Result<Exit> {
    let settings = settings(global)?;
    let Some(listen) = settings.listen else {
        let why = "listening is off: no source with a key is configured under \"listen\"";
        tell(global, &json!({"listening": false, "why": why}), || why.to_owned());
        return Ok(Exit::NotNow);
    };
    let address = listen.address;
    listen::serve(listen, &Host::new(&global.host_root))
        .with_context(|| format!("cannot listen on {address}"))?;
    Ok(Exit::Ok)
}

/// In a thread of its own: to mount is to leave the host's mount namespace, and the Patterns that
/// this thread will run belong into it.
fn settings(global: &Global) -> Result<Settings> {
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| Opened::new(global, Access::Read).map(|o| o.settings));
        reader.join().unwrap_or_else(|_| Err(anyhow!("reading the configuration panicked")))
    })
}
