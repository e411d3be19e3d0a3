# Unpacks the boot loaders, and busybox for the early init, from packages without installing them. UEFI uses the
# files that Microsoft (shim) and openSUSE (GRUB) signed. BIOS uses a core image that is built here.
case $ARCH in
  amd64) machine=x86_64 efi=x64 grub=x86_64-efi ;;
  arm64) machine=aarch64 efi=aa64 grub=arm64-efi ;;
esac
download=$(mktemp -d)
cd "$download"
# shellcheck disable=SC2086 # a list of packages
zypper_for_tree --releasever "$RELEASE" --no-refresh --pkg-cache-dir "$download/packages" \
  download $BOOT_PACKAGES

find packages -name '*.rpm' -exec mv {} . \;
unpack_packages

install -D -m 755 tree/usr/bin/busybox-static "$OUT/early/bin/busybox"

# shim loads grub.efi from its own directory, and MokManager has a name without the architecture
# (shim.spec: DEFAULT_LOADER, MMSTEM). The signed GRUB is built without a prefix, and so reads grub.cfg in the
# directory that it was loaded from (grub2.spec: --prefix=).
shim=tree/usr/share/efi/$machine/shim.efi
signed=tree/usr/share/grub2/$grub/grub.efi
mkdir -p "$OUT/efi" "$OUT/netboot"
cp "$shim" "$OUT/efi/BOOT${efi^^}.EFI"
cp "tree/usr/share/efi/$machine/MokManager.efi" "$OUT/efi/"
cp "$signed" "$OUT/efi/grub.efi"

# Network boot: the same GRUB has the modules for the network.
cp "$shim" "$OUT/netboot/boot$efi.efi"
cp "$signed" "$OUT/netboot/grub.efi"
cp "$OUT/netboot.cfg" "$OUT/netboot/grub.cfg"

build_bios_loader grub2-mkimage /usr/share/grub2/i386-pc
list_packages grub2-i386-pc >"$OUT/bootloader"
cd /
rm -rf "$download"
