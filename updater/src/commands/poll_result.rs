//! Polls the CDN for the newest release.

use anyhow::{Context as _, Result, bail};
use protocol::claims::effective_time;
use protocol::esp::Slot;
use protocol::{Arch, Target, digest};

use super::context::Context;
use crate::candidate::{Candidate, CandidateRequest, fetch};
use crate::cdn::{Cdn, Timeouts};
use crate::cli::Global;
use crate::clock::now;
use crate::grubenv_file::GrubenvFile;
use crate::host::Host;
use crate::plan::Permissions;
use crate::slots::has_unknown_key;

/// The cache of manifests, which lasts until the next reboot.
const MANIFESTS: &str = "/run/etchaos/manifests";

/// The release that a CDN offers, and the client for downloading its artifacts.
pub(super) struct PollResult {
    pub(super) cdn: Cdn,
    pub(super) candidate: Candidate,
    pub(super) host: Host,
}

impl PollResult {
    /// Fetches and verifies the manifest. Closes the ESP first, because a slow server must not keep other
    /// processes from writing.
    pub(super) fn fetch(
        global: &Global,
        context: &mut Context,
        allow: Permissions,
    ) -> Result<Self> {
        reject_unknown(context)?;
        let target = target(context)?;
        let newest = newest(context, &target)?.filter(|_| !allow.downgrade);
        context.close();
        let timeouts = Timeouts::default().with_max_pause(global.longest_pause());
        let settings = &context.settings;
        let mut cdn = Cdn::new(&settings.network, &settings.allowed_origins, timeouts)?;
        let host = Host::new(&global.host_root);
        let cache = host.path(MANIFESTS);
        let request = CandidateRequest {
            bases: &settings.cdn,
            target: &target,
            keys: &settings.keys,
            now: effective_time(now(), host.image_epoch()),
            newest,
            cache: Some(&cache),
        };
        let candidate = fetch(&cdn, &request)?;
        let manifest = digest::of_bytes(candidate.token().as_bytes());
        cdn.remember_wrong_files(&host, &manifest, allow.retry_failed);
        Ok(Self { cdn, candidate, host })
    }
}

/// Fails if a broken source may set the CDN, or may have the key that signed the release that runs.
fn reject_unknown(context: &Context) -> Result<()> {
    if let Some(source) = context.merged.source_of_unknown_cdn() {
        bail!(
            "the CDN is not known, so nothing is installed: `cdn` from {source} is not usable; correct this configuration"
        );
    }
    let Some(source) = context.merged.source_of_unknown_keys() else { return Ok(()) };
    let esp = context.esp()?;
    let slot = context.booted.slot.unwrap_or_else(|| GrubenvFile::read(esp, Slot::A).state.good);
    if has_unknown_key(esp, slot, &context.settings.keys) {
        bail!(
            "the release in slot {slot} is signed with a key that is not known, and `keys` from {source} is not usable, so nothing is installed: correct this configuration"
        );
    }
    Ok(())
}

/// Returns the target of this host. Fails if no release for it could be fetched or verified.
fn target(context: &Context) -> Result<Target> {
    let settings = &context.settings;
    if settings.cdn.is_empty() {
        bail!("no CDN is configured: set \"cdn\", for example in etchaos/config.json on the ESP");
    }
    let variant = settings.variant.clone().context(
        "the variant of this host is unknown: /etc/os-release has no VARIANT_ID; set \"variant\", such as \"deb\"",
    )?;
    let arch = Arch::native().context("EtchaOS does not support this processor architecture")?;
    if settings.keys.is_empty() {
        bail!(
            "no key is trusted, so no release can be verified: the image has none in /usr/lib/etchaos/keys, and \"keys\" is not set"
        );
    }
    Ok(Target { variant, arch })
}

/// Returns the newest build of this target that a CDN has ever offered.
fn newest(context: &Context, target: &Target) -> Result<Option<u64>> {
    // The slot is only the good slot of a default state, which has no newest build.
    let state = GrubenvFile::read(context.esp()?, Slot::A).state;
    Ok(state.newest.filter(|newest| newest.target == *target).map(|newest| newest.build))
}
