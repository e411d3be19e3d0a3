//! The command `listen`.

use anyhow::{Context as _, Result};
use serde_json::json;

use super::context::{Context, in_mount_namespace};
use super::output::print_or_warn;
use crate::cli::{Exit, Global};
use crate::esp::Access;
use crate::host::Host;
use crate::push_server;
use crate::sources::Runner;

pub(super) fn listen(global: &Global) -> Result<Exit> {
    let settings =
        in_mount_namespace(|| Context::new(global, Access::Read).map(|context| context.settings))?;
    let Some(listen) = settings.listen else {
        let reason = "listening is off: no source with a key is configured under \"listen\"";
        print_or_warn(global, &json!({"listening": false, "why": reason}), || reason.to_owned());
        return Ok(Exit::NothingDone);
    };
    let (address, host) = (listen.address, Host::new(&global.host_root));
    let runner = Runner::new(&host, global.esp.as_deref(), settings.sources);
    push_server::serve(listen, runner, &host)
        .with_context(|| format!("cannot listen on {address}"))?;
    Ok(Exit::Ok)
}
