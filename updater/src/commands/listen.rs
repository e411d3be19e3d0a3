//! The command `listen`.

use anyhow::{Context, Result};
use serde_json::json;

use super::{Opened, apart, tell};
use crate::cli::{Exit, Global};
use crate::esp::Access;
use crate::host::Host;
use crate::push_server;

pub(super) fn listen(global: &Global) -> Result<Exit> {
    let settings = apart(|| Opened::new(global, Access::Read).map(|opened| opened.settings))?;
    let Some(listen) = settings.listen else {
        let why = "listening is off: \"listen\" of the configuration has no source with a key";
        tell(global, &json!({"listening": false, "why": why}), || why.to_owned());
        return Ok(Exit::NotNow);
    };
    let address = listen.address;
    push_server::serve(listen, &Host::new(&global.host_root))
        .with_context(|| format!("cannot listen on {address}"))?;
    Ok(Exit::Ok)
}
