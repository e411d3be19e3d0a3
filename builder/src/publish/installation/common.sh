# Functions of the Commands that install a release on a host that Etcha administers. The builder puts this
# text after the values of the release, which are all in quotes, and before the script of each Command.
#
# ETCHAOS_CDN is the base URL of the CDN, which a manifest does not know. ETCHAOS_ESP is the directory that
# the ESP is mounted at; it is found if it is not set. ETCHAOS_RUN replaces /run/etchaos in tests.
set -eu
umask 077
run=${ETCHAOS_RUN:-/run/etchaos}

fail() {
  printf 'etchaos: %s\n' "$*" >&2
  exit 1
}

# Keeps the updater away from the ESP until the script ends. It locks the same directory.
lock() {
  mkdir -p -- "$run"
  exec 9<"$run"
  flock -w 300 9 || fail 'another program writes to the ESP'
}

# Usage: open_esp ro|rw
# Sets esp, and work, a directory that is removed when the script ends.
open_esp() {
  work=$(mktemp -d)
  mounted=
  trap 'clean_up' EXIT
  esp=${ETCHAOS_ESP:-}
  for directory in /efi /boot/efi /boot; do
    if [ -z "$esp" ] && [ -f "$directory/etchaos/grub.cfg" ]; then
      esp=$directory
    fi
  done
  if [ -z "$esp" ] && [ -e "$run/boot-disk" ]; then
    mkdir -- "$work/esp"
    mount -t vfat -o "$1,nodev,nosuid,noexec" -- "$run/boot-disk" "$work/esp"
    mounted=$work/esp
    esp=$mounted
  fi
  [ -n "$esp" ] || fail 'the ESP is not mounted: mount it, and set ETCHAOS_ESP to its directory'
  [ -f "$esp/etchaos/grub.cfg" ] || fail "$esp is not an ESP of EtchaOS: it has no etchaos/grub.cfg"
}

clean_up() {
  if [ -z "$mounted" ] || umount -- "$mounted"; then
    rm -rf -- "$work"
  fi
}

# Usage: value NAME
# Prints a variable of grubenv.
value() {
  sed -n "s/^$1=//p" "$esp/etchaos/grubenv" | tail -n 1
}

# Sets good, the slot that was confirmed last; slot, the other one; and running, which is empty if the host
# was not booted by the boot script.
find_slots() {
  good=$(value etchaos_good)
  case $good in
    a) slot=b ;;
    b) slot=a ;;
    *) fail "grubenv names no good slot: $good" ;;
  esac
  running=$(sed -n 's/.*\betchaos\.slot=\([ab]\)\b.*/\1/p' /proc/cmdline)
}

# Usage: has_digest FILE SHA256
has_digest() {
  [ -f "$1" ] || return 1
  local found
  found=$(sha256sum <"$1") || return 1
  [ "${found%% *}" = "$2" ]
}

# Usage: holds_release SLOT
holds_release() {
  has_digest "$esp/etchaos/$1/vmlinuz" "$kernel_sha256" && has_digest "$esp/etchaos/$1/initrd" "$initrd_sha256"
}

# Whether the release failed its trial on this host. Without this test, it would be installed again and
# again.
has_failed() {
  [ "$(value etchaos_failed)" != "$release" ] || return 0
  [ "$(value etchaos_trial_release)" = "$release" ] && [ "$(value etchaos_tries)" = 0 ] &&
    [ "$running" != "$(value etchaos_trial)" ]
}
