# Unpacks the boot loaders, and busybox for the early init, from packages without installing them. UEFI uses the
# files that Microsoft (shim) and the distribution (GRUB) signed. BIOS uses a core image that is built here.
case $ARCH in
  amd64) efi=x64 ;;
  arm64) efi=aa64 ;;
esac
download=$(mktemp -d)
cd "$download"
# shellcheck disable=SC2086 # a list of packages
dnf_for_tree --setopt=metadata_expire=never download --destdir="$download" $BOOT_PACKAGES
unpack_packages

# only PATTERN: prints the path of the only file that matches. Directories differ: new packages have
# /usr/lib/efi/shim/<version>/EFI and /usr/lib/efi/grub2/<version>/EFI, older ones /boot/efi/EFI.
only() {
  local found
  found=$(find tree -type f -path "$1")
  if [ "$(grep -c . <<<"$found")" != 1 ]; then
    echo "expected one file $1 in the packages of the boot loaders, found: ${found:-none}" >&2
    return 1
  fi
  echo "$found"
}

busybox=$(only '*bin/busybox')
shim=$(only "*/EFI/BOOT/BOOT${efi^^}.EFI")
manager=$(only "*/EFI/$VENDOR/mm$efi.efi")
grub=$(only "*/EFI/$VENDOR/grub$efi.efi")
install -D -m 755 "$busybox" "$OUT/early/bin/busybox"
mkdir -p "$OUT/efi" "$OUT/netboot/EFI/$VENDOR"
cp "$shim" "$OUT/efi/BOOT${efi^^}.EFI"
cp "$manager" "$OUT/efi/mm$efi.efi"
cp "$grub" "$OUT/efi/grub$efi.efi"

# Network boot: the same GRUB has the modules for the network. It reads its configuration in the directory that
# it was loaded from, and then at its prefix.
cp "$shim" "$OUT/netboot/boot$efi.efi"
cp "$grub" "$OUT/netboot/grub$efi.efi"
cp "$OUT/netboot.cfg" "$OUT/netboot/grub.cfg"
cp "$OUT/netboot/grub.cfg" "$OUT/netboot/EFI/$VENDOR/grub.cfg"

build_bios_loader grub2-mkimage /usr/lib/grub/i386-pc
list_packages grub2-pc-modules >"$OUT/bootloader"
cd /
rm -rf "$download"
