# Unpacks the boot loaders, and busybox for the early init, from Ubuntu's packages without installing them.
# UEFI uses the files that Microsoft (shim) and Canonical (GRUB) signed. BIOS uses a core image that is built
# here, with the modules that grub.cfg needs.
case $ARCH in
  amd64) efi=x64 grub=x86_64-efi ;;
  arm64) efi=aa64 grub=arm64-efi ;;
esac
download=$(mktemp -d)
chmod 755 "$download"
cd "$download"
unpack_packages

install -D -m 755 tree/usr/bin/busybox "$OUT/early/bin/busybox"

# shim-signed has two shims, the latest and the one before, and MokManager
# (https://packages.ubuntu.com/questing/amd64/shim-signed/filelist).
shim=tree/usr/lib/shim/shim$efi.efi.signed.latest
mkdir -p "$OUT/efi"
cp "$shim" "$OUT/efi/BOOT${efi^^}.EFI"
cp "tree/usr/lib/shim/mm$efi.efi" "$OUT/efi/"
cp "tree/usr/lib/grub/$grub-signed/grub$efi.efi.signed" "$OUT/efi/grub$efi.efi"

# Network boot: as in Debian, whose source package Ubuntu's GRUB derives from.
mkdir -p "$OUT/netboot/grub"
cp "$shim" "$OUT/netboot/boot$efi.efi"
cp "tree/usr/lib/grub/$grub-signed/grubnet$efi.efi.signed" "$OUT/netboot/grub$efi.efi"
cp "$OUT/netboot.cfg" "$OUT/netboot/grub/grub.cfg"

build_bios_loader grub-mkimage tree/usr/lib/grub/i386-pc
list_packages >"$OUT/bootloader"
cd /
rm -rf "$download"
