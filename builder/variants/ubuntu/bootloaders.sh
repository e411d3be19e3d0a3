# Unpacks the boot loaders, and busybox for the early init, from Ubuntu's packages without installing them.
# UEFI uses the files that Microsoft (shim) and Canonical (GRUB) signed. BIOS uses a core image that is built
# here, with the modules that grub.cfg needs.
case $ARCH in
  amd64) efi=x64 grub=x86_64-efi ;;
  arm64) efi=aa64 grub=arm64-efi ;;
esac
packages=()
download=$(mktemp -d)
chmod 755 "$download"
cd "$download"
for package in $BOOT_PACKAGES; do packages+=("$package:$ARCH"); done
apt-get -q -o APT::Sandbox::User=root download "${packages[@]}"
for package in ./*.deb; do dpkg-deb -x "$package" tree; done

install -D -m 755 tree/usr/bin/busybox "$OUT/early/bin/busybox"

# shim-signed has two shims, the latest and the one before, and MokManager
# (https://packages.ubuntu.com/questing/amd64/shim-signed/filelist).
shim=tree/usr/lib/shim/shim$efi.efi.signed.latest
mkdir -p "$OUT/efi" "$OUT/bios"
cp "$shim" "$OUT/efi/BOOT${efi^^}.EFI"
cp "tree/usr/lib/shim/mm$efi.efi" "$OUT/efi/"
cp "tree/usr/lib/grub/$grub-signed/grub$efi.efi.signed" "$OUT/efi/grub$efi.efi"

# Network boot: as in Debian, whose source package Ubuntu's GRUB derives from.
mkdir -p "$OUT/netboot/grub"
cp "$shim" "$OUT/netboot/boot$efi.efi"
cp "tree/usr/lib/grub/$grub-signed/grubnet$efi.efi.signed" "$OUT/netboot/grub$efi.efi"
sed "s/@IMAGE_VERSION@/$IMAGE_VERSION/" "$OUT/netboot.cfg" >"$OUT/netboot/grub/grub.cfg"

if [ "$ARCH" = amd64 ]; then
  modules=tree/usr/lib/grub/i386-pc
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
