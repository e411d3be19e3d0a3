# The steps that only Arch needs. They run before lib/refine.sh, and can run again on their own result.
cd "$ROOT"

# Arch has the kernel beside its modules; lib/early.sh expects it in /boot.
kernel=$(ls usr/lib/modules)
if [ -e "usr/lib/modules/$kernel/vmlinuz" ]; then
  rm -rf boot
  mkdir boot
  mv "usr/lib/modules/$kernel/vmlinuz" "boot/vmlinuz-$kernel"
fi

# Presets have enabled units. lib/refine.sh enables those of the variant.
rm -rf etc/systemd/system etc/systemd/user
mkdir -p etc/systemd/system

# Remove the database of packages, which records when they were installed, and the configuration of programs that
# have no use on a host without logins.
rm -rf var/lib/pacman etc/pacman* etc/mkinitcpio* etc/default etc/skel etc/issue etc/motd etc/profile etc/profile.d \
  etc/bash.bash* etc/fstab etc/crypttab etc/grub.d var/lib/systemd usr/lib/initcpio
