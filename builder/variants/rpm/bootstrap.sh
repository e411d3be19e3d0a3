# Creates the tree from RPM packages. dnf runs in the container, verifies their signatures with the keys of the
# variant, and is not installed in the tree.
start_tree

# A file of the same name in /etc disables a plugin of kernel-install (man kernel-install). There is no boot
# loader to configure in the tree, and its initramfs would not be used. 50-depmod.install stays.
mkdir -p "$ROOT/etc/kernel/install.d"
for plugin in 10-devicetree 20-grub 50-dracut 51-dracut-rescue 60-ukify 90-loaderentry 90-uki-copy \
  92-crashkernel 95-kernel-hooks 99-grub-mkconfig; do
  ln -s /dev/null "$ROOT/etc/kernel/install.d/$plugin.install"
done

# The indexes must be those that "init" listed.
# shellcheck disable=SC2086 # a list of packages
dnf_for_tree --setopt=metadata_expire=never install $PACKAGES

finish_tree
