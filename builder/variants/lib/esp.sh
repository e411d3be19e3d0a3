# Creates the EFI system partition from the tree $OUT/esp, once for each sector size in SECTOR_SIZES: Linux does not
# mount a FAT whose sectors are smaller than those of the disk. FAT stores local times, and files
# in the order in which they are written. Both are fixed here, so that the same tree gives the same bytes.
export TZ=UTC LC_ALL=C MTOOLS_SKIP_CHECK=1 MTOOLSRC=/dev/null

cd "$OUT/esp"
find . -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

for size in $SECTOR_SIZES; do
  image="$OUT/esp-$size.img"
  rm -f "$image"
  truncate --size="${ESP_MIB}M" "$image"
  # Clusters of 4096 bytes for both. FAT32 has at least 65,525 of them, so ESP_MIB must be more than 256.
  mkfs.vfat -F 32 -S "$size" -s $((4096 / size)) --invariant -n ETCHAOS -i "${ESP_UUID/-/}" "$image"

  find . -mindepth 1 -type d | sort | while read -r directory; do
    mmd -i "$image" "::${directory#.}"
  done
  find . -type f | sort | while read -r file; do
    mcopy -m -i "$image" "$file" "::${file#.}"
  done
  fsck.vfat -n "$image"
done
