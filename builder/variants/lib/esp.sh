# Creates the EFI system partition from the tree $OUT/esp. FAT stores local times, and files in the order in
# which they are written. Both are fixed here, so that the same tree gives the same bytes.
export TZ=UTC LC_ALL=C MTOOLS_SKIP_CHECK=1 MTOOLSRC=/dev/null
image="$OUT/esp.img"

rm -f "$image"
truncate --size="${ESP_MIB}M" "$image"
mkfs.vfat -F 32 --invariant -n ETCHAOS -i "${ESP_UUID/-/}" "$image"

cd "$OUT/esp"
find . -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
find . -mindepth 1 -type d | sort | while read -r directory; do
  mmd -i "$image" "::${directory#.}"
done
find . -type f | sort | while read -r file; do
  mcopy -m -i "$image" "$file" "::${file#.}"
done
fsck.vfat -n "$image"
