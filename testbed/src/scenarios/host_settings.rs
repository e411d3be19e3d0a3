//! A host whose name, network and time servers come from its configuration.

use clap::Args;
use protocol::pattern::Mode;
use serde_json::{Map, Value, json};

use super::interface::{Passed, Scenario};
use crate::actions;
use crate::args::ScenarioArgs;
use crate::artifacts::Artifacts;
use crate::checks;
use crate::environment::TestEnvironment;
use crate::firmware::Firmware;
use crate::guest::Guest;
use crate::report::Step;
use crate::scenario::{Outcome, ScenarioError, Steps};

const BOOT: Step = Step::new("boot", "boot with a static network");
const VALIDATE: Step = Step::new("validate", "check host name, network and time servers");
const CHANGE: Step = Step::new("change", "change the settings of the running host");
const BREAK: Step = Step::new("break", "write settings with an error to the disk");
const BOOT_BROKEN: Step = Step::new("boot-broken", "boot with the broken settings");
const VALIDATE_BROKEN: Step = Step::new("validate-broken", "check that DHCP is used");
const POWER_OFF_BROKEN: Step = Step::new("power-off-broken", "power off again");

/// Boot a host with a static network, a host name and time servers
///
/// Boots the disk image under UEFI Secure Boot with a TPM and with these settings in SMBIOS strings, and checks
/// from inside that the host uses them, and no DHCP. Changes them while the host runs. Then boots with settings
/// on the EFI system partition that have an error: the host has to come up by DHCP and to report the error.
#[derive(Debug, Args)]
pub(crate) struct HostSettings {
    /// Options of every scenario
    #[command(flatten)]
    common: ScenarioArgs,
}

impl Scenario for HostSettings {
    type Findings = Passed;

    fn common(&self) -> &ScenarioArgs {
        &self.common
    }

    fn play(&self, artifacts: &Artifacts, steps: &mut Steps<'_>) -> Result<Passed, ScenarioError> {
        let mut environment = TestEnvironment::prepare(artifacts, &[], steps)?;
        let firmware = Firmware::uefi(&artifacts.release);
        environment.configured = settings("web1", 1400);

        let mut guest = steps.run(BOOT, || boot(&environment, "static", firmware))?;
        steps.run(VALIDATE, || check(&mut guest, "static network", STATIC))?;
        steps.run(CHANGE, || check(&mut guest, "changed settings", &change()))?;
        steps.run(BREAK, || {
            let pattern = actions::configure(BROKEN);
            guest.push("writing the configuration", pattern, Mode::Change)?;
            Ok(((), String::new()))
        })?;
        steps.power_off(guest)?;

        environment.configured.clear();
        let mut guest = steps.run(BOOT_BROKEN, || boot(&environment, "broken", firmware))?;
        steps.run(VALIDATE_BROKEN, || check(&mut guest, "DHCP", DYNAMIC))?;
        steps.run(POWER_OFF_BROKEN, || Ok(((), guest.power_off()?.to_owned())))?;
        Ok(Passed)
    }
}

/// Returns settings for the network of QEMU, with an MTU that DHCP would not give.
fn settings(hostname: &str, mtu: u32) -> Map<String, Value> {
    let interface = json!({
        "match": {"driver": "virtio_net"},
        "addresses": ["10.0.2.15/24", "192.0.2.10/24"],
        "gateways": ["10.0.2.2"],
        "dns": ["10.0.2.3"],
        "domains": ["example.org"],
        "mtu": mtu,
    });
    Map::from_iter([
        ("hostname".into(), hostname.into()),
        ("interfaces".into(), json!({ "lan": interface })),
        ("ntp".into(), json!(["192.0.2.123"])),
    ])
}

fn boot<'a>(
    environment: &'a TestEnvironment<'a>,
    name: &str,
    firmware: Firmware,
) -> Outcome<Guest<'a>> {
    let (guest, _) = environment.boot(name, firmware, None)?;
    Ok((guest, firmware.to_string()))
}

/// Waits until the boot has finished, because the host applies its settings a second time when the network is up.
/// Then runs a script.
fn check(guest: &mut Guest<'_>, id: &'static str, script: &str) -> Outcome<()> {
    let finished = ("no failed unit", checks::NO_FAILED_UNIT.to_owned());
    let pattern = checks::pattern(&[finished, (id, script.to_owned())]);
    guest.push("checking the settings of the guest", pattern, Mode::Check)?;
    Ok(((), id.to_owned()))
}

/// Returns a script that changes the settings of the running host, and checks that they apply.
fn change() -> String {
    format!("config='{}'\n{CHANGED}", Value::Object(settings("web2", 1300)))
}

/// A configuration whose address is that of a network, and not of a host.
const BROKEN: &str =
    r#"{"interfaces": {"lan": {"match": {"name": "en*"}, "addresses": ["10.0.2.0/24"]}}}"#;

const STATIC: &str = r#"
[ "$(cat /proc/sys/kernel/hostname)" = web1 ] || fail "host name: $(cat /proc/sys/kernel/hostname)"
has_address() { ip -o -4 address show scope global | grep -q " $1 "; }
for address in 10.0.2.15/24 192.0.2.10/24; do
  eventually 30 has_address $address || fail "no $address: $(ip address; networkctl --no-pager status)"
done
! ip -o -4 address | grep -w dynamic || fail "an address is dynamic"
has_route() { ip -4 route show default | grep 'via 10.0.2.2 .*proto static'; }
eventually 30 has_route || fail "routes: $(ip route)"
ip -o link | grep 'mtu 1400' || fail "links: $(ip link)"
has_server() { grep -x 'nameserver 10.0.2.3' /etc/resolv.conf; }
eventually 30 has_server || fail "resolv.conf: $(cat /etc/resolv.conf)"
grep -w example.org /etc/resolv.conf || fail "resolv.conf: $(cat /etc/resolv.conf)"
servers=$(timedatectl show-timesync --property=SystemNTPServers --property=FallbackNTPServers) || fail "timedatectl failed: $servers"
case $servers in *192.0.2.123*) ;; *) fail "time servers: $servers" ;; esac
case $servers in *pool*|*ntp.org*) fail "time servers: $servers" ;; esac
ss -H -l -n -u | grep ':68 ' && fail "a DHCP client runs"
# The settings are there before the network starts.
stamp() { systemctl show --property="$2" --value "$1"; }
written=$(stamp etchaos-host-settings.service ExecMainExitTimestampMonotonic)
started=$(stamp systemd-networkd.service ExecMainStartTimestampMonotonic)
[ "$written" -gt 0 ] && [ "$written" -le "$started" ] || fail "written at $written us, network started at $started us"
begun=$(stamp etchaos-host-settings.service InactiveExitTimestampMonotonic)
log "the host settings took $(((written - begun) / 1000)) ms"
etchaos-updater status
"#;

const CHANGED: &str = r#"
echo "$config" >/run/testbed-settings.json
etchaos-updater --config /run/testbed-settings.json host-settings || fail "host-settings failed"
[ "$(cat /proc/sys/kernel/hostname)" = web2 ] || fail "host name: $(cat /proc/sys/kernel/hostname)"
has_mtu() { ip -o link | grep -q 'mtu 1300'; }
eventually 30 has_mtu || fail "links: $(ip link)"
has_route() { ip -4 route show default | grep 'via 10.0.2.2'; }
eventually 30 has_route || fail "routes: $(ip route)"
"#;

const DYNAMIC: &str = r#"
[ "$(cat /proc/sys/kernel/hostname)" = etchaos ] || fail "host name: $(cat /proc/sys/kernel/hostname)"
ip -o -4 address show scope global dynamic | grep 10.0.2.15/24 || fail "addresses: $(ip address)"
status=$(etchaos-updater status)
[ $? = 1 ] || fail "status: $status"
case $status in *'"interfaces.lan.addresses" from ESP'*) ;; *) fail "status: $status" ;; esac
"#;
