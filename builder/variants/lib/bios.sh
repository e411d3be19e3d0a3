# build_bios_loader PROGRAM DIRECTORY: builds the boot loader for BIOS with a grub-mkimage, from GRUB's modules in
# the directory, with those that grub.cfg needs. Builds none for machines that have no BIOS.
build_bios_loader() {
  [ "$ARCH" = amd64 ] || return 0
  "$1" --directory="$2" --format=i386-pc --prefix=/etchaos --config="$OUT/bios/embedded.cfg" \
    --output="$OUT/bios/core.img" \
    biosdisk part_gpt part_msdos fat search search_fs_uuid normal configfile linux loadenv test echo \
    sleep true reboot halt serial terminal probe minicmd
  cp "$2/boot.img" "$OUT/bios/boot.img"
}
