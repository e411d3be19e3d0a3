# finish_tree: runs what scripts of packages leave undone if they have no systemd, no kernel or no devices.
finish_tree() {
  local kernel
  kernel=$(ls "$ROOT/usr/lib/modules")
  depmod --basedir="$ROOT" "$kernel"
  chroot "$ROOT" systemd-sysusers
  chroot "$ROOT" systemd-hwdb --usr update
  rm -f "$ROOT/etc/udev/hwdb.bin"
}
