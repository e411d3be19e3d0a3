# Unpacks the boot loaders, and busybox for the early init, from packages without installing them. UEFI uses the
# files that Microsoft (shim) and the distribution (GRUB) signed. BIOS uses a core image that is built here, with
# the modules that grub.cfg needs.
case $ARCH in
  amd64) efi=x64 ;;
  arm64) efi=aa64 ;;
esac
download=$(mktemp -d)
cd "$download"
dnf_for_tree --setopt=metadata_expire=never download --destdir="$download" "shim-$efi" "grub2-efi-$efi" busybox

# dnf does not verify the signatures of packages that it only downloads.
mkdir keyring tree
rpmkeys --dbpath="$download/keyring" --import /etc/etchaos/keys/*
for package in ./*.rpm; do
  # The exit code is 0 for a package without a signature, too.
  checked=$(LC_ALL=C rpmkeys --dbpath="$download/keyring" --checksig "$package" || true)
  case $checked in
    *': digests signatures OK') ;;
    *)
      echo "the package $package is not signed with a key of the variant: $checked"
      exit 1
      ;;
  esac
  rpm2cpio "$package" | (cd tree && cpio --quiet --extract --make-directories)
done

# only PATTERN: prints the path of the only file that matches. Directories of versions differ: Fedora has
# /usr/lib/efi/shim/<version>/EFI, AlmaLinux /boot/efi/EFI.
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
mkdir -p "$OUT/efi" "$OUT/bios" "$OUT/netboot/EFI/$VENDOR"
cp "$shim" "$OUT/efi/BOOT${efi^^}.EFI"
cp "$manager" "$OUT/efi/mm$efi.efi"
cp "$grub" "$OUT/efi/grub$efi.efi"

# The signed GRUB lacks the modules "probe" and "true" (grub_modules in grub.macros of the source package grub2).
# The number of the ESP is known, and a comparison is as true as "true".
sed -i -e "s/^probe --set=esp --fs-uuid .*/set esp=$ESP_UUID/" -e 's/^while true;/while [ 1 = 1 ];/' "$OUT/grub.cfg"
if ! grep -qxF "set esp=$ESP_UUID" "$OUT/grub.cfg" || grep -qE '^(probe|while true)' "$OUT/grub.cfg"; then
  echo "$OUT/grub.cfg uses modules that the GRUB of this distribution does not have"
  exit 1
fi

# Network boot: the same GRUB has the modules for the network. It reads its configuration in the directory that
# it was loaded from, and then at its prefix.
cp "$shim" "$OUT/netboot/boot$efi.efi"
cp "$grub" "$OUT/netboot/grub$efi.efi"
sed "s/@IMAGE_VERSION@/$IMAGE_VERSION/" "$OUT/netboot.cfg" >"$OUT/netboot/grub.cfg"
cp "$OUT/netboot/grub.cfg" "$OUT/netboot/EFI/$VENDOR/grub.cfg"

fields='%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE} %{ARCH} %{SOURCERPM}\n'
{
  rpm --query --package --queryformat "$fields" ./*.rpm
  if [ "$ARCH" = amd64 ]; then rpm --query --queryformat "$fields" grub2-pc-modules; fi
} | sed -E 's/ ([^ ]+)-([^ -]+-[^ -]+)\.(no)?src\.rpm$/ \1 \2/' | LC_ALL=C sort >"$OUT/bootloader"

if [ "$ARCH" = amd64 ]; then
  modules=/usr/lib/grub/i386-pc
  sed -i "s/@ESP_UUID@/$ESP_UUID/" "$OUT/bios/embedded.cfg"
  grub2-mkimage --directory="$modules" --format=i386-pc --prefix=/etchaos --config="$OUT/bios/embedded.cfg" \
    --output="$OUT/bios/core.img" \
    biosdisk part_gpt part_msdos fat search search_fs_uuid normal configfile linux loadenv test echo \
    sleep true reboot halt serial terminal probe minicmd
  cp "$modules/boot.img" "$OUT/bios/boot.img"
fi
cd /
rm -rf "$download"
