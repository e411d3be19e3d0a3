# Unpacks the boot loaders, and busybox for the early init, from Debian's packages without installing them.
# UEFI uses the files that Debian signed. BIOS uses a core image that is built here, with the modules that
# grub.cfg needs.
download=$(mktemp -d)
chmod 755 "$download"
cd "$download"
apt-get -q -o APT::Sandbox::User=root download \
  shim-signed shim-helpers-amd64-signed grub-efi-amd64-signed busybox-static
for package in ./*.deb; do dpkg-deb -x "$package" tree; done

# Debian 12 has it in /bin.
install -D -m 755 "$(find tree -path 'tree/*bin/busybox')" "$OUT/early/bin/busybox"

mkdir -p "$OUT/efi" "$OUT/bios"
cp tree/usr/lib/shim/shimx64.efi.signed "$OUT/efi/BOOTX64.EFI"
cp tree/usr/lib/shim/mmx64.efi.signed "$OUT/efi/mmx64.efi"
cp tree/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed "$OUT/efi/grubx64.efi"

# Network boot: shim loads grubx64.efi from the directory that it was loaded from itself. The GRUB for the
# network reads its configuration from this path of the server, also if it lies in another directory.
mkdir -p "$OUT/netboot/grub"
cp tree/usr/lib/shim/shimx64.efi.signed "$OUT/netboot/bootx64.efi"
cp tree/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed "$OUT/netboot/grubx64.efi"
sed "s/@IMAGE_VERSION@/$IMAGE_VERSION/" "$OUT/netboot.cfg" >"$OUT/netboot/grub/grub.cfg"

grub=/usr/lib/grub/i386-pc
sed -i "s/@ESP_UUID@/$ESP_UUID/" "$OUT/bios/embedded.cfg"
grub-mkimage --directory="$grub" --format=i386-pc --prefix=/etchaos --config="$OUT/bios/embedded.cfg" \
  --output="$OUT/bios/core.img" \
  biosdisk part_gpt part_msdos fat search search_fs_uuid normal configfile linux loadenv test echo \
  sleep true reboot halt serial terminal probe minicmd
cp "$grub/boot.img" "$OUT/bios/boot.img"

{
  for package in ./*.deb; do
    # shellcheck disable=SC2016 # dpkg-deb expands the fields
    dpkg-deb --show --showformat='${Package} ${Version} ${Architecture} ${source:Package} ${source:Version}\n' "$package"
  done
  # shellcheck disable=SC2016 # dpkg-query expands the fields
  dpkg-query --show --showformat='${Package} ${Version} ${Architecture} ${source:Package} ${source:Version}\n' grub-pc-bin
} | LC_ALL=C sort >"$OUT/bootloader"
cd /
rm -rf "$download"
