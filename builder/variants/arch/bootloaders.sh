# Builds the boot loaders: Arch signs none. Unpacks busybox for the early init without installing it.
download=$(mktemp -d)
cd "$download"
mkdir database tree
cp -a /var/lib/pacman/sync database/
pacman --config /etc/etchaos/pacman.conf --dbpath database --cachedir "$download" \
  --sync --downloadonly --nodeps --nodeps --noconfirm busybox
bsdtar -x -f ./busybox-*.pkg.tar.* -C tree usr/bin/busybox
install -D -m 755 tree/usr/bin/busybox "$OUT/early/bin/busybox"

modules="part_gpt part_msdos fat search search_fs_uuid search_fs_file normal configfile linux loadenv test echo
  sleep true reboot halt serial terminal probe minicmd regexp"
directory=/usr/lib/grub
mkdir -p "$OUT/efi" "$OUT/bios" "$OUT/netboot/grub"
# shellcheck disable=SC2086 # a list of modules
grub-mkimage --directory="$directory/x86_64-efi" --format=x86_64-efi --prefix=/EFI/arch \
  --output="$OUT/efi/BOOTX64.EFI" $modules
# shellcheck disable=SC2086
grub-mkimage --directory="$directory/x86_64-efi" --format=x86_64-efi --prefix=/grub \
  --output="$OUT/netboot/bootx64.efi" efinet net tftp http $modules
cp "$OUT/netboot.cfg" "$OUT/netboot/grub/grub.cfg"

# shellcheck disable=SC2086
grub-mkimage --directory="$directory/i386-pc" --format=i386-pc --prefix=/etchaos \
  --config="$OUT/bios/embedded.cfg" --output="$OUT/bios/core.img" biosdisk $modules
cp "$directory/i386-pc/boot.img" "$OUT/bios/boot.img"

{
  bsdtar -x -O -f ./busybox-*.pkg.tar.* .PKGINFO |
    awk -F ' = ' '{ value[$1] = $2 } END { print value["pkgname"], value["pkgver"], value["arch"], value["pkgbase"] }'
  LC_ALL=C pacman --query --info grub | awk -F ' *: ' '
    $1 == "Version" { version = $2 } $1 == "Architecture" { print "grub", version, $2 }'
} | LC_ALL=C sort >"$OUT/bootloader"
cd /
rm -rf "$download"
