//! The command `listen`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::context::{Context, in_mount_namespace, require_esp};
use super::output::print_or_warn;
use crate::cli::{Exit, Global};
use crate::config::{Listen, Tls};
use crate::esp::{Access, Esp, EspError};
use crate::host::Host;
use crate::push_server;
use crate::record::{self, Listening};
use crate::tls::{self, Identity};

/// How long the start waits for another command that writes to the ESP.
const ESP_WAIT: Duration = Duration::from_secs(5);
/// How long the certificate waits for it. An update over a slow line takes hours.
const LONG_ESP_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn listen(global: &Global) -> Result<Exit> {
    let host = Host::new(&global.host_root);
    let prepared = in_mount_namespace(|| {
        let mut context = Context::new(global, Access::Read)?;
        let Some(listen) = context.settings.listen.take() else { return Ok(None) };
        let identity = identity(global, &host, &mut context, &listen)?;
        Ok(Some((listen, identity)))
    })?;
    let Some((listen, identity)) = prepared else {
        record::remove::<Listening>(&host);
        let reason = "listening is off: no source with a key is configured under \"listen\"";
        print_or_warn(global, &json!({"listening": false, "why": reason}), || reason.to_owned());
        return Ok(Exit::NothingDone);
    };
    let address = listen.address;
    push_server::serve(listen, identity.as_ref(), &host)
        .with_context(|| format!("cannot listen on {address}"))?;
    Ok(Exit::Ok)
}

/// Returns the certificate of the server, or `None` for plain HTTP.
fn identity(
    global: &Global,
    host: &Host,
    context: &mut Context,
    listen: &Listen,
) -> Result<Option<Identity>> {
    match &listen.tls {
        Tls::Off => Ok(None),
        Tls::SelfSigned => self_signed(global, host, context).map(Some),
        Tls::Own { certificate, key } => Ok(Some(tls::read_own(host, certificate, key)?)),
    }
}

/// Returns the certificate that this host made before, or makes one. It is stored on the ESP. If that is not
/// possible, for example because the host was booted from the network, it is kept until the next boot.
fn self_signed(global: &Global, host: &Host, context: &mut Context) -> Result<Identity> {
    if let Some(identity) = context.esp().ok().and_then(|esp| tls::kept_on_esp(esp)) {
        return Ok(identity);
    }
    let (identity, pem) = match tls::kept_until_reboot(host) {
        Some(kept) => kept,
        None => Identity::make()?,
    };
    context.close();
    if let Err(error) = store(global, ESP_WAIT, &pem) {
        tls::store_until_reboot(host, &pem)?;
        match error.downcast_ref() {
            Some(EspError::Busy(_)) => store_later(global.clone(), pem),
            _ => warn_not_stored(&error),
        }
    }
    Ok(identity)
}

/// Writes the certificate to the ESP, after waiting for other commands that write to it.
fn store(global: &Global, wait: Duration, pem: &str) -> Result<()> {
    let host = Host::new(&global.host_root);
    let esp = Esp::open(&host, global.esp.as_deref(), Access::Write { wait })?;
    Ok(tls::store(require_esp(esp.as_ref())?, pem)?)
}

/// Writes the certificate to the ESP when the command that writes to it has ended, in a thread of its own, which also
/// has its own mount namespace.
fn store_later(global: Global, pem: String) {
    log::info!("the certificate of this host is stored when the ESP is no longer in use");
    std::thread::spawn(move || match store(&global, LONG_ESP_WAIT, &pem) {
        Ok(()) => log::info!("the certificate of this host is stored"),
        Err(error) => warn_not_stored(&error),
    });
}

fn warn_not_stored(error: &anyhow::Error) {
    log::warn!("the certificate of this host changes with the next boot: {error:#}");
}
