//! The Patterns that change a guest or query its state.

use protocol::Variant;
use protocol::esp::Slot;
use protocol::pattern::{Command, Pattern};

use crate::checks::commands;
use crate::derived::MARKER;

/// The id of the Command that prints the boot id.
pub(crate) const BOOT_ID: &str = "boot id";
/// The id of the Command that checks the state of the update.
pub(crate) const UPDATE: &str = "etchaos-updater.service";

/// The id of the Command that measures the boot.
pub(crate) const MEASURE: &str = "measure the boot";

/// Prints the boot id.
pub(crate) fn boot_id() -> Pattern {
    commands([check(BOOT_ID, "cat /proc/sys/kernel/random/boot_id")])
}

/// Deletes the kernel and the initrd of slot `a`. The next update of the host must repair the slot.
pub(crate) fn damage() -> Pattern {
    let text = format!("{MOUNT_ESP}{DAMAGE}");
    commands([change("delete kernel and initrd of slot a", &text)])
}

/// Sets the variant that the host follows, in the configuration on the ESP.
pub(crate) fn follow(variant: &Variant) -> Pattern {
    let text = format!("variant={variant}\n{MOUNT_ESP}{FOLLOW}");
    commands([change("set the variant", &text)])
}

/// Replaces the configuration on the ESP. The JSON must have no single quotes.
pub(crate) fn configure(json: &str) -> Pattern {
    let write = "printf '%s\\n' \"$config\" >\"$dir/etchaos/config.json\" || exit 1\nsync\n";
    commands([change("write the configuration", &format!("config='{json}'\n{MOUNT_ESP}{write}"))])
}

/// Starts the update as the timer does. The reboot may interrupt the answer.
pub(crate) fn update() -> Pattern {
    // Without the pause, the next query could see the state before the start.
    let start = "systemctl start --no-block etchaos-updater.service && sleep 1";
    commands([change("start the update", start)])
}

/// Installs the published release and boots it with a single try.
pub(crate) fn update_for_one_try() -> Pattern {
    let start = format!(
        "systemd-run --quiet --collect --unit=testbed-one-try /bin/sh -c '{ONE_TRY}' && sleep 1"
    );
    commands([change("update for one try", &start)])
}

/// Checks that the updater refuses the published release because it is known to have failed.
pub(crate) fn refuse_failed() -> Pattern {
    commands([check("failed release is refused", REFUSE_FAILED)])
}

/// Rolls back to the other slot and boots it. The reboot may interrupt the answer.
pub(crate) fn roll_back() -> Pattern {
    // The updater may reboot as well; a second request does no harm.
    let text = "etchaos-updater rollback && systemctl reboot --no-block && sleep 1";
    commands([change("roll back", text)])
}

/// Checks that the system was booted from `slot` and runs the derived release with `build`. A `build` of 0
/// stands for the release under test.
pub(crate) fn identify(slot: Slot, build: u64) -> Pattern {
    let text = format!("slot={slot} build={build} marker=/{MARKER}\n{IDENTIFY}");
    commands([check("running release", &text)])
}

/// Checks that the host uses the ESP of this disk, such as `vda`, and that its slots can be read.
pub(crate) fn expect_boot_disk(disk: &str) -> Pattern {
    let text = format!("disk={disk}\n{BOOT_DISK}");
    commands([check("boot disk", &text)])
}

/// Truncates the initrd of a slot, so that its kernel panics, and reboots. The manifest and the mark of a
/// confirmed release stay.
pub(crate) fn break_release(slot: Slot) -> Pattern {
    let text = format!("slot={slot}\n{MOUNT_ESP}{BREAK}");
    commands([change("truncate the initrd", &text)])
}

/// Prints the boot id and checks the state of the update.
pub(crate) fn watch_update() -> Pattern {
    commands([check(BOOT_ID, "cat /proc/sys/kernel/random/boot_id"), check(UPDATE, WATCH)])
}

/// Waits for the end of the boot and prints its times, and the use of memory, for
/// [`figures`](crate::figures).
pub(crate) fn measure() -> Pattern {
    commands([check(MEASURE, MEASURE_BOOT)])
}

/// Reboots the guest once from `url` by UEFI HTTP boot. The reboot may interrupt the answer.
pub(crate) fn boot_url(url: &str) -> Pattern {
    let octal =
        |bytes: Vec<u8>| bytes.iter().map(|byte| format!("\\{byte:03o}")).collect::<String>();
    let (option, next) = (octal(boot_option(url)), octal(BOOT_NEXT.to_vec()));
    let text = format!("option='{option}' next='{next}'\n{BOOT_ONCE}");
    commands([change("boot from a URL", &text)])
}

/// Returns the content of a boot option of the firmware: attributes of the variable, and an
/// `EFI_LOAD_OPTION` with a device path that consists of a URL (UEFI specification, sections 3.1.3 and
/// 10.3.4.23).
fn boot_option(url: &str) -> Vec<u8> {
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_le_bytes();
    let mut path = vec![0x03, 0x18];
    path.extend(length(4 + url.len()));
    path.extend(url.bytes());
    path.extend([0x7f, 0xff, 4, 0]);
    // The option is active and has the description "u".
    let mut option = vec![7, 0, 0, 0, 1, 0, 0, 0];
    option.extend(length(path.len()));
    option.extend([b'u', 0, 0, 0]);
    option.extend(path);
    option
}

/// Checks something that the sources of the guest did.
pub(crate) fn sources(text: &str) -> Pattern {
    commands([check("sources", text)])
}

/// Pulls and runs all sources. They run after the end of this push, because one Pattern runs at a time.
pub(crate) fn start_sources() -> Pattern {
    let start = "systemd-run --quiet --collect /bin/sh -c \
        'etchaos-updater sources --pull --all; etchaos-updater sources --all'";
    commands([change("start the sources", start)])
}

/// Reboots the guest. The reboot may interrupt the answer.
pub(crate) fn reboot() -> Pattern {
    commands([change("reboot", "systemctl reboot --no-block && sleep 1")])
}

/// Powers the guest off. The shutdown may interrupt the answer.
pub(crate) fn power_off() -> Pattern {
    commands([change("power off", "systemctl poweroff --no-block")])
}

/// Runs a script that checks something.
pub(crate) fn check_script(id: &str, text: &str) -> Pattern {
    commands([check(id, text)])
}

/// Runs a script that changes something.
pub(crate) fn run_script(id: &str, text: &str) -> Pattern {
    commands([change(id, text)])
}

fn check(id: &str, text: &str) -> Command {
    Command { id: id.into(), check: Some(text.into()), ..Command::default() }
}

fn change(id: &str, text: &str) -> Command {
    Command { id: id.into(), change: Some(text.into()), always: true, ..Command::default() }
}

// Mounts the ESP at $dir. The trap of the shell unmounts it, also if a later step fails.
const MOUNT_ESP: &str = r#"
esp=$(sed -n 's/.*etchaos\.esp=\([^ ]*\).*/\1/p' /proc/cmdline)
[ -n "$esp" ] || { echo "no etchaos.esp= on the kernel command line"; exit 1; }
dir=$(mktemp -d /run/testbed.XXXXXX) || exit 1
mount -t vfat "/dev/disk/by-uuid/$esp" "$dir" || { ls -l /dev/disk/by-uuid; exit 1; }
trap 'umount "$dir" && rmdir "$dir"' EXIT
"#;

const DAMAGE: &str = r#"
rm "$dir/etchaos/a/vmlinuz" "$dir/etchaos/a/initrd" || exit 1
sync
ls -l "$dir/etchaos/a"
"#;

const BOOT_DISK: &str = r#"
found=$(readlink /run/etchaos/boot-disk)
case $found in /dev/"$disk"[0-9]*) ;; *) echo "expected /dev/$disk, found: $found"; exit 1 ;; esac
etchaos-updater verify
"#;

const BREAK: &str = r#"
initrd=$dir/etchaos/$slot/initrd
truncate --size=$(($(stat --format=%s "$initrd") / 10 * 6)) "$initrd" || exit 1
umount "$dir" && trap - EXIT && systemctl reboot --no-block && sleep 1
"#;

const FOLLOW: &str = r#"
printf '{"variant": "%s"}\n' "$variant" >"$dir/etchaos/config.json" || exit 1
sync
"#;

// The updater reboots after an installation, so an end without a reboot is a failure, too.
const WATCH: &str = r#"
unit=etchaos-updater.service
state=$(systemctl show -P ActiveState $unit)
echo "$unit: $state, result: $(systemctl show -P Result $unit); end of its log:"
journalctl -b --no-pager -o cat -n 12 -u $unit
[ "$state" != failed ] || exit 1
ended=$(systemctl show -P InactiveEnterTimestampMonotonic $unit)
if [ "$state" = inactive ] && [ "${ended:-0}" -gt 0 ]; then
  now=$(sed 's/\..*//' /proc/uptime)
  since=$((now - ended / 1000000))
  [ "$since" -lt 90 ] || { echo "$unit ended $since s ago without a reboot"; exit 1; }
fi
"#;

// The uptime comes last, because the time of the answer is compared with it.
const MEASURE_BOOT: &str = r#"
timeout 300 systemctl is-system-running --wait >/dev/null
systemctl show --property=UserspaceTimestampMonotonic --property=FinishTimestampMonotonic || exit 1
sed -n 's/^\(Mem[TA][a-z]*\): *\([0-9]*\) kB$/\1=\2/p' /proc/meminfo
sed 's/^\([0-9.]*\) .*/Uptime=\1/' /proc/uptime
"#;

/// The content of the variable `BootNext`: its attributes, and the number of the boot option.
const BOOT_NEXT: [u8; 6] = [7, 0, 0, 0, 0x99, 0];

// The kernel takes a variable only in a single write.
const BOOT_ONCE: &str = r#"
set_variable() {
  printf "$2" >/run/testbed-variable
  dd if=/run/testbed-variable bs=4096 \
    of=/sys/firmware/efi/efivars/$1-8be4df61-93ca-11d2-aa0d-00e098032b8c || exit 1
}
set_variable Boot0099 "$option"
set_variable BootNext "$next"
systemctl reboot --no-block
sleep 1
"#;

// The script is put in single quotes, so it must not contain any. It changes grubenv in place, as GRUB does.
const ONE_TRY: &str = r#"
etchaos-updater update --no-reboot || exit
esp=$(sed -n "s/.*etchaos\.esp=\([^ ]*\).*/\1/p" /proc/cmdline)
dir=$(mktemp -d /run/testbed.XXXXXX) || exit
mount -t vfat "/dev/disk/by-uuid/$esp" "$dir" || exit
sed "s/^etchaos_tries=3$/etchaos_tries=1/" "$dir/etchaos/grubenv" >/run/testbed-grubenv
dd if=/run/testbed-grubenv of="$dir/etchaos/grubenv" conv=notrunc,fsync
umount "$dir"
systemctl reboot
"#;

const REFUSE_FAILED: &str = r#"
output=$(etchaos-updater update 2>&1)
code=$?
echo "$output"
[ "$code" = 3 ] || { echo "expected exit code 3, found $code"; exit 1; }
case $output in *"failed its trial"*) ;; *) exit 1 ;; esac
etchaos-updater status
"#;

const IDENTIFY: &str = r#"
grep -q "etchaos.slot=$slot" /proc/cmdline || { echo "expected slot $slot, found:"; cat /proc/cmdline; exit 1; }
found=$(cat $marker 2>/dev/null || echo 0)
[ "$found" = "$build" ] || { echo "expected build $build, found $found in $marker"; exit 1; }
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::Answer;
    use protocol::pattern::Entry;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn measures_with_values_that_parse() {
        let dir = tempfile::tempdir().unwrap();
        let systemctl = "#!/bin/sh\n[ $1 != show ] || printf '%s=7\\n' \
            UserspaceTimestampMonotonic FinishTimestampMonotonic\n";
        let program = dir.path().join("systemctl");
        std::fs::write(&program, systemctl).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", MEASURE_BOOT])
            .env("PATH", path)
            .output()
            .unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let answer = Answer::parse(&output).unwrap_or_else(|name| panic!("{name}: {output}"));
        let figures = answer.unwrap().figures("x", None, std::time::Duration::ZERO);
        assert!(figures.memory_used > 0 && figures.memory_used < figures.memory, "{output}");
    }

    #[test]
    fn uses_valid_posix_shell() {
        let more = [roll_back(), identify(Slot::A, 1), update_for_one_try(), refuse_failed()];
        let other = follow(&"deb12".parse().unwrap());
        let more = more.into_iter().chain([
            configure("{}"),
            boot_url("http://10.0.2.2/x"),
            measure(),
            other,
        ]);
        let more = more.chain([sources("true"), start_sources(), reboot()]);
        for pattern in
            [boot_id(), damage(), update(), watch_update(), power_off()].into_iter().chain(more)
        {
            for entry in &pattern.run {
                let Entry::Command(command) = entry else { panic!("{entry:?}") };
                let text = command.check.as_ref().or(command.change.as_ref()).unwrap();
                let parsed = std::process::Command::new("/bin/sh")
                    .args(["-n", "-c", text])
                    .output()
                    .unwrap();
                assert!(parsed.status.success(), "{}: {parsed:?}", command.id);
            }
        }
    }
}
