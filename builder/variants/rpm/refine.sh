# The steps that all distributions with RPM packages need. They run before lib/refine.sh, and can run again on
# their own result.
cd "$ROOT"

# These distributions have the kernel beside its modules; lib/early.sh expects it in /boot.
kernel=$(ls usr/lib/modules)
image=usr/lib/modules/$kernel/vmlinuz
if [ -f "$image" ] && [ ! -L "$image" ]; then
  rm -rf boot
  mkdir boot
  mv "$image" "boot/vmlinuz-$kernel"
  rm -f "usr/lib/modules/$kernel"/{System.map,.vmlinuz.hmac,symvers.*,config}
fi

# Presets of the distribution have enabled units. lib/refine.sh enables those of the variant.
rm -rf etc/systemd/system etc/systemd/user
mkdir -p etc/systemd/system

# The SquashFS and the tmpfs have no labels, so a policy in enforcing mode would stop the boot.
if [ -e etc/selinux/config ]; then
  sed -i 's/^SELINUX=.*/SELINUX=disabled/' etc/selinux/config
fi

# Without a file of its own in /etc, openSUSE's glibc reads /usr/etc.
[ -e etc/nsswitch.conf ] || cp usr/etc/nsswitch.conf etc/nsswitch.conf

# Remove the database of packages, and the configuration of programs that have no use on a host without logins.
rm -rf usr/lib/sysimage/rpm usr/lib/sysimage/libdnf5 usr/lib/sysimage/dnf var/lib/rpm var/lib/dnf var/lib/zypp \
  var/lib/authselect var/lib/systemd var/lib/selinux root/.rpmdb etc/rpm etc/dnf etc/yum* etc/zypp \
  etc/pki/rpm-gpg etc/kernel etc/cron.* etc/logrotate.d etc/default etc/skel etc/motd* etc/issue* \
  etc/profile etc/profile.d etc/bashrc etc/bash.bashrc etc/DIR_COLORS* etc/fstab etc/crypttab etc/grub.d \
  etc/dracut.conf* usr/lib/dracut usr/lib/kernel/install.d
