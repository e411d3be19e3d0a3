//! What the CDN offers.

use anyhow::{Context, Result, bail};
use protocol::claims::effective_time;
use protocol::esp::Slot;
use protocol::{Arch, Target};

use super::Opened;
use crate::candidate::{Candidate, CandidateRequest, fetch};
use crate::cdn::{Cdn, Timeouts};
use crate::cli::Global;
use crate::clock::now;
use crate::grubenv_file::GrubenvFile;
use crate::host::Host;
use crate::plan::Permissions;

/// Where manifests are remembered until the next reboot.
const MANIFESTS: &str = "/run/etchaos/manifests";

/// What the CDN offers, and the CDN.
pub(super) struct Offer {
    pub(super) cdn: Cdn,
    pub(super) candidate: Candidate,
}

impl Offer {
    /// Asks for it with the ESP closed: a server may take its time, and others want to write.
    pub(super) fn get(global: &Global, opened: &mut Opened, allow: Permissions) -> Result<Self> {
        let target = target(opened)?;
        let newest = newest(opened, &target)?.filter(|_| !allow.downgrade);
        opened.close();
        let times = Timeouts::default().with_max_pause(global.longest_pause());
        let settings = &opened.settings;
        let cdn = Cdn::new(&settings.network, &settings.allowed_origins, times)?;
        let host = Host::new(&global.host_root);
        let cache = host.path(MANIFESTS);
        let wanted = CandidateRequest {
            bases: &settings.cdn,
            target: &target,
            keys: &settings.keys,
            now: effective_time(now(), host.image_epoch()),
            newest,
            cache: Some(&cache),
        };
        let candidate = fetch(&cdn, &wanted)?;
        Ok(Self { cdn, candidate })
    }
}

/// What to ask for, and whether there is anybody to ask.
fn target(opened: &Opened) -> Result<Target> {
    let settings = &opened.settings;
    if settings.cdn.is_empty() {
        bail!("no CDN is configured: set \"cdn\", for example in etchaos/config.json on the ESP");
    }
    let variant = settings.variant.clone().context(
        "the variant is not known: /etc/os-release has no VARIANT_ID; set \"variant\", such as \"deb\"",
    )?;
    let arch = Arch::native().context("EtchaOS is not made for this processor architecture")?;
    if settings.keys.is_empty() {
        bail!(
            "no key is trusted, so no release can be verified: the image has none in /usr/lib/etchaos/keys, and \"keys\" is not set"
        );
    }
    Ok(Target { variant, arch })
}

/// The newest build of this target that was ever offered.
fn newest(opened: &Opened, target: &Target) -> Result<Option<u64>> {
    // Which slot is good does not matter here.
    let state = GrubenvFile::read(opened.esp()?, Slot::A).state;
    Ok(state.newest.filter(|newest| newest.target == *target).map(|newest| newest.build))
}
