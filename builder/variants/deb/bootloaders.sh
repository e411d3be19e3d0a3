# Unpacks the boot loaders, and busybox for the early init, from Debian's packages without installing them.
# UEFI uses the files that Debian signed. BIOS uses a core image that is built here, with the modules that
# grub.cfg needs.
case $ARCH in
  amd64) efi=x64 grub=x86_64-efi-signed ;;
  arm64) efi=aa64 grub=arm64-efi-signed ;;
esac
download=$(mktemp -d)
chmod 755 "$download"
cd "$download"
unpack_packages
shim=tree/usr/lib/shim
grub=tree/usr/lib/grub/$grub

# Debian 12 has it in /bin.
install -D -m 755 "$(find tree -path 'tree/*bin/busybox')" "$OUT/early/bin/busybox"

mkdir -p "$OUT/efi"
cp "$shim/shim$efi.efi.signed" "$OUT/efi/BOOT${efi^^}.EFI"
cp "$shim/mm$efi.efi.signed" "$OUT/efi/mm$efi.efi"
cp "$grub/grub$efi.efi.signed" "$OUT/efi/grub$efi.efi"

# Network boot: shim loads its GRUB from the directory that it was loaded from itself. The GRUB for the network
# reads its configuration from this path of the server, also if it lies in another directory.
mkdir -p "$OUT/netboot/grub"
cp "$shim/shim$efi.efi.signed" "$OUT/netboot/boot$efi.efi"
cp "$grub/grubnet$efi.efi.signed" "$OUT/netboot/grub$efi.efi"
cp "$OUT/netboot.cfg" "$OUT/netboot/grub/grub.cfg"

build_bios_loader grub-mkimage tree/usr/lib/grub/i386-pc
list_packages >"$OUT/bootloader"
cd /
rm -rf "$download"
