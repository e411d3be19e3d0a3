//! The checks of a healthy guest, which run inside it as a Pattern.
//!
//! The scripts work in every POSIX shell and on every distribution. `$R` is the root of the guest: empty
//! in a real guest, a directory of fake files in the tests of this module.

use std::fmt::Write as _;

use protocol::Arch;
use protocol::esp::Slot;
use protocol::pattern::{Command, Entry, Exec, Pattern};
use protocol::release::Release;

use crate::firmware::Firmware;
use crate::platform::platform;

/// The expected state of the guest.
#[derive(Debug, Clone)]
pub(crate) struct Expected<'a> {
    /// The running release.
    pub release: &'a Release,
    /// The slot of the running release; `None` if it was booted from the network.
    pub slot: Option<Slot>,
    /// The firmware.
    pub firmware: Firmware,
    /// The version that `etchaos-updater --version` prints.
    pub updater_version: &'a str,
}

/// The id and the script of a Command.
pub(crate) type Check = (&'static str, String);

/// The sockets that may listen: protocol, local address in the output of `ss` as a shell pattern, and
/// owner.
const LISTENERS: [(&str, &str, &str); 3] = [
    ("tcp", "*:4000", "the updater, because the testbed configured it"),
    ("udp", "*:68", "the DHCP client"),
    ("udp", "*:546", "the DHCPv6 client"),
];

/// The beginning of every script. The kernel prints messages of level 4 on the console: if a check hangs,
/// the last line of the console names it.
const PRELUDE: &str = r#"R=${TESTBED_ROOT-}
log() { [ ! -w $R/dev/kmsg ] || echo "<4>testbed: $*" >$R/dev/kmsg; }
fail() { echo "$*"; exit 1; }
# eventually SECONDS COMMAND…
eventually() {
  end=$(($(date +%s) + $1))
  shift
  until "$@"; do
    [ "$(date +%s)" -lt "$end" ] || return 1
    sleep 1
  done
}
"#;

/// Returns the checks for a guest, in the order in which they run.
///
/// The check of the slot is early, because it waits for the confirmation of the boot, which the later
/// checks require.
pub(crate) fn checks(expected: &Expected<'_>) -> Vec<Check> {
    let release = expected.release;
    let mut checks = vec![
        ("no failed unit", NO_FAILED_UNIT.to_owned()),
        match expected.slot {
            Some(slot) => ("slot is confirmed", confirmed(expected.release, slot)),
            None => ("no slot", NO_SLOT.to_owned()),
        },
        ("firmware", firmware(expected.firmware).to_owned()),
        ("kernel", format!("expected='{}'\n{KERNEL}", release.kernel)),
        ("kernel command line", command_line(expected.slot, release.arch)),
        ("os-release", os_release(release)),
        ("packages", packages(release)),
        ("/usr is read-only", USR_READ_ONLY.to_owned()),
        ("root is in memory", ROOT_IN_MEMORY.to_owned()),
        ("updater version", format!("expected='{}'\n{UPDATER}", expected.updater_version)),
        ("no unexpected listening port", listening_ports()),
        ("no passwords", NO_PASSWORDS.to_owned()),
        ("no private keys", NO_PRIVATE_KEYS.to_owned()),
        ("Docker answers", DOCKER_ANSWERS.to_owned()),
        ("Docker runs a container", DOCKER_RUNS.to_owned()),
    ];
    if expected.firmware.has_tpm() {
        checks.push(("TPM 2.0", TPM.to_owned()));
    }
    checks
}

/// Returns a Pattern of checks without changes.
pub(crate) fn pattern(checks: &[Check]) -> Pattern {
    let command = |(id, script): &Check| Command {
        id: (*id).to_owned(),
        check: Some(format!("{PRELUDE}log 'checking: {id}'\n{script}")),
        ..Command::default()
    };
    commands(checks.iter().map(command))
}

/// Returns a Pattern that runs Commands in a POSIX shell.
pub(crate) fn commands(commands: impl IntoIterator<Item = Command>) -> Pattern {
    let entry = |command| Entry::Command(Box::new(command));
    Pattern {
        exec: Exec::new("/bin/sh", "-c"),
        run: commands.into_iter().map(entry).collect(),
        ..Pattern::default()
    }
}

/// Waits until the boot has finished, and fails if a unit has failed.
pub(crate) const NO_FAILED_UNIT: &str = r#"
state=$(timeout 300 systemctl is-system-running --wait)
[ "$state" = running ] && exit 0
echo "expected the system state running, found: ${state:-none within 300 s}"
systemctl --no-pager --no-legend list-jobs
for unit in $(systemctl --failed --no-legend --plain | sed 's/ .*//'); do
  echo "failed: $unit"
  journalctl -b --no-pager -o cat -n 15 -u "$unit"
done
exit 1
"#;

fn confirmed(release: &Release, slot: Slot) -> String {
    let Release { version, kernel, .. } = release;
    format!("slot={slot} version='{version}' kernel='{kernel}'\n{SLOT_CONFIRMED}")
}

// The units of the updater have to be skipped: one that failed would make the host degraded.
const NO_SLOT: &str = r#"
status=$(etchaos-updater status --json) || fail "etchaos-updater status failed: $status"
case $(echo "$status" | tr -d ' \n\t') in
*'"running":null'*'"slots":null'*) ;;
*) fail "expected no running slot, found the status: $status" ;;
esac
for unit in etchaos-updater.service etchaos-confirm.service etchaos-health.service; do
  systemctl start $unit || fail "expected $unit to be skipped, but it failed"
done
"#;

// The service that confirms the boot runs after boot-complete.target, so the listener may answer earlier.
const SLOT_CONFIRMED: &str = r#"
confirmed() {
  status=$(etchaos-updater status --json | tr -d ' \n\t')
  case $status in *'"trial":null'*) ;; *) return 1 ;; esac
  case $status in *"\"good\":\"$slot\""*) ;; *) return 1 ;; esac
}
if ! eventually "${TESTBED_TIMEOUT-90}" confirmed; then
  echo "expected slot $slot to be confirmed, found the status:"
  etchaos-updater status
  journalctl -b --no-pager -o cat -n 15 -u etchaos-confirm.service
  exit 1
fi
running=$(echo "$status" | grep -o '"running":{[^}]*}')
for part in "\"slot\":\"$slot\"" "\"version\":\"$version\"" "\"kernel\":\"$kernel\""; do
  case $running in *"$part"*) ;; *) fail "expected $part, found $running" ;; esac
done
"#;

fn firmware(firmware: Firmware) -> &'static str {
    match firmware {
        Firmware::UefiSecureboot => {
            r#"
[ -d $R/sys/firmware/efi ] || fail "expected UEFI, /sys/firmware/efi does not exist"
variable=$R/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
[ -e $variable ] || fail "expected the UEFI variable SecureBoot, found none; check that efivarfs is mounted"
bytes=$(od -An -v -t u1 $variable | tr -s ' \n' ' ')
# Four bytes of attributes, one of value.
case ${bytes% } in *' 1') ;; *) fail "expected Secure Boot to be enabled, found the variable with the bytes:$bytes" ;; esac
"#
        }
        Firmware::Uefi => {
            r#"[ -d $R/sys/firmware/efi ] || fail "expected UEFI, /sys/firmware/efi does not exist""#
        }
        Firmware::Bios => {
            r#"[ ! -e $R/sys/firmware/efi ] || fail "expected a BIOS, /sys/firmware/efi exists""#
        }
    }
}

const KERNEL: &str = r#"
[ "$(uname -r)" = "$expected" ] || fail "expected kernel $expected, $(uname -r) is running"
"#;

fn command_line(slot: Option<Slot>, arch: Arch) -> String {
    let slot = slot.map_or_else(String::new, |slot| slot.to_string());
    format!("slot={slot} serial={}\n{COMMAND_LINE}", platform(arch).serial)
}

const COMMAND_LINE: &str = r#"
line=$(cat $R/proc/cmdline)
if [ -z "$slot" ]; then
  case $line in *etchaos.slot=* | *etchaos.esp=*) fail "expected no slot and no ESP, found: $line" ;; esac
fi
for parameter in ${slot:+etchaos.slot=$slot} console=tty0 console=$serial,115200; do
  case " $line " in *" $parameter "*) ;; *) fail "expected $parameter, found: $line" ;; esac
done
"#;

fn os_release(release: &Release) -> String {
    format!("variant='{}' version='{}'\n{OS_RELEASE}", release.variant, release.version)
}

const OS_RELEASE: &str = r#"
. $R/etc/os-release
[ "$IMAGE_ID" = etchaos ] || fail "expected IMAGE_ID=etchaos, found '$IMAGE_ID'"
[ "$VARIANT_ID" = "$variant" ] || fail "expected VARIANT_ID=$variant, found '$VARIANT_ID'"
[ "$IMAGE_VERSION" = "$version" ] || fail "expected IMAGE_VERSION=$version, found '$IMAGE_VERSION'"
"#;

/// The script contains the package list of the manifest: 250 packages take 10 kB, and the limit for an
/// argument is 128 kB.
fn packages(release: &Release) -> String {
    let list = release.packages.iter().fold(String::new(), |mut list, package| {
        let _ = writeln!(list, "{package}");
        list
    });
    format!(
        r#"
dir=$(mktemp -d) || fail "cannot create a temporary directory"
trap 'rm -rf "$dir"' EXIT
LC_ALL=C sort >"$dir/manifest" <<'END'
{list}END
$R/usr/lib/etchaos/packages >"$dir/unsorted" || fail "/usr/lib/etchaos/packages failed"
LC_ALL=C sort "$dir/unsorted" >"$dir/image"
cmp -s "$dir/manifest" "$dir/image" && exit 0
echo "only the manifest has:"
LC_ALL=C comm -23 "$dir/manifest" "$dir/image"
echo "only the image has:"
LC_ALL=C comm -13 "$dir/manifest" "$dir/image"
exit 1
"#
    )
}

// The mounts are those of process 1, because the listener may run in a stricter mount namespace.
const USR_READ_ONLY: &str = r#"
mount=$(grep ' /usr ' $R/proc/1/mounts) || fail "expected a mount at /usr, found none"
case $mount in
*' ro,'* | *' ro '*) ;;
*) fail "expected a read-only mount, found: $mount" ;;
esac
if touch $R/usr/testbed-was-here; then
  rm -f $R/usr/testbed-was-here
  fail "expected a read-only /usr, but a file was created there"
fi 2>/dev/null
"#;

const ROOT_IN_MEMORY: &str = r#"
mount=$(grep -v '^rootfs' $R/proc/1/mounts | grep '^[^ ]* / ')
case $mount in
*' / tmpfs '*) ;;
*) fail "expected a tmpfs as root, found: $mount" ;;
esac
"#;

const UPDATER: &str = r#"
output=$(etchaos-updater --version) || fail "etchaos-updater --version failed: $output"
[ "${output##* }" = "$expected" ] || fail "expected version $expected, found: $output"
"#;

/// Sockets on the loopback are allowed, because other hosts cannot reach them.
fn listening_ports() -> String {
    let mut allowed = String::new();
    for (protocol, address, owner) in LISTENERS {
        let _ = writeln!(allowed, "  {protocol}\\ {address}) ;; # {owner}");
    }
    format!(
        r#"
found=$(ss -Hlntup) || fail "ss failed: $found"
unexpected=$(echo "$found" | while read -r protocol state received sent address rest; do
  case "$protocol $address" in
  *\ 127.*|*\ \[::1\]:*|\ ) ;;
{allowed}  *) echo "$protocol $address $rest" ;;
  esac
done)
[ -z "$unexpected" ] || fail "unexpected listening sockets: $unexpected"
"#
    )
}

// The hash of a locked account is still a secret, and an empty field permits a login without a password.
const NO_PASSWORDS: &str = r#"
for file in $R/etc/passwd $R/etc/shadow; do
  accounts=$(grep -vE '^[^:]*:(\*|!|!!|!\*|x):' $file | sed 's/:.*//')
  [ -z "$accounts" ] || fail "expected no password in $file, found accounts with a password or an empty one: $accounts"
done
"#;

const NO_PRIVATE_KEYS: &str = r#"
files=$(grep -rlE -e '-----BEGIN [A-Z ]*PRIVATE KEY-----' $R/etc $R/root $R/home)
[ -z "$files" ] || fail "expected no private keys in the image, found: $files"
"#;

const DOCKER_ANSWERS: &str = r#"
server() { docker version --format '{{.Server.Version}}'; }
eventually "${TESTBED_TIMEOUT-60}" server || {
  journalctl -b --no-pager -o cat -n 15 -u docker.service
  exit 1
}
"#;

// No registry is needed: the image contains only links into /usr, which is mounted from the host. A shell
// with the process id 1 runs in a container.
const DOCKER_RUNS: &str = r#"
links=
for link in bin sbin lib lib64; do
  [ ! -L "/$link" ] || links="$links $link"
done
tar -C / -c $links | docker import - etchaos-testbed >/dev/null || fail "docker import failed"
output=$(docker run --rm -v /usr:/usr:ro etchaos-testbed /bin/sh -c 'echo "process $$"' 2>&1)
docker image rm etchaos-testbed >/dev/null
[ "$output" = "process 1" ] || fail "expected the output 'process 1' of a container, found: $output"
"#;

const TPM: &str = r#"
version=$(cat $R/sys/class/tpm/tpm0/tpm_version_major) || fail "expected a TPM, found none"
[ "$version" = 2 ] || fail "expected a TPM 2, found version $version"
"#;

#[cfg(test)]
mod tests;
