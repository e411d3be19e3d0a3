# Writes the release to the slot that is not good, and puts it on trial: GRUB boots it at most three times,
# and returns to the good slot if the host does not confirm it. The order of the writes is that of the
# updater: nothing names the slot before all of its files are on the disk.

# Usage: write_grubenv SLOT TRIES RELEASE BOOT VERSION
# Overwrites grubenv in place, since its file on a FAT must not be renamed.
write_grubenv() {
  local env=$esp/etchaos/grubenv block=$work/grubenv others size
  # A value of another program could span several lines after a backslash.
  ! grep -F "\\" "$env" >/dev/null || fail "$env has a \"\\\", which this script cannot copy"
  others=$(sed -e '/^#/d' -e '/^etchaos_trial/d' -e '/^etchaos_tries=/d' -e "/^etchaos_version_$slot=/d" "$env")
  printf '# GRUB Environment Block\n%s\n' "$others" >"$block"
  printf 'etchaos_%s\n' "trial=$1" "tries=$2" "trial_release=$3" "trial_since=$4" \
    "version_$slot=${5:0:64}" >>"$block"
  size=$(wc -c <"$block")
  [ "$size" -le 512 ] || fail "the variables of $env do not fit into one sector"
  head -c "$((1024 - size))" /dev/zero | tr '\0' '#' >>"$block"
  dd if="$block" of="$env" bs=1024 count=1 conv=notrunc,fsync status=none
}

# Usage: get URL SIZE FILE
# Downloads a file up to SIZE bytes. Continues one that was begun.
get() {
  local url=$cdn/$1 have=0
  case $1 in
    *://*) url=$1 ;;
  esac
  if [ -f "$3" ]; then
    have=$(wc -c <"$3")
  fi
  [ "$have" -lt "$2" ] || return 0
  # The pipe ends a transfer that is too long. Size and digest are compared afterwards.
  if command -v curl >/dev/null; then
    curl -fsSL --connect-timeout 30 --speed-limit 1 --speed-time 60 -r "$have-" -- "$url" |
      head -c "$(($2 - have))" >>"$3" || true
  else
    wget -q -O - --timeout=60 --header="Range: bytes=$have-" -- "$url" |
      head -c "$(($2 - have))" >>"$3" || true
  fi
}

# Usage: get_artifact NAME URL SIZE SHA256
get_artifact() {
  local file=$directory/$1 size
  get "$2" "$3" "$file"
  size=$(wc -c <"$file")
  [ "$size" = "$3" ] || fail "$2 is incomplete: $size of $3 bytes were downloaded to $file"
  sync -- "$file"
  # Reads the disk, not the memory.
  dd if="$file" iflag=nocache count=0 status=none
  if ! has_digest "$file" "$4"; then
    rm -f -- "$file"
    fail "$2 has another SHA-256 than the manifest says, and was removed"
  fi
}

# Usage: is_manifest FILE
# Whether a file is the manifest of this build, by its claims. The updater verifies its signature.
is_manifest() {
  local claims
  [ -s "$1" ] || return 1
  claims=$(cut -d . -f 2 "$1" | tr '_-' '/+' | tr -d '\n')
  case $((${#claims} % 4)) in
    2) claims=$claims== ;;
    3) claims=$claims= ;;
  esac
  printf '%s' "$claims" | base64 -d >"$work/claims" 2>/dev/null || return 1
  grep -F "$kernel_sha256" "$work/claims" >/dev/null && grep -F "$initrd_sha256" "$work/claims" >/dev/null &&
    grep -F "\"build\":$build," "$work/claims" >/dev/null
}

[ -n "${ETCHAOS_CDN:-}" ] || fail 'set ETCHAOS_CDN to the base URL of the CDN'
cdn=${ETCHAOS_CDN%/}
lock
open_esp rw
find_slots
[ "$running" != "$slot" ] || fail "the host runs slot $slot, which is not confirmed yet"
directory=$esp/etchaos/$slot

# A build that was replaced has its manifest in the history.
for url in "$history" "$manifest"; do
  rm -f -- "$work/manifest"
  is_manifest "$work/manifest" || get "$url" 1048576 "$work/manifest"
  ! is_manifest "$work/manifest" || break
done
is_manifest "$work/manifest" || fail "neither $cdn/$history nor $cdn/$manifest is the manifest of build $build"

mkdir -p -- "$directory"
# An unfinished download of this build is continued. Otherwise nothing may name the slot any more before
# its files are removed.
if ! cmp -s "$work/manifest" "$directory/partial.jwt"; then
  write_grubenv '' 0 '' '' ''
  for name in release.jwt good started vmlinuz initrd partial.jwt; do
    rm -f -- "$directory/$name"
  done
  sync -- "$directory"
  cat "$work/manifest" >"$directory/partial.jwt"
  sync -- "$directory/partial.jwt" "$directory"
fi
get_artifact vmlinuz "$kernel_url" "$kernel_size" "$kernel_sha256"
get_artifact initrd "$initrd_url" "$initrd_size" "$initrd_sha256"
cat "$work/manifest" >"$directory/release.jwt"
sync -- "$directory/release.jwt" "$directory"
rm -f -- "$directory/partial.jwt"
sync -- "$directory"
write_grubenv "$slot" 3 "$release" "$(cut -c 1-8 /proc/sys/kernel/random/boot_id)" "$version"
printf 'build %s is in slot %s, on trial\n' "$build" "$slot"
