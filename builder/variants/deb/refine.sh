# The steps that only Debian needs. They run before lib/refine.sh.

# Move the package database to /usr, so that dpkg-query can list the packages of a running host. It needs
# only these files, because nothing is ever installed. Vulnerability scanners read the same "status".
database="$ROOT/usr/lib/etchaos/dpkg"
if [ ! -L "$ROOT/var/lib/dpkg" ]; then
  mkdir -p "$database/info" "$database/updates"
  cp "$ROOT/var/lib/dpkg/status" "$ROOT/var/lib/dpkg/arch" "$database/"
  cp "$ROOT/var/lib/dpkg/info/format" "$database/info/"
  rm -rf "$ROOT/var/lib/dpkg"
  ln -s ../../usr/lib/etchaos/dpkg "$ROOT/var/lib/dpkg"
fi

# Remove the configuration of purged packages, and of programs that have no use on a host without logins.
cd "$ROOT"
rm -rf etc/apt etc/dpkg etc/cron.* etc/logrotate.d etc/initramfs-tools etc/init.d etc/rc?.d etc/dhcp \
  etc/default etc/skel etc/update-motd.d etc/motd etc/issue etc/issue.net etc/profile etc/profile.d \
  etc/bash.bashrc etc/alternatives/README etc/ca-certificates* etc/perl etc/emacs etc/.resolv.conf* \
  etc/debconf.conf etc/adduser.conf etc/deluser.conf etc/fstab etc/modules \
  var/lib/apt var/lib/pam var/lib/shells.state var/lib/misc var/lib/systemd \
  usr/share/debconf usr/share/perl5 usr/share/bug usr/share/initramfs-tools usr/share/keyrings
rm -f initrd.img* vmlinuz*
