//! What the testbed does to a guest, and what it asks while it waits.

use protocol::esp::Slot;
use protocol::pattern::{Command, Pattern};

use crate::checks::commands;
use crate::derived::MARKER;

/// The id of the Command that prints the boot's id.
pub const BOOT_ID: &str = "boot id";
/// The id of the Command that looks after the update.
pub const UPDATE: &str = "etchaos-updater.service";

/// Asks nothing but an answer.
pub fn boot_id() -> Pattern {
    commands([check(BOOT_ID, "cat /proc/sys/kernel/random/boot_id")])
}

/// Deletes what slot `a` boots from. A host must repair that by itself.
pub fn damage() -> Pattern {
    commands([change("delete kernel and initrd of slot a", DAMAGE)])
}

/// Starts the update as the timer would. The answer may be cut off by the reboot.
pub fn update() -> Pattern {
    // The pause: whoever asks next shall not see the state from before.
    let start = "systemctl start --no-block etchaos-updater.service && sleep 1";
    commands([change("start the update", start)])
}

/// Installs what is offered and boots it, with a single try.
pub fn update_for_one_try() -> Pattern {
    let start = format!(
        "systemd-run --quiet --collect --unit=testbed-one-try /bin/sh -c '{ONE_TRY}' && sleep 1"
    );
    commands([change("update for one try", &start)])
}

/// Asks whether an update refuses what is offered, because it failed before.
pub fn refuse_again() -> Pattern {
    commands([check("what failed is not installed again", REFUSES)])
}

/// Goes back to the other slot by hand, and boots it. The answer may be cut off by the reboot.
pub fn roll_back() -> Pattern {
    // It may reboot by itself; twice is not more than once.
    let text = "etchaos-updater rollback && systemctl reboot --no-block && sleep 1";
    commands([change("roll back", text)])
}

/// Asks whether the system was booted from this slot, and holds what a derived release of this build
/// brings; one with build 0 is none.
pub fn identify(slot: Slot, build: u64) -> Pattern {
    let text = format!("slot={slot} build={build} marker=/{MARKER}\n{IDENTIFY}");
    commands([check("the release that runs", &text)])
}

/// Asks which boot this is, and how the update is doing.
pub fn watch_update() -> Pattern {
    commands([check(BOOT_ID, "cat /proc/sys/kernel/random/boot_id"), check(UPDATE, WATCH)])
}

/// Powers the guest off. The answer may be cut off.
pub fn power_off() -> Pattern {
    commands([change("power off", "systemctl poweroff --no-block")])
}

fn check(id: &str, text: &str) -> Command {
    Command { id: id.into(), check: Some(text.into()), ..Command::default() }
}

fn change(id: &str, text: &str) -> Command {
    Command { id: id.into(), change: Some(text.into()), always: true, ..Command::default() }
}

// One shell for all of it, so that nothing stays mounted if the middle fails.
const DAMAGE: &str = r#"
esp=$(sed -n 's/.*etchaos\.esp=\([^ ]*\).*/\1/p' /proc/cmdline)
[ -n "$esp" ] || { echo "no etchaos.esp= on the kernel command line"; exit 1; }
dir=$(mktemp -d /run/testbed.XXXXXX) || exit 1
mount -t vfat "/dev/disk/by-uuid/$esp" "$dir" || { ls -l /dev/disk/by-uuid; exit 1; }
trap 'umount "$dir" && rmdir "$dir"' EXIT
rm "$dir/etchaos/a/vmlinuz" "$dir/etchaos/a/initrd" || exit 1
sync
ls -l "$dir/etchaos/a"
"#;

// It reboots when it has installed something, so an end without a reboot is a failure, too.
const WATCH: &str = r#"
unit=etchaos-updater.service
state=$(systemctl show -P ActiveState $unit)
echo "$unit: $state, result: $(systemctl show -P Result $unit); its last words:"
journalctl -b --no-pager -o cat -n 12 -u $unit
[ "$state" != failed ] || exit 1
ended=$(systemctl show -P InactiveEnterTimestampMonotonic $unit)
if [ "$state" = inactive ] && [ "${ended:-0}" -gt 0 ]; then
  now=$(sed 's/\..*//' /proc/uptime)
  since=$((now - ended / 1000000))
  [ "$since" -lt 90 ] || { echo "it ended $since s ago, and there was no reboot"; exit 1; }
fi
"#;

// In single quotes of a shell, so it has none. The number is changed in place, as GRUB does it.
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

const REFUSES: &str = r#"
said=$(etchaos-updater update 2>&1)
code=$?
echo "$said"
[ "$code" = 3 ] || { echo "expected exit code 3, found $code"; exit 1; }
case $said in *"failed its trial"*) ;; *) exit 1 ;; esac
etchaos-updater status
"#;

const IDENTIFY: &str = r#"
grep -q "etchaos.slot=$slot" /proc/cmdline || { echo "expected slot $slot:"; cat /proc/cmdline; exit 1; }
found=$(cat $marker 2>/dev/null || echo 0)
[ "$found" = "$build" ] || { echo "expected build $build, $marker says $found"; exit 1; }
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::pattern::Entry;

    #[test]
    fn every_text_is_a_posix_shell_script() {
        let more = [roll_back(), identify(Slot::A, 1), update_for_one_try(), refuse_again()];
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
