//! What a healthy EtchaOS looks like from inside: a table of checks, sent to the guest as a Pattern.
//!
//! The texts are for any POSIX shell and any distribution. `$R` is the guest's root: empty there, a
//! directory of made-up files in this module's tests.

use std::fmt::Write as _;

use protocol::esp::Slot;
use protocol::pattern::{Command, Entry, Exec, Pattern};
use protocol::release::Release;

use crate::firmware::Firmware;

/// What the guest should be.
#[derive(Debug, Clone)]
pub struct Expected<'a> {
    /// The release that it runs.
    pub release: &'a Release,
    /// The slot that it runs from.
    pub slot: Slot,
    /// What booted it.
    pub firmware: Firmware,
    /// Whether it was given a TPM.
    pub tpm: bool,
    /// What `etchaos-updater --version` says, without the name.
    pub updater_version: &'a str,
}

/// A Command's id and text.
pub type Check = (&'static str, String);

/// A socket that may listen: protocol, local address as a shell pattern for what `ss` prints, and
/// whose it is.
const LISTENERS: [(&str, &str, &str); 3] = [
    ("tcp", "*:4000", "the updater, because the testbed configured it"),
    ("udp", "*:68", "the DHCP client"),
    ("udp", "*:546", "the DHCPv6 client"),
];

/// Goes in front of every text. What the kernel's log says at this level is seen on the console: if a
/// check hangs, its name is the console's last line.
const PRELUDE: &str = r#"R=${TESTBED_ROOT-}
say() { [ ! -w $R/dev/kmsg ] || echo "<4>testbed: $*" >$R/dev/kmsg; }
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

/// The checks for this guest, in the order in which they run.
///
/// The slot comes early: it waits for the confirmation of the boot, which the later ones want done.
pub fn checks(expected: &Expected<'_>) -> Vec<Check> {
    let release = expected.release;
    let mut checks = vec![
        ("no failed unit", NO_FAILED_UNIT.to_owned()),
        ("slot is confirmed", slot(expected)),
        ("firmware", firmware(expected.firmware).to_owned()),
        ("kernel", format!("expected='{}'\n{KERNEL}", release.kernel)),
        ("kernel command line", format!("slot={}\n{COMMAND_LINE}", expected.slot)),
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
    if expected.tpm {
        checks.push(("TPM 2.0", TPM.to_owned()));
    }
    checks
}

/// A Pattern of checks without changes.
pub fn pattern(checks: &[Check]) -> Pattern {
    let command = |(id, text): &Check| Command {
        id: (*id).to_owned(),
        check: Some(format!("{PRELUDE}say 'checking: {id}'\n{text}")),
        ..Command::default()
    };
    commands(checks.iter().map(command))
}

/// A Pattern of these Commands, for a POSIX shell.
pub fn commands(commands: impl IntoIterator<Item = Command>) -> Pattern {
    let entry = |command| Entry::Command(Box::new(command));
    Pattern {
        exec: Exec { command: "/bin/sh".into(), flags: "-c".into() },
        run: commands.into_iter().map(entry).collect(),
        ..Pattern::default()
    }
}

const NO_FAILED_UNIT: &str = r#"
state=$(timeout 300 systemctl is-system-running --wait)
[ "$state" = running ] && exit 0
echo "systemd says: ${state:-nothing, within 300 s}"
systemctl --no-pager --no-legend list-jobs
for unit in $(systemctl --failed --no-legend --plain | sed 's/ .*//'); do
  echo "failed: $unit"
  journalctl -b --no-pager -o cat -n 15 -u "$unit"
done
exit 1
"#;

fn slot(expected: &Expected<'_>) -> String {
    let Release { version, kernel, .. } = expected.release;
    format!("slot={} version='{version}' kernel='{kernel}'\n{SLOT_CONFIRMED}", expected.slot)
}

// The confirming service runs after boot-complete.target, so perhaps after the listener answers.
const SLOT_CONFIRMED: &str = r#"
confirmed() {
  now=$(etchaos-updater status --json | tr -d ' \n\t')
  case $now in *'"trial":null'*) ;; *) return 1 ;; esac
  case $now in *"\"good\":\"$slot\""*) ;; *) return 1 ;; esac
}
if ! eventually "${TESTBED_TIMEOUT-90}" confirmed; then
  echo "expected slot $slot to be confirmed, the updater says:"
  etchaos-updater status
  journalctl -b --no-pager -o cat -n 15 -u etchaos-confirm.service
  exit 1
fi
running=$(echo "$now" | grep -o '"running":{[^}]*}')
for part in "\"slot\":\"$slot\"" "\"version\":\"$version\"" "\"kernel\":\"$kernel\""; do
  case $running in *"$part"*) ;; *) fail "expected $part, found $running" ;; esac
done
"#;

fn firmware(firmware: Firmware) -> &'static str {
    match firmware {
        Firmware::UefiSecureboot => {
            r#"
[ -d $R/sys/firmware/efi ] || fail "expected UEFI, there is no /sys/firmware/efi"
variable=$R/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c
[ -e $variable ] || fail "expected the UEFI variable SecureBoot, there is none (is efivarfs mounted?)"
bytes=$(od -An -v -t u1 $variable | tr -s ' \n' ' ')
# Four bytes of attributes, one of value.
case ${bytes% } in *' 1') ;; *) fail "expected Secure Boot enabled, the variable has the bytes:$bytes" ;; esac
"#
        }
        Firmware::Uefi => {
            r#"[ -d $R/sys/firmware/efi ] || fail "expected UEFI, there is no /sys/firmware/efi""#
        }
        Firmware::Bios => {
            r#"[ ! -e $R/sys/firmware/efi ] || fail "expected a BIOS, there is /sys/firmware/efi""#
        }
    }
}

const KERNEL: &str = r#"
[ "$(uname -r)" = "$expected" ] || fail "expected kernel $expected, $(uname -r) is running"
"#;

const COMMAND_LINE: &str = r#"
line=$(cat $R/proc/cmdline)
for word in "etchaos.slot=$slot" console=tty0 console=ttyS0,115200; do
  case " $line " in *" $word "*) ;; *) fail "expected $word, found: $line" ;; esac
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

/// The manifest's list travels within the text: 250 packages take 10 kB, an argument may have 128.
fn packages(release: &Release) -> String {
    let list = release.packages.iter().fold(String::new(), |mut list, package| {
        let _ = writeln!(list, "{package}");
        list
    });
    format!(
        r#"
dir=$(mktemp -d) || fail "cannot make a temporary directory"
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

// As process 1 sees it: the listener may live in a stricter world of its own.
const USR_READ_ONLY: &str = r#"
mount=$(grep ' /usr ' $R/proc/1/mounts) || fail "/usr is not a mount of its own"
case $mount in
*' ro,'* | *' ro '*) ;;
*) fail "expected a read-only mount, found: $mount" ;;
esac
if touch $R/usr/testbed-was-here; then
  rm -f $R/usr/testbed-was-here
  fail "expected that nothing can be written to /usr, but a file was created there"
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
said=$(etchaos-updater --version) || fail "etchaos-updater --version failed: $said"
[ "${said##* }" = "$expected" ] || fail "expected version $expected, found: $said"
"#;

/// Sockets that only this host itself can reach are nobody's door.
fn listening_ports() -> String {
    let mut allowed = String::new();
    for (protocol, address, whose) in LISTENERS {
        let _ = writeln!(allowed, "  {protocol}\\ {address}) ;; # {whose}");
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
[ -z "$unexpected" ] || fail "listening and not on the list: $unexpected"
"#
    )
}

// A locked hash is a secret of the machine all the same, and an empty field needs no password.
const NO_PASSWORDS: &str = r#"
for file in $R/etc/passwd $R/etc/shadow; do
  with=$(grep -vE '^[^:]*:(\*|!|!!|!\*|x):' $file | sed 's/:.*//')
  [ -z "$with" ] || fail "expected no password in $file, but these have one, or an empty one: $with"
done
"#;

const NO_PRIVATE_KEYS: &str = r#"
with=$(grep -rlE -e '-----BEGIN [A-Z ]*PRIVATE KEY-----' $R/etc $R/root $R/home)
[ -z "$with" ] || fail "expected no private keys in the image, found: $with"
"#;

const DOCKER_ANSWERS: &str = r#"
server() { docker version --format '{{.Server.Version}}'; }
eventually "${TESTBED_TIMEOUT-60}" server || {
  journalctl -b --no-pager -o cat -n 15 -u docker.service
  exit 1
}
"#;

// Without a registry: an image of links into the host's own /usr, which is mounted. That the shell
// is process 1 shows that it is in a container.
const DOCKER_RUNS: &str = r#"
links=
for link in bin sbin lib lib64; do
  [ ! -L "/$link" ] || links="$links $link"
done
tar -C / -c $links | docker import - etchaos-testbed >/dev/null || fail "docker import failed"
said=$(docker run --rm -v /usr:/usr:ro etchaos-testbed /bin/sh -c 'echo "process $$"' 2>&1)
docker image rm etchaos-testbed >/dev/null
[ "$said" = "process 1" ] || fail "expected a container to say 'process 1', found: $said"
"#;

const TPM: &str = r#"
version=$(cat $R/sys/class/tpm/tpm0/tpm_version_major) || fail "there is no TPM"
[ "$version" = 2 ] || fail "expected a TPM 2, found version $version"
"#;

#[cfg(test)]
mod tests;
