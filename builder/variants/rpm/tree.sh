# start_tree: makes $ROOT a directory with the devices that scripts of packages need.
start_tree() {
  rm -rf "$ROOT"
  mkdir -p "$ROOT/dev"
  mknod -m 666 "$ROOT/dev/null" c 1 3
  mknod -m 666 "$ROOT/dev/zero" c 1 5
  mknod -m 666 "$ROOT/dev/random" c 1 8
  mknod -m 666 "$ROOT/dev/urandom" c 1 9
}

# finish_tree: removes packages that have no use in the tree, and runs what scripts of packages leave undone if
# they have no systemd, no kernel or no devices.
finish_tree() {
  local package kernel installed=()
  for package in $PURGED; do
    if rpm --root="$ROOT" --query "$package" >/dev/null; then installed+=("$package"); fi
  done
  [ "${#installed[@]}" = 0 ] || rpm --root="$ROOT" --erase --nodeps --noscripts "${installed[@]}"

  kernel=$(ls "$ROOT/usr/lib/modules")
  depmod --basedir="$ROOT" "$kernel"
  chroot "$ROOT" systemd-sysusers
  chroot "$ROOT" systemd-hwdb --usr update
  rm -f "$ROOT/etc/udev/hwdb.bin"
}
