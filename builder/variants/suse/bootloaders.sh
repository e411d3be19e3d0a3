# Unpacks the boot loaders, and busybox for the early init, from packages without installing them. UEFI uses the
# files that Microsoft (shim) and openSUSE (GRUB) signed. BIOS uses a core image that is built here, with the
# modules that grub.cfg needs.
case $ARCH in
  amd64) machine=x86_64 efi=x64 grub=x86_64-efi ;;
  arm64) machine=aarch64 efi=aa64 grub=arm64-efi ;;
esac
download=$(mktemp -d)
cd "$download"
zypper_for_tree --releasever "$RELEASE" --no-refresh --pkg-cache-dir "$download/packages" \
  download shim "grub2-$grub" busybox-static

mkdir keyring tree
rpmkeys --dbpath="$download/keyring" --import /etc/etchaos/keys/*
find packages -name '*.rpm' -exec mv {} . \;
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

install -D -m 755 tree/usr/bin/busybox-static "$OUT/early/bin/busybox"

# shim loads grub.efi from its own directory, and MokManager has a name without the architecture
# (shim.spec: DEFAULT_LOADER, MMSTEM). The signed GRUB is built without a prefix, and so reads grub.cfg in the
# directory that it was loaded from (grub2.spec: --prefix=).
shim=tree/usr/share/efi/$machine/shim.efi
signed=tree/usr/share/grub2/$grub/grub.efi
mkdir -p "$OUT/efi" "$OUT/bios" "$OUT/netboot"
cp "$shim" "$OUT/efi/BOOT${efi^^}.EFI"
cp "tree/usr/share/efi/$machine/MokManager.efi" "$OUT/efi/"
cp "$signed" "$OUT/efi/grub.efi"

# The signed GRUB lacks the module "probe" (grub2.spec: CD_MODULES). The number of the ESP is known.
sed -i "s/^probe --set=esp --fs-uuid .*/set esp=$ESP_UUID/" "$OUT/grub.cfg"
if ! grep -qxF "set esp=$ESP_UUID" "$OUT/grub.cfg" || grep -q '^probe' "$OUT/grub.cfg"; then
  echo "$OUT/grub.cfg uses a module that openSUSE's GRUB does not have"
  exit 1
fi

# Network boot: the same GRUB has the modules for the network.
cp "$shim" "$OUT/netboot/boot$efi.efi"
cp "$signed" "$OUT/netboot/grub.efi"
sed "s/@IMAGE_VERSION@/$IMAGE_VERSION/" "$OUT/netboot.cfg" >"$OUT/netboot/grub.cfg"

fields='%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE} %{ARCH} %{SOURCERPM}\n'
{
  rpm --query --package --queryformat "$fields" ./*.rpm
  if [ "$ARCH" = amd64 ]; then rpm --query --queryformat "$fields" grub2-i386-pc; fi
} | sed -E 's/ ([^ ]+)-([^ -]+-[^ -]+)\.(no)?src\.rpm$/ \1 \2/' | LC_ALL=C sort >"$OUT/bootloader"

if [ "$ARCH" = amd64 ]; then
  modules=/usr/share/grub2/i386-pc
  sed -i "s/@ESP_UUID@/$ESP_UUID/" "$OUT/bios/embedded.cfg"
  grub2-mkimage --directory="$modules" --format=i386-pc --prefix=/etchaos --config="$OUT/bios/embedded.cfg" \
    --output="$OUT/bios/core.img" \
    biosdisk part_gpt part_msdos fat search search_fs_uuid normal configfile linux loadenv test echo \
    sleep true reboot halt serial terminal probe minicmd
  cp "$modules/boot.img" "$OUT/bios/boot.img"
fi
cd /
rm -rf "$download"
