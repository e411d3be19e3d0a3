# Unpacks the boot loaders, and busybox for the early init, from Debian's packages without installing them.
# UEFI uses the files that Debian signed. BIOS uses a core image that is built here, with the modules that
# grub.cfg needs.
case $ARCH in
  amd64) efi=x64 grub=x86_64-efi-signed bios=(grub-pc-bin) ;;
  arm64) efi=aa64 grub=arm64-efi-signed bios=() ;;
esac
packages=(shim-signed "shim-helpers-$ARCH-signed" "grub-efi-$ARCH-signed" busybox-static "${bios[@]}")
download=$(mktemp -d)
chmod 755 "$download"
cd "$download"
apt-get -q -o APT::Sandbox::User=root download "${packages[@]/%/:$ARCH}"
for package in ./*.deb; do dpkg-deb -x "$package" tree; done
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

if [ ${#bios[@]} -gt 0 ]; then
  modules=tree/usr/lib/grub/i386-pc
  sed -i "s/@ESP_UUID@/$ESP_UUID/" "$OUT/bios/embedded.cfg"
  grub-mkimage --directory="$modules" --format=i386-pc --prefix=/etchaos --config="$OUT/bios/embedded.cfg" \
    --output="$OUT/bios/core.img" \
    biosdisk part_gpt part_msdos fat search search_fs_uuid normal configfile linux loadenv test echo \
    sleep true reboot halt serial terminal probe minicmd
  cp "$modules/boot.img" "$OUT/bios/boot.img"
fi

for package in ./*.deb; do
  # shellcheck disable=SC2016 # dpkg-deb expands the fields
  dpkg-deb --show --showformat='${Package} ${Version} ${Architecture} ${source:Package} ${source:Version}\n' "$package"
done | LC_ALL=C sort >"$OUT/bootloader"
cd /
rm -rf "$download"
